"""Harmful prompts that a model refuses: those on which a suffix or a patch can show anything."""

import pandas as pd

from refusal.directions import filter_by_refusal_metric
from refusal.errors import InputError


def refused_prompts(
    prompts: pd.DataFrame, index: pd.DataFrame, split: str, *, model: str, enabled: bool
) -> pd.DataFrame:
    """Return the harmful prompts of a split that the model refuses, in their order.

    Refused means a refusal metric above 0 in the activation index, as for the directions. The
    column `number` counts all harmful prompts of the split from 0, refused or not.

    Raises:
        InputError: the model refuses none of them, or all harmless prompts.
    """
    try:
        rows, _ = filter_by_refusal_metric(index, split, model=model, enabled=enabled)
    except InputError as mistake:
        remedy = "Or set experiments.suffix: false and experiments.heads: false."
        raise InputError(f"{mistake} {remedy}") from None
    ids = index.set_index("row").loc[rows, "id"]
    harmful = prompts[(prompts.label == "harmful") & (prompts.split == split)]
    return harmful.assign(number=range(len(harmful))).loc[lambda table: table.id.isin(ids)]
