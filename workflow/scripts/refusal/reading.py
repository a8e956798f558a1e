"""Reading the tables of results: interventions, models, judges and how they are called.

Interventions are recognised by their recipe (direction, operator, scope, k, alpha, origin, side),
never by their name, so that a renamed entry of the config still finds its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from refusal.recipes import UNSTEERED

DIRECTION_NAMES = {
    "dim": "DiM",
    "inlp_faithful": "INLP",
    "inlp_corrected": "INLP (corrected)",
    "leace": "LEACE",
    "random": "Random",
}
KIND_NAMES = {
    "SafetyCore-WGM": "Core",
    "OverRefusal-XST": "Over-refusal",
    "Humanizing-CCN": "Humanizing",
    "Incomplete-CCN": "Incomplete",
    "Indeterminate-CCN": "Indeterminate",
    "Safety-CCN": "Safety",
    "Unsupported-CCN": "Unsupported",
    "HateSpeech-SB": "Hate",
    "CrimeAssistance-SB": "Crime",
    "Inappropriate-SB": "Inappropriate",
    "Advice-SB": "Advice",
}
KIND_DIRECTION_NAMES = {
    **KIND_NAMES,
    "refused_minus_complied": "Refused − complied",
    "dim": "DiM",
    "random": "Random",
    "none": "Nothing",
    "answered": "answered",
}
RECIPE = ("family", "direction", "operator", "scope", "k", "alpha", "strength")
RECIPE_COLUMNS = (*RECIPE, "length", "origin", "side", "tokens", "draw")
MINUS = "\N{MINUS SIGN}"


TOKEN_NAMES = {"prompt": "prompt", "last": "last prompt token", "generated": "generated tokens"}


class NothingToDraw(ValueError):
    """The study did not measure what a figure or table shows; the message says what is missing."""


def recipes(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per intervention with its recipe in a uniform notation, in order of appearance.

    Absent values become what they mean: alpha 1, origin "zero", length "difference", tokens "all",
    k "1" for the rank-one directions, and the empty string for a direction, scope or side that does
    not apply.
    """
    columns = ["intervention", *RECIPE_COLUMNS]
    frame = summary.reindex(columns=columns).drop_duplicates("intervention")
    frame = frame.set_index("intervention")
    for name in ("family", "direction", "scope", "side"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
    for name in ("alpha", "strength", "draw"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    frame["alpha"] = frame["alpha"].fillna(1.0)
    frame["operator"] = frame["operator"].astype(object).where(frame["operator"].notna(), "none")
    for name, usual in (("origin", "zero"), ("length", "difference"), ("tokens", "all")):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), usual)
    rank_one = frame["direction"].isin(["dim", "leace"])
    k = frame["k"].astype(object).where(frame["k"].notna(), "")
    frame["k"] = k.astype(str).str.removesuffix(".0")
    frame.loc[rank_one, "k"] = "1"
    frame.loc[frame["operator"].isin(UNSTEERED), ["direction", "scope", "k"]] = ""
    return frame


def find(table: pd.DataFrame, **recipe: object) -> list[str]:
    """Names of the interventions of `recipes(...)` whose columns equal the given values.

    Where nothing else is asked, all tokens are steered and additions are as long as the difference.
    """
    keep = np.ones(len(table), dtype=bool)
    for column, value in ({"tokens": "all", "length": "difference"} | recipe).items():
        keep &= (table[column] == value).to_numpy()
    return list(table.index[keep])


def models_of(summary: pd.DataFrame) -> list[str]:
    """Model names without the pooled rows, in order of appearance."""
    return [name for name in summary["model"].unique() if name not in ("mean", "all")]


def pooled_name(summary: pd.DataFrame) -> str:
    """The rows that stand for the whole study: "mean" over several models, or the only model.

    One model's mean over models is itself without an interval, so its own rows are taken.
    """
    models = models_of(summary)
    several = len(models) > 1 and (summary["model"] == "mean").any()
    return models[0] if models and not several else "mean"


def judge_of(summary: pd.DataFrame) -> str:
    """The oracle where it could judge, else the published substring rule."""
    known = summary[(summary["metric"] == "refused") & summary["value"].notna()]
    return "oracle" if (known["judge"] == "oracle").any() else "substring"


def estimates(
    summary: pd.DataFrame, metric: str, dataset: str, judge: str = "substring", model: str = "mean"
) -> pd.DataFrame:
    """Value, low and high of one metric for every intervention (index: intervention)."""
    rows = summary[
        (summary["metric"] == metric)
        & (summary["dataset"] == dataset)
        & (summary["judge"] == judge)
        & (summary["model"] == model)
    ]
    rows = rows.drop_duplicates("intervention").set_index("intervention")
    return rows[["value", "low", "high"]].astype(float)


def plain_number(value: float) -> str:
    """Shortest notation with a true minus sign, for labels of figures."""
    return f"{value:g}".replace("-", MINUS)


def short_share(value: float) -> str:
    """A share with two digits and no zero before the point, for labels of figures."""
    return f"{value:.2f}".removeprefix("0")


def _operator_name(recipe: Mapping[str, object]) -> str:
    direction, operator = recipe["direction"], recipe["operator"]
    alpha, strength = float(recipe["alpha"]), float(recipe["strength"])
    if operator == "add":
        if recipe["length"] == "harmful":
            return "addition of the harmful average"
        sign = "+" if strength > 0 else ""
        return "addition" if np.isnan(strength) else f"addition {sign}{plain_number(strength)}"
    if operator == "alterrep":
        factor = "" if alpha == 1 else f" \u00d7{plain_number(alpha)}"
        return f"AlterRep to {recipe['side'] or '?'}{factor}"
    if operator == "erase":
        return "erasure"
    if operator != "project":
        return str(operator)
    if alpha == 1 and recipe["scope"] == "weights":
        return "orthogonalisation"
    if alpha == 1 and recipe["origin"] == "harmful":
        return "set to the harmful average"
    if alpha == 1:
        single = recipe["k"] == "1" and direction in ("dim", "random")
        return "ablation" if single else "projection"
    if alpha == 2:
        single = recipe["k"] == "1" and direction in ("dim", "random")
        return "reflection" if single else "flipping"
    return f"projection, alpha {plain_number(alpha)}"


def label(recipe: Mapping[str, object], scope: bool = True) -> str:
    """Reader's name of one row of `recipes(...)`, for example "INLP flipping, k = 4 (source)"."""
    if recipe["operator"] in UNSTEERED:
        return {"none": "No intervention", "fine_tune": "Fine-tuning"}[recipe["operator"]]
    direction = str(recipe["direction"])
    parts = [f"{DIRECTION_NAMES.get(direction, direction)} {_operator_name(recipe)}".strip()]
    if recipe["origin"] not in ("zero", "harmful"):
        parts.append(f"origin {recipe['origin']}")
    if direction.startswith("inlp") or (direction == "random" and recipe["k"] != "1"):
        k = recipe["k"]
        parts.append("first direction" if k == "1" else f"k = {k}" if k != "full" else "full")
    if recipe["tokens"] != "all":
        parts.append(f"{TOKEN_NAMES[recipe['tokens']]} only")
    if not np.isnan(float(recipe["draw"])):
        parts.append(f"draw {int(float(recipe['draw']))}")
    suffix = f" ({recipe['scope']})" if scope and recipe["scope"] else ""
    return ", ".join(parts) + suffix


@dataclass(frozen=True)
class Row:
    """One line of the main comparison: its key for macros, its recipe and its random control."""

    key: str
    recipe: dict = field(default_factory=dict)
    control: dict = field(default_factory=dict)


def project_recipe(
    direction: str, k: str, alpha: float = 1.0, scope: str = "source", origin: str = "zero"
) -> dict:
    return {
        "operator": "project",
        "direction": direction,
        "k": k,
        "alpha": alpha,
        "scope": scope,
        "origin": origin,
    }


def any_rank(recipe: dict) -> dict:
    return {key: value for key, value in recipe.items() if key != "k"}


def k_order(k: str) -> float:
    return float(k) if k.isdigit() else np.inf


def _add(direction: str, strength: float) -> dict:
    return {"operator": "add", "direction": direction, "k": "1", "strength": strength}


def main_rows(leading: str = "8") -> list[Row]:
    """The main comparison, in reading order; `leading` is the restricted rank that is shown."""
    ablation = {"operator": "project", "direction": "random", "k": "1", "alpha": 1.0}
    addition = {"operator": "add", "direction": "random"}
    reflection = ablation | {"alpha": 2.0}
    inlp, corrected = "inlp_faithful", "inlp_corrected"
    projection, flipping = project_recipe("random", "full"), project_recipe("random", "full", 2.0)
    leading_projection = project_recipe("random", leading)
    leading_flipping = project_recipe("random", leading, 2.0)
    # These two were run with whichever INLP variant the config names.
    alterrep = {"operator": "alterrep", "side": "harmless", "alpha": 1.0}
    affine = {"operator": "project", "origin": "midpoint", "alpha": 1.0, "scope": "source"}
    return [
        Row("NoIntervention", {"operator": "none"}),
        Row("DimAblation", project_recipe("dim", "1", scope="all"), ablation | {"scope": "all"}),
        Row("DimAblationSource", project_recipe("dim", "1"), ablation | {"scope": "source"}),
        Row("DimReflection", project_recipe("dim", "1", 2.0), reflection | {"scope": "source"}),
        Row(
            "DimReflectionWrites",
            project_recipe("dim", "1", 2.0, scope="writes"),
            reflection | {"scope": "writes"},
        ),
        Row("AffineAblation", project_recipe("dim", "1", origin="harmless")),
        Row("DimSubtraction", _add("dim", -1.0), addition | {"strength": -1.0}),
        Row("DimAddition", _add("dim", 1.0), addition | {"strength": 1.0}),
        Row("InlpProjection", project_recipe(inlp, "full"), projection),
        Row("InlpProjectionLeading", project_recipe(inlp, leading), leading_projection),
        Row("InlpFlipping", project_recipe(inlp, "full", 2.0), flipping),
        Row(
            "InlpFlippingWrites",
            project_recipe(inlp, "full", 2.0, scope="writes"),
            flipping | {"scope": "writes"},
        ),
        Row("InlpFlippingLeading", project_recipe(inlp, leading, 2.0), leading_flipping),
        Row("InlpCorrectedProjection", project_recipe(corrected, "full"), projection),
        Row("InlpCorrectedFlipping", project_recipe(corrected, "full", 2.0), flipping),
        Row("AffineInlp", affine | {"k": "full"}),
        Row("AlterrepHarmless", alterrep),
        Row("Leace", {"operator": "erase", "direction": "leace"}),
        Row("FineTuning", {"operator": "fine_tune"}),
    ]


def leading_rank(table: pd.DataFrame, wanted: int = 8) -> str:
    """Largest restricted INLP rank up to `wanted` that the study ran (as text); else `wanted`."""
    inlp = table[(table["direction"] == "inlp_faithful") & (table["operator"] == "project")]
    ranks = [int(k) for k in inlp["k"] if k.isdigit() and 1 < int(k) <= wanted]
    return str(max(ranks, default=wanted))


def resolve_rows(summary: pd.DataFrame) -> list[tuple[Row, str, list[str]]]:
    """(row, intervention, its random controls) for every main row that the study ran.

    Among several matches the largest subspace is taken ("full" before any number). Controls are
    the single draws, not the rows of their means.
    """
    table = recipes(summary)
    order = {name: (k != "full", -int(k) if k.isdigit() else 0) for name, k in table["k"].items()}
    found = []
    for row in main_rows(leading_rank(table)):
        names = sorted(find(table, **row.recipe), key=order.__getitem__)
        if names:
            controls = find(table, **row.control) if row.control else []
            found.append((row, names[0], [c for c in controls if table.loc[c, "draw"] >= 0]))
    return found
