"""Agreement of the judges."""

import pandas as pd

from refusal.latex import estimate, tabular


def agreement_table(agreement: pd.DataFrame) -> str:
    """Agreement of the judges of refusal over all models and interventions."""
    pooled = agreement[agreement.model == "all"]
    lines = [
        [
            row.dataset,
            f"{row.judge_a}, {row.judge_b}",
            estimate(row.kappa, row.low, row.high),
            *(rf"\num{{{count}}}" for count in (row.both, row.only_a, row.only_b, row.neither)),
        ]
        for row in pooled.itertuples()
    ]
    header = ["Prompts", "Judges", r"Cohen's $\kappa$", "Both", "First", "Second", "Neither"]
    return tabular("lllrrrr", header, lines)
