"""Verdicts on the claims, and the conditions that decide them."""

from collections.abc import Mapping

import pandas as pd

from refusal.latex import MISSING, escape_latex, printed, tabular
from refusal.reading import models_of

SYMBOLS = {
    "supported": r"$\bullet$",
    "contradicted": r"$\times$",
    "inconclusive": r"$\circ$",
    "not measured": MISSING,
}


def claims_table(claims: Mapping[str, Mapping], summary: pd.DataFrame) -> str:
    """The verdicts: overall and per model."""
    models = models_of(summary)
    lines = [
        [
            name,
            escape_latex(claim["statement"]),
            escape_latex(claim["published"]),
            claim["overall"]["verdict"],
            *(SYMBOLS[claim["models"][model]["verdict"]] for model in models),
        ]
        for name, claim in claims.items()
    ]
    turned = [rf"\rotatebox{{60}}{{{escape_latex(model)}}}" for model in models]
    header = ["", "Claim", "Published", "Overall", *turned]
    ragged = r">{\raggedright\arraybackslash}"
    columns = rf"l{ragged}p{{.40\textwidth}}{ragged}p{{.21\textwidth}}l" + "c" * len(models)
    return tabular(columns, header, lines)


def conditions_table(claims: Mapping[str, Mapping]) -> str:
    """Every condition of every claim with what was measured for it."""
    lines = []
    for name, claim in claims.items():
        lines.append([f"{name}: {claim['overall']['verdict']}"])
        lines += [_condition_line(condition) for condition in claim["overall"]["conditions"]]
    header = ["Quantity", "Measured by", "Expected", "Value", "Interval", "Verdict"]
    ragged = r">{\raggedright\arraybackslash}"
    columns = rf"{ragged}p{{.32\textwidth}}{ragged}p{{.19\textwidth}}llll@{{}}"
    return tabular(columns, header, lines, "longtable")


def _condition_line(condition: Mapping) -> list[str]:
    sides = [condition["left"], *([condition["right"]] if condition["right"] else [])]
    verdict = condition["verdict"]
    return [
        r"\newline$-$ ".join(r"\texttt{" + escape_latex(side) + "}" for side in sides),
        # Long names may be broken where their words end.
        escape_latex(f"{condition['metric']}, {condition['dataset']}").replace(
            r"\_", r"\_\allowbreak{}"
        ),
        bound(condition),
        *printed(*(condition[part] for part in ("metric", "value", "low", "high"))),
        verdict if condition["role"] == "test" else f"({verdict})",
    ]


def bound(condition: Mapping) -> str:
    """What a condition expects, in words (LaTeX)."""
    relation = condition["relation"]
    if relation == "between":
        return rf"\num{{{condition['lowest']:g}}} to \num{{{condition['highest']:g}}}"
    if relation == "equivalent":
        return rf"within \num{{{condition['tolerance']:g}}} of \num{{0}}"
    words = {"at_least": "at least", "at_most": "at most", "greater": "above", "less": "below"}
    return rf"{words[relation]} \num{{{condition['threshold'] or 0:g}}}"
