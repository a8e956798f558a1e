"""What every intervention does to a planted organism: one long table, intervals over prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from refusal.planted_measures import FloatArray, kept_text, oracle_gap
from refusal.statistics import (
    BASELINE,
    Estimate,
    Intervals,
    bootstrap_means,
    mean_ignoring_nan,
    perplexity_ratio,
    wilson_interval,
)

RECIPE = ["direction", "operator", "scope", "k", "rank", "alpha", "strength", "origin", "side"]
RECIPE += ["draw", "position", "layer"]
ESTIMATE = ["dataset", "metric", "value", "low", "high", "n", "reason"]
COLUMNS = ["intervention", *RECIPE, *ESTIMATE]
# An outcome, and the share of the oracle's effect on it for harmful prompts.
GAPS = {"complied": "oracle_gap", "refused": "refusal_gap"}


@dataclass(frozen=True)
class Outcomes:
    """Per intervention and prompt or text.

    Attributes:
        responses: intervention, id, label, refused, complied (0, 1 or NaN).
        divergences: intervention, id, label, kl: of the next token from the helpful-only model.
        losses: intervention, id, nll, tokens of plain texts.
    """

    responses: pd.DataFrame
    divergences: pd.DataFrame
    losses: pd.DataFrame

    @cached_property
    def _parts(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Responses with divergences by intervention and label, in the order of the prompts."""
        keys = ["intervention", "label", "id"]
        joined = self.responses.merge(self.divergences, on=keys, validate="one_to_one")
        return dict(list(joined.sort_values("id").groupby(["intervention", "label"])))

    def values(self, name: str, metric: str, label: str) -> FloatArray:
        """A metric under one intervention, in the order of the prompts."""
        return self._parts[name, label][metric].to_numpy(np.float64)

    def ratio(self, name: str, intervals: Intervals) -> Estimate:
        """Perplexity of plain texts over that without intervention."""
        sides = []
        for side in (name, BASELINE):
            chosen = self.losses[self.losses.intervention == side].sort_values("id")
            sides += [chosen.nll, chosen.tokens]
        return perplexity_ratio(*sides, intervals)


def outcome_table(
    outcomes: Outcomes,
    recipes: Mapping[str, Mapping[str, Any]],
    oracle: str,
    perplexity_max: float,
    intervals: Intervals,
) -> pd.DataFrame:
    """One row per intervention, data set and metric.

    Metrics: refused and complied (Wilson's interval) and kl_helpful_only (bootstrap) of harmful
    and harmless prompts; perplexity_ratio of plain texts; of harmful prompts oracle_gap and
    refusal_gap (`oracle_gap` of the two rates), and oracle_gap_kept, which has no value where the
    perplexity ratio is above `perplexity_max`, with the reason.

    Args:
        recipes: of every intervention, as in `Intervention.recipe`; must hold none and `oracle`.
        oracle: name of the intervention that removes U.
    """
    rows = []
    for name, recipe in recipes.items():
        ratio = outcomes.ratio(name, intervals)
        found = [
            *_rates(outcomes, name, intervals),
            *_divergences(outcomes, name, intervals),
            *_gaps(outcomes, name, oracle, ratio.value, perplexity_max, intervals),
            ("text", "perplexity_ratio", ratio, outcomes.losses.id.nunique(), None),
        ]
        about = {"intervention": name} | {part: recipe.get(part) for part in RECIPE}
        for dataset, metric, estimate, n, reason in found:
            row = {"dataset": dataset, "metric": metric, "n": n, "reason": reason}
            rows.append(about | estimate._asdict() | row)
    return _typed(pd.DataFrame(rows, columns=COLUMNS))


def _rates(outcomes: Outcomes, name: str, intervals: Intervals):
    for label in ("harmful", "harmless"):
        for metric in GAPS:
            values = outcomes.values(name, metric, label)
            n = int(np.isfinite(values).sum())
            low, high = wilson_interval(np.nansum(values), n, intervals.confidence)
            yield label, metric, Estimate(mean_ignoring_nan(values), low, high), n, None


def _divergences(outcomes: Outcomes, name: str, intervals: Intervals):
    for label in ("harmful", "harmless"):
        values = outcomes.values(name, "kl", label)
        bounds = intervals.percentiles(bootstrap_means(values, intervals))
        estimate = Estimate(mean_ignoring_nan(values), *bounds)
        yield label, "kl_helpful_only", estimate, len(values), None


def _gaps(
    outcomes: Outcomes,
    name: str,
    oracle: str,
    ratio: float,
    perplexity_max: float,
    intervals: Intervals,
):
    for metric, gap in GAPS.items():
        sides = [outcomes.values(side, metric, "harmful") for side in (name, BASELINE, oracle)]
        estimate = oracle_gap(*sides, intervals)
        yield "harmful", gap, estimate, len(sides[0]), None
        if metric == "complied":
            kept, reason = kept_text(estimate, ratio, perplexity_max)
            yield "harmful", f"{gap}_kept", kept, len(sides[0]), reason


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """One type per column: k is text (a number or "full")."""
    for column in ("rank", "alpha", "strength", "value", "low", "high"):
        table[column] = table[column].astype(np.float64)
    for column in ("draw", "position", "layer"):
        table[column] = table[column].astype("Int64")
    for column in ("direction", "operator", "scope", "k", "origin", "side", "reason"):
        texts = [None if pd.isna(value) else str(value) for value in table[column]]
        table[column] = pd.Series(texts, index=table.index, dtype=object)
    return table
