"""Steering along the kinds' directions: Table 2 of Joad et al. 2026, and the cells behind it."""

import numpy as np
import pandas as pd

from refusal.latex import escape_latex, number, tabular
from refusal.reading import KIND_DIRECTION_NAMES, KIND_NAMES
from refusal.statistics import student_mean
from refusal.tables.layout import share_range

METRICS = ("accuracy", "refusal", "over_refusal")
ABLATION = "ablation"


def knob_table(curves: pd.DataFrame, chosen: pd.DataFrame) -> str:
    """Accuracy, refusal and over-refusal at the chosen strength and under ablation, per direction.

    Means over models with Student's t intervals (one model: its own); random directions pooled.
    """
    rows = curves.assign(group=_grouped(curves.direction))
    strength = chosen.set_index(["model", "direction"]).strength.astype(str)
    at = [strength.get(key) for key in zip(rows.model, rows.direction, strict=True)]
    parts = {"chosen": rows[rows.strength == at], ABLATION: rows[rows.strength == ABLATION]}
    groups = [name for name in (*KIND_NAMES, *_others(rows)) if name in set(rows.group)]
    lines = []
    for group in groups:
        mine = chosen[_grouped(chosen.direction) == group]
        line = [escape_latex(KIND_DIRECTION_NAMES.get(group, group).replace("\u2212", "minus"))]
        line.append(" ".join(f"{value:g}" for value in sorted(mine.strength.unique())))
        line.append(rf"\num{{{int(mine.satisfied.sum())}}}/\num{{{len(mine)}}}")
        below = [""] * len(line)
        for part in parts.values():
            for metric in METRICS:
                value, bounds = _cell(part[(part.group == group) & (part.metric == metric)])
                line.append(value)
                below.append(bounds)
        lines += [line, below]
    heads = ["Acc.", "RR", "ORR"]
    header = ["Direction", "Strengths", "Rule met", *heads, *(f"{h} (abl.)" for h in heads)]
    return tabular("@{}llrllllll@{}", header, lines)


def _grouped(directions: pd.Series) -> pd.Series:
    return directions.where(~directions.str.startswith("random"), "random")


def _others(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows.group.unique() if name not in KIND_NAMES]


def _cell(rows: pd.DataFrame) -> tuple[str, str]:
    """Mean over models of one rate and its interval; with one model its own."""
    per_model = rows.groupby("model").value.mean().dropna()
    if len(per_model) == 1 and len(rows) == 1:
        mean = rows.iloc[0]
    else:
        mean = student_mean(per_model.to_numpy(np.float64))
    # A share cannot leave the unit range, whatever Student's t says.
    return number(mean.value), share_range(max(mean.low, 0.0), min(mean.high, 1.0))


def cells_table(cells: pd.DataFrame) -> str:
    """How many prompts each cell of the balanced test holds, per model."""
    rows = cells[cells.dataset == "balanced"]
    table = rows.pivot(index="model", columns="cell", values="n").fillna(0).astype(int)
    table = table.loc[list(rows.model.unique())]
    lines = [
        [escape_latex(model), *(rf"\num{{{count}}}" for count in counts)]
        for model, counts in zip(table.index, table.to_numpy(), strict=True)
    ]
    return tabular("@{}l" + "r" * table.shape[1] + "@{}", ["Model", *table.columns], lines)
