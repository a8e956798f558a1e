"""Kinds of refusal: what organisms learned, how stable and how alike directions are."""

import pandas as pd

from refusal.latex import escape_latex, number, tabular
from refusal.reading import KIND_NAMES
from refusal.tables.layout import share_range

MISSED = r"\textsuperscript{\dag}"
# What is asked of organisms, per kind: metric and label of the behaviour frame, least or most.
LEAST_STYLE, MOST_CONTRAST = 0.85, 0.10


def kind_requirements(behaviour: pd.DataFrame) -> pd.DataFrame:
    """What is asked of every kind and model, and whether the point estimate misses it.

    Returns:
        rows of the behaviour frame (right style of noncompliant prompts, refusal of contrasts) with
        the column missed.
    """
    style = behaviour.metric == "right_style"
    contrast = (behaviour.metric == "refused") & (behaviour.label == "contrast")
    missed = (style & (behaviour.value < LEAST_STYLE)) | (
        contrast & (behaviour.value > MOST_CONTRAST)
    )
    return behaviour.assign(missed=missed)[style | contrast]


def kinds_table(behaviour: pd.DataFrame) -> str:
    """Right style of noncompliant prompts and refusal of contrasts, per kind and model."""
    rows = kind_requirements(behaviour)
    rows = rows.assign(column=rows.metric.where(rows.metric == "right_style", "contrast"))
    models, lines = list(rows.model.unique()), []
    known = "right_style" in set(rows.metric)
    columns = ("right_style", "contrast") if known else ("contrast",)
    at = {(r.model, r.kind, r.column): r for r in rows.itertuples()}
    for kind in (kind for kind in KIND_NAMES if kind in set(rows.kind)):
        first, second = [escape_latex(kind)], [""]
        for model in models:
            for column in columns:
                row = at.get((model, kind, column))
                first.append("" if row is None else number(row.value) + MISSED * row.missed)
                second.append("" if row is None else share_range(row.low, row.high))
        lines += [first, second]
    heading = {"right_style": "style", "contrast": "contrast"}
    header = ["Kind"] + [
        rf"\begin{{tabular}}[b]{{@{{}}l@{{}}}}{escape_latex(model)}\\{heading[column]}\end{{tabular}}"
        for model in models
        for column in columns
    ]
    return tabular("@{}l" + "l" * (len(header) - 1) + "@{}", header, lines)


def _short(kind: str) -> str:
    return escape_latex(KIND_NAMES.get(kind, kind))


def stability_table(stability: pd.DataFrame, cosines: pd.DataFrame) -> str:
    """Cosine within a kind (below: least and greatest draw), and with the closest kind."""
    shared = cosines[(cosines.variant == "shared") & (cosines.a != cosines.b)]
    closest = shared.loc[shared.groupby(["model", "a"]).value.idxmax()]
    nearest = {(r.model, r.a): r for r in closest.itertuples()}
    models = list(stability.model.unique())
    at = {(r.model, r.kind): r for r in stability.itertuples()}
    lines = []
    for kind in (kind for kind in KIND_NAMES if kind in set(stability.kind)):
        first, second = [escape_latex(kind)], [""]
        for model in models:
            within, other = at.get((model, kind)), nearest.get((model, kind))
            first += ["" if row is None else number(row.value) for row in (within, other)]
            second.append("" if within is None else share_range(within.low, within.high))
            second.append("" if other is None else rf"{{\tiny {_short(other.b)}}}")
        lines += [first, second]
    header = ["Kind"] + [
        rf"\begin{{tabular}}[b]{{@{{}}l@{{}}}}{escape_latex(model) if n == 0 else ''}\\{what}"
        r"\end{tabular}"
        for model in models
        for n, what in enumerate(("within", "closest"))
    ]
    return tabular("@{}l" + "l" * (len(header) - 1) + "@{}", header, lines)
