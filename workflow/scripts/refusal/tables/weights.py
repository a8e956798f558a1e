"""Edited weights against hooks."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from refusal.latex import MISSING, escape_latex, number, scientific, tabular
from refusal.reading import label, recipes
from refusal.statistics import MODEL_JUDGE
from refusal.tables.layout import Key, cell, lookup


def weights_table(cards: Sequence[Mapping], summary: pd.DataFrame, prompts: pd.DataFrame) -> str:
    """How far logits under edited weights are from those under hooks, per model and intervention.

    Differences and the change are the largest over the harmful and harmless test prompts and the
    vocabulary.

    Args:
        cards: of all models.
        summary: for the shares of equal next tokens, with intervals.
        prompts: frame `weights_prompts`, one row per model, intervention, hooks and prompt.
    """
    rows, names, lines = lookup(summary), recipes(summary), []
    for card in cards:
        of_model = prompts[prompts.model == card["name"]]
        if of_model.empty:
            continue
        post_norms = "yes" if of_model.post_norms.iloc[0] else "no"
        start = [escape_latex(card[key]) for key in ("name", "architecture", "dtype")]
        start.append(post_norms)
        for name, part in of_model.groupby("intervention", sort=False):
            # A NaN is no agreement, so it must not be skipped.
            by_hooks = part.groupby("hooks")[["difference", "change"]].agg(
                lambda values: values.max(skipna=False)
            )
            differences = (by_hooks.difference.get(scope) for scope in ("all", "writes"))
            lines.append(
                [
                    *start,
                    escape_latex(label(names.loc[name], scope=False)),
                    *(scientific(value) for value in differences),
                    number(by_hooks.change.max(skipna=False)),
                    *(_same_token(rows, card["name"], name, d) for d in ("harmful", "harmless")),
                ]
            )
            start = [""] * len(start)
    header = ["Model", "Type", "Weights", "Post-norms", "Intervention", r"From \texttt{all}"]
    header += [r"From \texttt{writes}", "Change", "Same token, harmful", "harmless"]
    return tabular("lllllrrrll", header, lines)


def _same_token(rows: Mapping[Key, Any], model: str, intervention: str, dataset: str) -> str:
    """Share of equal next tokens, under whichever of its names it was measured."""
    metrics = ("same_next_token", "same_next_token_post_norm", "same_next_token_rounded")
    keys = ((model, intervention, dataset, metric, MODEL_JUDGE) for metric in metrics)
    cells = (cell(rows, *key) for key in keys)
    return next((text for text in cells if text != MISSING), MISSING)
