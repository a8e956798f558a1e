"""The selected candidates, and why others were rejected."""

from collections.abc import Mapping, Sequence

import pandas as pd

from refusal.latex import escape_latex, number, tabular
from refusal.tables.layout import METHOD_NAMES


def selection_table(selection: pd.DataFrame, cards: Sequence[Mapping]) -> str:
    """The selected candidate of every model, method and scope, with its scores.

    Columns and digits as in Table 5 of Arditi et al. (2024), layers as l*/L.
    """
    lines, depths = [], {card["name"]: card["n_layers"] for card in cards}
    for model, of_model in selection.groupby("model", sort=False):
        lines.append([_selection_heading(model, of_model)])
        for (method, scope), table in of_model.groupby(["method", "scope"], sort=False):
            row = table[table.selected].iloc[0]
            lines.append(
                [
                    METHOD_NAMES[method],
                    scope,
                    str(row.position).replace("-", "$-$"),
                    f"{row.layer}/{depths[model]}",
                    *(number(row[score], 3) for score in ("bypass", "induce", "kl")),
                    number(row.accuracy),
                    str(row["rank"]),
                    f"{int(table.passed.sum())}/{len(table)}",
                    "yes" if row.fallback else "no",
                ]
            )
    header = ["Method", "Scored in", "Position", "Layer", "Bypass", "Induce", "KL", "Accuracy"]
    header += ["Rank", "Passed", "Fallback"]
    return tabular("llrr" + "r" * 5 + "rl", header, lines)


def _selection_heading(model: str, selection: pd.DataFrame) -> str:
    """A model with the number of its candidates that could be scored."""
    counts = candidate_counts(selection).loc[model]
    return f"{escape_latex(model)}: {counts.scored} of {counts.candidates} candidates scored"


def candidate_counts(selection: pd.DataFrame) -> pd.DataFrame:
    """Candidates of DiM per model, and how many were pruned, lacked a difference, were scored.

    A candidate both pruned and without a difference counts as pruned. Index: model.
    """
    rows = selection[(selection.method == "dim") & (selection.scope == "source")]
    pruned = rows.reason.str.contains("pruned layer")
    zero = rows.reason.str.contains("zero direction") & ~pruned
    flags = rows.assign(candidates=True, pruned=pruned, zero=zero, scored=~(pruned | zero))
    columns = ["candidates", "pruned", "zero", "scored"]
    return flags.groupby("model", sort=False)[columns].sum()


def rejections_table(selection: pd.DataFrame) -> str:
    """Why candidates were rejected, counted over positions and layers."""
    reasons = selection.reason.str.split("; ").explode()
    counts = (
        selection.drop(columns="reason")
        .join(reasons)
        .query("reason != ''")
        .groupby(["method", "scope", "reason"], sort=False)
        .size()
        .unstack(fill_value=0)
    )
    lines = [
        [METHOD_NAMES[method], scope, *(str(count) for count in row)]
        for (method, scope), row in zip(counts.index, counts.to_numpy(), strict=True)
    ]
    header = [
        "Method",
        "Scored in",
        *(escape_latex(reason.replace("kl ", "KL ")) for reason in counts.columns),
    ]
    return tabular("ll" + "r" * counts.shape[1], header, lines)
