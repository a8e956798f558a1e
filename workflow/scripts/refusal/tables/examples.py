"""Completions of organisms."""

import pandas as pd

from refusal.latex import escape_latex, tabular


def examples_table(examples: pd.DataFrame) -> str:
    """Completions of organisms (content-free by construction), escaped."""
    lines = [
        [
            escape_latex(row.model),
            r"\texttt{" + escape_latex(row.intervention) + "}",
            escape_latex(row.text),
            escape_latex(row.completion[:160]) or r"\textit{(empty)}",
        ]
        for row in examples.itertuples()
    ]
    header = ["Model", "Intervention", "Prompt", "Completion"]
    return tabular(r"llp{.28\textwidth}p{.36\textwidth}", header, lines)
