"""Expected values of a study: what a finished run found, with the tolerance of each value.

They are made from one finished run and committed; `refusal.verification` holds a fresh run to them.

    {study, source: {commit, packages, hardware}, resources: [one row per rule],
     results_bytes, claims: {name: {overall, models}}, values: [rows]}

A row of `values`: item (the claim, or "paper" for a number that its text quotes), intervention
(`left - right` of a comparison), dataset, metric, judge, value, low, high, tolerance; null where
there is none.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from refusal.compare import ESTIMATE, MEASURED, Tolerance
from refusal.errors import InputError
from refusal.finished_run import FinishedRun, read_claims, read_config, read_frame
from refusal.statistics import KEY_COLUMNS, MEAN

PAPER = "paper"
VALUE_KEYS = ["item", "intervention", *KEY_COLUMNS]
_NUMBER = {"type": ["number", "null"]}
_VERDICT = {"type": "object", "required": ["verdict"]}
EXPECTED_SCHEMA = {
    "type": "object",
    "required": ["study", "source", "resources", "results_bytes", "claims", "values"],
    "properties": {
        "study": {"type": "string", "minLength": 1},
        "claims": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["overall", "models"],
                "properties": {
                    "overall": {"type": "object", "required": ["verdict", "conditions"]},
                    "models": {"type": "object", "additionalProperties": _VERDICT},
                },
            },
        },
        "values": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [*VALUE_KEYS, *ESTIMATE, "tolerance"],
                "properties": {
                    **dict.fromkeys(VALUE_KEYS, {"type": "string"}),
                    **dict.fromkeys(ESTIMATE, _NUMBER),
                    "tolerance": {"type": "number", "minimum": 0},
                },
            },
        },
    },
}
_QUOTED = re.compile(r"\\defineresult\{([^/}]+)/([^/}]+)/([^/}]+)/([^/}]+)\}")


def read_tolerances(path: str | Path) -> Tolerance:
    """The floors of artifact/tolerances.yaml; InputError where they are no numbers from 0 on."""
    given = read_config(Path(path))
    numbers = {"default": given.get("default"), **(given.get("metrics") or {})}
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            raise InputError(f"{path}: {name}: not a number from 0 on. Give one, such as 0.05.")
    return Tolerance(numbers.pop("default"), numbers)


def read_expected(path: str | Path) -> dict[str, Any]:
    """Expected values of a study; InputError with file, key and remedy if they are not."""
    remedy = "Restore it from the repository, or make it with write_expected.py."
    try:
        expected = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}. Expected values are committed for the studies in "
            "artifact/expected/; write_expected.py makes them from a finished run."
        ) from None
    except ValueError:
        raise InputError(f"{path}: not valid JSON. {remedy}") from None
    error = best_match(Draft202012Validator(EXPECTED_SCHEMA).iter_errors(expected))
    if error is not None:
        key = ".".join(map(str, error.absolute_path)) or "top level"
        raise InputError(f"{path}: {key}: {error.message}. {remedy}")
    return expected


def expected_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Verdicts of claims and the statements they stand for, without what was measured."""
    kept = {}
    for name, claim in claims.items():
        conditions = [
            {key: value for key, value in condition.items() if _stated(key, value)}
            for condition in claim["overall"]["conditions"]
        ]
        kept[name] = {
            "overall": {"verdict": claim["overall"]["verdict"], "conditions": conditions},
            "models": {
                model: {"verdict": outcome["verdict"]} for model, outcome in claim["models"].items()
            },
        }
    return kept


def _stated(key: str, value: Any) -> bool:
    return key not in MEASURED and value is not None


def claim_values(claims: Mapping[str, Any]) -> pd.DataFrame:
    """What was measured for each condition over all models, as rows of `VALUE_KEYS` and ESTIMATE.

    A quantity that a claim names twice, with two bounds, is one row.
    """
    rows = [
        {
            "item": name,
            "intervention": intervention_name(condition),
            **{key: condition[key] for key in (*KEY_COLUMNS, *ESTIMATE)},
        }
        for name, claim in claims.items()
        for condition in claim["overall"]["conditions"]
    ]
    frame = pd.DataFrame(rows, columns=[*VALUE_KEYS, *ESTIMATE])
    return _typed(frame).drop_duplicates(VALUE_KEYS).reset_index(drop=True)


def intervention_name(condition: Mapping[str, Any]) -> str:
    """The intervention of a condition, or its two as "one - other"."""
    right = condition.get("right")
    return f"{condition['left']} - {right}" if right else condition["left"]


def quoted_values(run: FinishedRun, summary: pd.DataFrame) -> pd.DataFrame:
    """Estimates that the text of the run's paper quotes, as rows of `VALUE_KEYS` and ESTIMATE."""
    numbers = run.folder / "paper" / "numbers.tex"
    if not numbers.is_file():
        raise InputError(f"{numbers}: no such file. Finish the run first: make paper.")
    names = dict.fromkeys(_QUOTED.findall(numbers.read_text(encoding="utf-8")))
    found = estimates_over_models(summary)
    keys = ["intervention", *KEY_COLUMNS]
    quoted = pd.DataFrame(list(names), columns=keys)
    return _typed(quoted.merge(found, on=keys))[[*VALUE_KEYS, *ESTIMATE]]


def estimates_over_models(summary: pd.DataFrame) -> pd.DataFrame:
    """Estimates over all models, or those of the only one, as rows of `VALUE_KEYS` and ESTIMATE."""
    models = pd.unique(summary["model"])
    pooled = MEAN if len([name for name in models if name != MEAN]) > 1 else models[0]
    rows = summary[summary["model"] == pooled].assign(item=PAPER)
    return _typed(rows[[*VALUE_KEYS, *ESTIMATE]])


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(item=frame.get("item", PAPER)).astype(dict.fromkeys(ESTIMATE, "float64"))


def with_tolerance(values: pd.DataFrame, floors: Tolerance) -> pd.DataFrame:
    """The rows with a column tolerance: half of the interval, or the floor if that is larger."""
    half = pd.concat(
        [values["value"] - values["low"], values["high"] - values["value"]], axis=1
    ).max(axis=1)
    floor = floors.allowed(values["metric"], values["value"], values["value"])
    return values.assign(tolerance=pd.concat([half, floor], axis=1).max(axis=1))


def make_expected(
    run: FinishedRun, floors: Tolerance, source: Mapping[str, Any], resources: pd.DataFrame
) -> dict[str, Any]:
    """Expected values from a finished run.

    Args:
        floors: least tolerance of each metric (`read_tolerances`).
        source: where the run was made.
        resources: what its rules took (`refusal.benchmarks.read_benchmarks`).

    Raises:
        InputError: the run is not finished.
    """
    for part in ("config", "estimates", "claims"):
        if part not in run.parts:
            raise InputError(f"{run.name}: no {part} in it. Finish the run first: make paper.")
    claims = read_claims(run.only("claims"))
    keys = ["model", "intervention", *KEY_COLUMNS]
    summary = read_frame(run.only("estimates"), [*keys, *ESTIMATE], keys)
    values = pd.concat([claim_values(claims), quoted_values(run, summary)], ignore_index=True)
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    return {
        "study": read_config(run.only("config"))["study"],
        "source": dict(source),
        "resources": resources.to_dict("records"),
        "results_bytes": sum(path.stat().st_size for path in files),
        "claims": expected_claims(claims),
        "values": [_plain(row) for row in with_tolerance(values, floors).to_dict("records")],
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for JSON: null for what is no finite number, and no more digits than say something."""
    return {
        key: value if isinstance(value, str) else _rounded(float(value))
        for key, value in row.items()
    }


def _rounded(number: float) -> float | None:
    return float(f"{number:.6g}") if math.isfinite(number) else None


def save_expected(expected: Mapping[str, Any], path: str | Path) -> None:
    """Write expected values, one row per line, so that a change of one is a change of one line."""
    values = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in expected["values"])
    rest = {key: value for key, value in expected.items() if key != "values"}
    text = json.dumps(rest, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    Path(path).write_text(f'{text},\n "values": [\n{values}\n ]\n}}\n', encoding="utf-8")


def values_of(expected: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of `values` as a table."""
    frame = pd.DataFrame(expected["values"], columns=[*VALUE_KEYS, *ESTIMATE, "tolerance"])
    return frame.astype(dict.fromkeys([*ESTIMATE, "tolerance"], "float64"))


def expected_file(root: Path, config: Path) -> Path:
    """Where the expected values of the study with this config.yaml are committed."""
    study = read_config(config).get("study")
    if not isinstance(study, str) or not re.fullmatch(r"[\w-]+", study):
        raise InputError(f"{config}: study: no name of a study. Restore the file.")
    return root / "artifact" / "expected" / f"{study}.json"
