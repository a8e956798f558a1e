"""Everything that the page shows of a study, as one JSON document.

Its size is bounded: of a number of prompts per label the landing places with four digits and the
completions cut at a number of characters, and of the estimates those on the page.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from refusal.explorer.completions import Shown, completion_index
from refusal.reading import DIRECTION_NAMES, label, models_of, recipes

# Estimates on the page: those of behaviour, of what steering costs, and of nothing else.
METRICS = ("refused", "complied", "looping", "perplexity_ratio", "capability")
DATASETS = ("harmful", "harmless", "borderline", "text", "answers", "own", "capability")
# What tells interventions with the same direction and operator from each other, in order.
FACETS = ("k", "alpha", "scope", "strength", "length", "origin", "side", "tokens", "draw")
SCORES = ("bypass", "induce", "kl", "accuracy")
DIGITS = 4


def study_document(
    study: str, frames: Mapping[str, Any], organisms: Iterable[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The document of a study.

    Args:
        frames: `prompts` (refusal.prompts), `summary` (refusal.statistics), `landing`
            (refusal.geometry), `selection` with columns model and method (refusal.selection), and
            `generations` and `scores`: tables by model and intervention.
        organisms: models that were trained here, whose completions hold nothing to redact.
        settings: section `explorer` of the configuration.
    """
    summary = frames["summary"]
    names = list(dict.fromkeys(name for by in frames["generations"].values() for name in by))
    prompts = _evaluated(frames["prompts"], frames["generations"])
    prompts = prompts.groupby("label", sort=False).head(settings["prompts"])
    models = []
    for model in models_of(summary):
        redacted = model not in set(organisms) and not settings["real_completions"]
        kept = Shown(prompts, redacted, settings["characters"])
        models.append({
            "name": model,
            "redacted": redacted,
            "estimates": _estimates(summary[summary["model"] == model], names),
            "landing": _landing(frames["landing"].query("model == @model"), prompts["id"]),
            "completions": completion_index(
                frames["generations"][model], frames["scores"][model], kept
            ),
            "candidates": _candidates(frames["selection"].query("model == @model")),
        })  # fmt: skip
    return {
        "study": study,
        "facets": list(FACETS),
        "scores": list(SCORES),
        "interventions": _interventions(summary, names),
        "prompts": prompts.to_dict("records"),
        "models": models,
    }


def to_json(document: Mapping[str, Any]) -> str:
    """The document as JSON that no HTML parser takes for markup (HTML standard, 4.12.1.3).

    Raises:
        ValueError: a number that JSON does not have.
    """
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _evaluated(prompts: pd.DataFrame, generations: Mapping[str, Mapping]) -> pd.DataFrame:
    """Id, label and text of the prompts that have completions, in their order."""
    first = next(iter(next(iter(generations.values())).values()))
    return prompts.loc[prompts["id"].isin(set(first["id"])), ["id", "label", "text"]]


def _interventions(summary: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Name, reader's name, group (direction and operator) and facets of every intervention."""
    table = recipes(summary)
    table = table.loc[[name for name in names if name in table.index]]
    found = []
    for name, recipe in table.iterrows():
        direction = DIRECTION_NAMES.get(recipe["direction"], recipe["direction"])
        group = f"{direction}, {recipe['operator']}".removeprefix(", ")
        facets = {facet: _text(recipe[facet]) for facet in FACETS}
        found.append({"name": name, "label": label(recipe), "group": group, **facets})
    return found


def _text(value: object) -> str:
    """A facet as text; the empty string where it does not apply."""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:g}"
    return str(value)


def _number(value: object) -> float | None:
    """A number with the digits that the page shows; None for no number."""
    return None if pd.isna(value) or np.isinf(value) else float(f"{value:.{DIGITS}g}")


def _estimates(rows: pd.DataFrame, names: list[str]) -> list[list[Any]]:
    """Intervention, metric, dataset, judge, value, low, high and n of what the page shows."""
    keep = rows["intervention"].isin(names) & rows["metric"].isin(METRICS)
    rows = rows[keep & rows["dataset"].isin(DATASETS)]
    return [
        [row.intervention, row.metric, row.dataset, row.judge,
         *map(_number, (row.value, row.low, row.high)), int(row.n)]
        for row in rows.itertuples()
    ]  # fmt: skip


def _landing(rows: pd.DataFrame, ids: pd.Series) -> list[dict[str, Any]]:
    """Places of the prompts by intervention and candidate: two components, and t along DiM."""
    found = []
    for (name, position, layer), group in rows.groupby(
        ["intervention", "position", "layer"], sort=False
    ):
        places = group.drop_duplicates("id").set_index("id").reindex(ids)
        values = {
            "pc1": list(map(_number, places["pc1"])),
            "pc2": list(map(_number, places["pc2"])),
            "t": list(map(_number, places["position_along_dim"])),
        }
        candidate = {"position": int(position), "layer": int(layer)}
        found.append({"intervention": name, **candidate, **values})
    return found


def _candidates(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The selection scores of every candidate and method."""
    return [
        {
            "method": row["method"],
            "scope": row["scope"],
            "position": int(row["position"]),
            "layer": int(row["layer"]),
            **{score: _number(row[score]) for score in SCORES},
            "reason": row["reason"] if isinstance(row["reason"], str) else "",
            **{mark: bool(row[mark]) for mark in ("passed", "selected", "fallback")},
        }
        for row in rows.to_dict("records")
    ]
