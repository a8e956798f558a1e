"""What an adversarial suffix does to cosine, attribution and attention, in numbers."""

from typing import NamedTuple

import pandas as pd

from refusal.latex import escape_latex, tabular
from refusal.reading import models_of, pooled_name
from refusal.statistics import BASELINE, MEAN, MODEL_JUDGE
from refusal.tables.layout import cell, lookup

CONDITIONS = ("harmful", "harmful+random_suffix", "harmful+suffix", "harmless")
GEOMETRY_JUDGE = "geometry"


class Quantity(NamedTuple):
    """A block of the table: its heading, and the metric of the share of its gap that is closed."""

    metric: str
    heading: str
    closed: str | None = None
    judge: str = GEOMETRY_JUDGE
    digits: int = 2


QUANTITIES = (
    Quantity("cosine_peak", r"Cosine with $\hat r$ at the peak layer", "suppression_share_peak"),
    Quantity("cosine", r"Cosine with $\hat r$ at the direction's layer", "suppression_share"),
    Quantity(
        "attribution",
        r"What the top heads write along $\hat r$, summed",
        "attribution_suppression_share",
        digits=1,
    ),
    Quantity("attention_instruction", "Attention of the top heads on the instruction, mean"),
    Quantity("attention_suffix", "Attention of the top heads on the suffix, mean"),
    Quantity("first_token_refused", "Refused by the first token", judge=MODEL_JUDGE),
)


def suffix_table(summary: pd.DataFrame) -> str:
    """Every quantity in the four conditions, adversarial minus random, and the gap closed.

    One block per quantity; in each the mean over models first.
    """
    rows = lookup(summary)
    measured = set(summary.loc[summary.metric == "cosine_peak", "model"])
    models = [MEAN] if pooled_name(summary) == MEAN else []
    models = [name for name in [*models, *models_of(summary)] if name in measured]
    lines = []
    for quantity in QUANTITIES if models else ():
        lines.append([quantity.heading])
        for model in models:
            at = [(dataset, quantity.metric) for dataset in CONDITIONS]
            at.append(("harmful+suffix", f"{quantity.metric}_against_random"))
            cells = [
                cell(rows, model, BASELINE, *key, quantity.judge, digits=quantity.digits)
                for key in at
            ]
            closed = ("harmful+suffix", quantity.closed, quantity.judge)
            cells.append(cell(rows, model, BASELINE, *closed))
            lines.append(["Mean" if model == MEAN else escape_latex(model), *cells])
    header = ["Model", "Harmful", "+ random", "+ adversarial", "Harmless"]
    header += ["Adv. $-$ random", "Gap closed"]
    return tabular("@{}lllllll@{}", header, lines)
