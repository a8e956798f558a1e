"""Published claims as machine-checked statements: supported, contradicted, or not decided.

A claim is a list of conditions on one table, the summary (or, with `right`, the comparisons). A
condition names a region of allowed values; its verdict is read from the INTERVAL, not the value:

    supported      the whole interval lies in the region
    contradicted   the whole interval lies outside it
    inconclusive   the interval straddles a bound, or there is no interval (one model)
    not measured   the row is missing or its value is NaN

A claim is contradicted if one of its conditions is, supported if all of them are, otherwise not
measured if one of them is not, otherwise inconclusive. Where the published setting is not known
(for example the scope of an intervention), conditions carry a `setting`; each setting is judged by
itself, together with the conditions that name none, and the claim gets a verdict only where all
settings agree. Conditions with role `report` are evaluated and printed beside the verdict, but do
not enter it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from refusal.errors import InputError
from refusal.statistics import MEAN

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_MEASURED = "not measured"

# Relation -> the numbers it needs.
RELATIONS = {
    "at_least": ["threshold"],
    "at_most": ["threshold"],
    "greater": [],  # threshold defaults to 0: with `right`, strictly more than the other side
    "less": [],
    "between": ["lowest", "highest"],
    "equivalent": ["tolerance"],
}
NUMBERS = ("threshold", "lowest", "highest", "tolerance")

_TEXT = {"type": "string", "minLength": 1}
_CONDITION = {
    "type": "object",
    "additionalProperties": False,
    "required": ["left", "dataset", "metric", "judge", "relation", "rationale"],
    "properties": {
        "left": _TEXT,
        "right": _TEXT,
        "dataset": _TEXT,
        "metric": _TEXT,
        "judge": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
        "relation": {"enum": list(RELATIONS)},
        **{name: {"type": "number"} for name in NUMBERS},
        "role": {"enum": ["test", "report"]},
        "setting": _TEXT,
        "needs_lower_rank": {"type": "boolean"},
        "rationale": _TEXT,
    },
    "allOf": [
        {
            "if": {"properties": {"relation": {"const": relation}}, "required": ["relation"]},
            "then": {"required": numbers},
        }
        for relation, numbers in RELATIONS.items()
    ],
}
CLAIMS_SCHEMA = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "required": ["statement", "source", "published", "conditions"],
        "properties": {
            "statement": _TEXT,
            "source": _TEXT,
            "published": _TEXT,
            "rationale": _TEXT,
            "experiment": _TEXT,
            "conditions": {"type": "array", "items": _CONDITION, "minItems": 1},
        },
    },
}

SummaryKey = tuple[str, str, str, str, str]  # model, intervention, dataset, metric, judge
ComparisonKey = tuple[str, str, str, str, str, str]  # model, left, right, dataset, metric, judge


def load_claims(path: str | Path, experiment: str | None = None) -> dict[str, dict[str, Any]]:
    """Claims by name from a YAML file; raises InputError with file, key and remedy.

    Args:
        path: paper/claims.yaml.
        experiment: return the claims that name this one, which has tables of its own; by default
            those that name none and are read from the summary of a study's models.
    """
    try:
        claims = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Name a readable claims file.") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" near line {where.line + 1}" if where else ""
        raise InputError(f"{path}: not valid YAML{line}. Check indentation and quotes.") from None
    error = best_match(Draft202012Validator(CLAIMS_SCHEMA).iter_errors(claims))
    if error is not None:
        key = ".".join(str(part) for part in error.absolute_path) or "top level"
        raise InputError(f"{path}: {key}: {error.message}. See the head of the file for the keys.")
    for name, claim in claims.items():
        if all(condition.get("role") == "report" for condition in claim["conditions"]):
            raise InputError(
                f"{path}: {name}.conditions: all have role report, so nothing decides the claim. "
                "Give at least one the role test."
            )
    return {name: claim for name, claim in claims.items() if claim.get("experiment") == experiment}


def required_comparisons(
    claims: Mapping[str, Mapping[str, Any]], interventions: Collection[str]
) -> list[tuple[str, str]]:
    """Pairs (left, right) that the claims compare, where this study has both interventions.

    `interventions`: names, draws included; a group `<name>-draw*` counts as present when a draw is.
    """
    pairs = {
        (condition["left"], condition["right"]): None
        for claim in claims.values()
        for condition in claim["conditions"]
        if "right" in condition
    }

    def present(name: str) -> bool:
        prefix = name.removesuffix("*")
        return any(
            other == name or (name != prefix and other.startswith(prefix))
            for other in interventions
        )

    return [pair for pair in pairs if all(present(name) for name in pair)]


def evaluate_claims(
    claims: Mapping[str, Mapping[str, Any]], summary: pd.DataFrame, comparisons: pd.DataFrame
) -> dict[str, dict[str, Any]]:
    """Verdicts of all claims: overall and for every model.

    Overall is judged on the rows "mean" over models; a single model has no such interval and is
    the whole study itself. A table of nothing but rows "mean" has no single models.

    Result: {claim: {statement, source, published, rationale, overall: outcome, models: {name:
    outcome}}}; outcome: {verdict, settings: {setting: verdict}, conditions: [the condition with
    judge, value, low, high, n, verdict, reason]}. NaN becomes None, so that it is valid JSON.
    """
    table = _Measured(summary, comparisons)
    models = [name for name in pd.unique(summary["model"]) if name != MEAN]
    pooled = models[0] if len(models) == 1 else MEAN
    results = {}
    for name, claim in claims.items():
        conditions = claim["conditions"]
        results[name] = {
            **{key: claim.get(key) for key in ("statement", "source", "published", "rationale")},
            "overall": _outcome(conditions, pooled, table),
            "models": {model: _outcome(conditions, model, table) for model in models},
        }
    return results


def save_verdicts(path: str | Path, verdicts: Mapping[str, Any]) -> None:
    """Write verdicts as JSON (UTF-8, stable order, no NaN)."""
    text = json.dumps(verdicts, indent=2, ensure_ascii=False, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def region(condition: Mapping[str, Any]) -> tuple[float, float, bool]:
    """Bounds that the condition allows, and whether the bounds themselves are excluded."""
    relation, threshold = condition["relation"], float(condition.get("threshold", 0.0))
    if relation in ("at_least", "greater"):
        return threshold, math.inf, relation == "greater"
    if relation in ("at_most", "less"):
        return -math.inf, threshold, relation == "less"
    if relation == "between":
        return float(condition["lowest"]), float(condition["highest"]), False
    return -float(condition["tolerance"]), float(condition["tolerance"]), False


def interval_verdict(condition: Mapping[str, Any], low: float, high: float) -> str:
    """Verdict of one interval; NaN bounds (no interval) are inconclusive.

    An interval that only touches the bound of a strict relation (two sides that are equal on every
    prompt give [0, 0]) is inconclusive: a tie is not evidence for either side.
    """
    lowest, highest, strict = region(condition)
    if math.isnan(low) or math.isnan(high):
        return INCONCLUSIVE
    if high < lowest or low > highest:
        return CONTRADICTED
    inside = lowest < low and high < highest if strict else lowest <= low and high <= highest
    return SUPPORTED if inside else INCONCLUSIVE


def conjunction(verdicts: Sequence[str]) -> str:
    """Verdict of conditions that must all hold."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    if not verdicts or NOT_MEASURED in verdicts:
        return NOT_MEASURED
    return SUPPORTED if set(verdicts) == {SUPPORTED} else INCONCLUSIVE


def unanimous(verdicts: Collection[str]) -> str:
    """Verdict over settings of which the published one is not known: decided where all agree."""
    return next(iter(verdicts)) if len(set(verdicts)) == 1 else INCONCLUSIVE


class _Measured:
    """Rows of the summary and the comparisons by key."""

    def __init__(self, summary: pd.DataFrame, comparisons: pd.DataFrame) -> None:
        self.summary: dict[SummaryKey, dict[str, Any]] = _by_key(
            summary, ["model", "intervention", "dataset", "metric", "judge"]
        )
        self.comparisons: dict[ComparisonKey, dict[str, Any]] = _by_key(
            comparisons, ["model", "left", "right", "dataset", "metric", "judge"]
        )
        self.ranks = {key[:2]: row["rank"] for key, row in self.summary.items()}

    def estimate(
        self, condition: Mapping[str, Any], model: str, judge: str
    ) -> dict[str, Any] | None:
        """value, low, high, n, reason of a condition's left side, or of left - right."""
        left, right = condition["left"], condition.get("right")
        what = (condition["dataset"], condition["metric"], judge)
        if right is None:
            return self.summary.get((model, left, *what))
        row = self.comparisons.get((model, left, right, *what))
        if row is not None:
            return {**row, "value": row["difference"]}
        row = self.comparisons.get((model, right, left, *what))
        if row is not None:
            return {**row, "value": -row["difference"], "low": -row["high"], "high": -row["low"]}
        return None

    def lower_rank(self, condition: Mapping[str, Any], model: str) -> bool:
        """Whether left uses fewer directions than right (ranks averaged over models in "mean")."""
        left, right = (
            self.ranks.get((model, condition[side]), math.nan) for side in ("left", "right")
        )
        return bool(left < right)


def _by_key(table: pd.DataFrame, keys: list[str]) -> dict[tuple, dict[str, Any]]:
    rows = zip(*(table[key] for key in keys), strict=True)
    return dict(zip(rows, table.to_dict("records"), strict=True))


def _outcome(
    conditions: Sequence[Mapping[str, Any]], model: str, table: _Measured
) -> dict[str, Any]:
    evaluated = [_evaluate(condition, model, table) for condition in conditions]
    tests = [result for result in evaluated if result["role"] == "test"]
    names = list(dict.fromkeys(result["setting"] for result in tests if result["setting"]))
    settings = {
        name: conjunction([r["verdict"] for r in tests if r["setting"] in (None, name)])
        for name in names
    }
    verdicts = settings.values() if settings else [conjunction([r["verdict"] for r in tests])]
    return {"verdict": unanimous(verdicts), "settings": settings, "conditions": evaluated}


def _evaluate(condition: Mapping[str, Any], model: str, table: _Measured) -> dict[str, Any]:
    """A condition with what was measured for it; of several judges, the first that has a value."""
    judges = condition["judge"]
    judges = [judges] if isinstance(judges, str) else judges
    rows = {judge: table.estimate(condition, model, judge) for judge in judges}
    found = {judge: row for judge, row in rows.items() if row is not None}
    judge = next(
        (name for name, row in found.items() if not math.isnan(row["value"])),
        next(iter(found), judges[0]),
    )
    row = found.get(judge)
    measured = {key: _number(row[key]) if row else None for key in ("value", "low", "high", "n")}
    verdict, reason = _decide(condition, row)
    if condition.get("needs_lower_rank") and row and not table.lower_rank(condition, model):
        verdict = NOT_MEASURED
        reason = f"{condition['left']} uses no fewer directions than {condition['right']}"
    return {
        **{key: condition.get(key) for key in ("left", "right", "dataset", "metric")},
        "judge": judge,
        **{key: condition.get(key) for key in ("relation", *NUMBERS, "setting", "rationale")},
        "role": condition.get("role", "test"),
        **measured,
        "verdict": verdict,
        "reason": reason,
    }


def _decide(condition: Mapping[str, Any], row: Mapping[str, Any] | None) -> tuple[str, str | None]:
    if row is None:
        return NOT_MEASURED, "no such row: the intervention, dataset or judge is not in this study"
    reason = row.get("reason")
    reason = reason if isinstance(reason, str) else None
    if math.isnan(row["value"]):
        return NOT_MEASURED, reason or "no value"
    if math.isnan(row["low"]) or math.isnan(row["high"]):
        return INCONCLUSIVE, reason or "no interval"
    return interval_verdict(condition, row["low"], row["high"]), reason


def _number(value: Any) -> float | int | None:
    """A plain number for JSON; None for NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return int(value)
