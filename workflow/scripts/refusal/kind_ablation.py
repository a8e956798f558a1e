"""Refusal of every kind after ablating the direction of every kind (Joad et al. 2026, Table 2).

The map has a row per ablated direction or intervention and a column per kind of prompt.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from refusal.kinds import HARMFUL_KINDS
from refusal.statistics import Estimate, Intervals, wilson_interval

METRICS = ("refused", "complied", "right_style")
UNSTEERED = "none"


def ablation_map(scores: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Rates of every cell of the map with Wilson intervals.

    Args:
        scores: one row per completion: ablated, kind, and the columns of `METRICS` (0, 1 or NaN).

    Returns:
        ablated, kind, metric, value, low, high, n.
    """
    frames = []
    for metric in METRICS:
        cells = scores.groupby(["ablated", "kind"], sort=False)[metric].agg(["sum", "count"])
        low, high = wilson_interval(cells["sum"], cells["count"], confidence)
        with np.errstate(invalid="ignore"):
            value = cells["sum"] / cells["count"]
        cells = cells.assign(metric=metric, value=value, low=low, high=high)
        frames.append(cells.rename(columns={"count": "n"}).drop(columns="sum").reset_index())
    columns = ["ablated", "kind", "metric", "value", "low", "high", "n"]
    return pd.concat(frames, ignore_index=True)[columns]


def refusal_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Whether each prompt was refused (rows: prompt id and its kind) under each ablation."""
    return scores.pivot(index=["id", "kind"], columns="ablated", values="refused")


def ablation_scalars(
    scores: pd.DataFrame, kinds: Sequence[str], intervals: Intervals
) -> dict[str, tuple[Estimate, int]]:
    """Summaries of the map by metric, bootstrap over prompts within each kind.

    kind_ablation_own: refusal of a kind after ablating its own direction, mean over kinds.
    kind_ablation_other: the same after ablating the direction of another kind.
    kind_ablation_specific: own minus other; negative if a direction serves its own kind more.
    harmful_ablation_safety, harmful_ablation_other: refusal of the harmful kinds after ablating the
        direction of a harmful kind, or of another kind (claim C3).
    harmful_ablation_difference: the second minus the first.
    """
    table, names = refusal_table(scores), [k for k in kinds if k in set(scores.kind)]
    harmful = [kind for kind in names if kind in HARMFUL_KINDS]
    others = [kind for kind in names if kind not in HARMFUL_KINDS]
    # [1 + resamples, prompts' kind, ablated kind]: the estimate first, then its resamples.
    means = np.stack(
        [_kind_means(table, kind, names, i, intervals) for i, kind in enumerate(names)]
    )
    means = means.transpose(1, 0, 2)
    same = np.eye(len(names), dtype=bool)
    own, other = means[:, same].mean(1), means[:, ~same].mean(1)
    summaries = {
        "kind_ablation_own": own,
        "kind_ablation_other": other,
        "kind_ablation_specific": own - other,
    }
    if harmful and others:
        rows = np.isin(names, harmful)
        by_safety = means[:, rows][:, :, rows].mean((1, 2))
        by_other = means[:, rows][:, :, ~rows].mean((1, 2))
        summaries["harmful_ablation_safety"] = by_safety
        summaries["harmful_ablation_other"] = by_other
        summaries["harmful_ablation_difference"] = by_other - by_safety
    result = {}
    for metric, values in summaries.items():
        low, high = intervals.percentiles(values[1:])
        result[metric] = (Estimate(float(values[0]), float(low), float(high)), len(table))
    return result


def _kind_means(
    table: pd.DataFrame, kind: str, names: Sequence[str], index: int, intervals: Intervals
) -> np.ndarray:
    """Refusal of the prompts of one kind under each ablation, and of resamples: [1 + R, names].

    Every kind has a seed of its own, as its prompts are others.
    """
    values = table.xs(kind, level="kind")[list(names)].to_numpy(np.float64)
    own = Intervals(intervals.confidence, intervals.resamples, intervals.seed + index)
    return np.concatenate([values.mean(0)[None], own.counts(len(values)) @ values / len(values)])
