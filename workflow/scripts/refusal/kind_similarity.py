"""How alike the directions of the kinds of refusal are: cosines, stability within a kind, span.

Joad et al. 2026 (arXiv 2602.02132), Tables 1 and 8, with bootstrap intervals over prompts and a
control for the negative class that nine of the eleven kinds share.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from refusal.kind_directions import (
    Group,
    KindDirections,
    kinds_of,
    negative_class,
    resampled_cosines,
    unit_difference,
)
from refusal.statistics import Estimate, Intervals

FloatArray = NDArray[np.float64]

FAMILIES = ("CCN", "SB")  # data sets that several kinds come from, the suffix of the kind's name
VARIANTS = {"shared": False, "own": True}  # the negative class


def cosine_frame(groups: Mapping[Group, FloatArray], intervals: Intervals) -> pd.DataFrame:
    """Cosines of all pairs (variant, a, b, value, low, high), with either negative class.

    Args:
        groups: activations [n, d] by (kind, side).
    """
    names, frames = kinds_of(groups), []
    for variant, own in VARIANTS.items():
        value, resampled = _cosines(groups, own, intervals)
        low, high = intervals.percentiles(np.moveaxis(resampled, 0, -1))
        pairs = [(row, column) for row in range(len(names)) for column in range(len(names))]
        frames.append(
            pd.DataFrame(
                [
                    (variant, names[a], names[b], value[a, b], low[a, b], high[a, b])
                    for a, b in pairs
                ],
                columns=["variant", "a", "b", "value", "low", "high"],
            )
        )
    return pd.concat(frames, ignore_index=True)


def _cosines(groups, own: bool, intervals: Intervals) -> tuple[FloatArray, FloatArray]:
    return resampled_cosines(groups, own, intervals.resamples, intervals.seed)


def cosine_scalars(
    groups: Mapping[Group, FloatArray], intervals: Intervals
) -> dict[str, tuple[Estimate, int]]:
    """Summaries of the off-diagonal cosines by metric, each with the number of pairs.

    kind_cosine_mean, _lowest, _highest: over all pairs. kind_cosine_own_mean: with own negative
    classes; kind_cosine_shared_pool: by how much the shared negative class raises the mean.
    kind_cosine_within_source, _between_sources: pairs of one data set against all others.
    """
    names = kinds_of(groups)
    pairs = list(combinations(range(len(names)), 2))
    rows, columns = (np.array(side) for side in zip(*pairs, strict=True))
    within = np.array([_same_source(names[a], names[b]) for a, b in pairs])
    upper = {}
    for variant, own in VARIANTS.items():
        value, resampled = _cosines(groups, own, intervals)
        # The estimate is row 0, resamples follow: every summary treats both alike.
        upper[variant] = np.concatenate([value[None], resampled])[:, rows, columns]
    shared, own_pool = upper["shared"], upper["own"]
    summaries = {
        "kind_cosine_mean": shared.mean(1),
        "kind_cosine_lowest": shared.min(1),
        "kind_cosine_highest": shared.max(1),
        "kind_cosine_own_mean": own_pool.mean(1),
        "kind_cosine_shared_pool": shared.mean(1) - own_pool.mean(1),
    }
    if within.any() and not within.all():
        summaries["kind_cosine_within_source"] = shared[:, within].mean(1)
        summaries["kind_cosine_between_sources"] = shared[:, ~within].mean(1)
    return {name: (_estimate(values, intervals), len(pairs)) for name, values in summaries.items()}


def _same_source(a: str, b: str) -> bool:
    source = a.rpartition("-")[2]
    return source in FAMILIES and b.endswith(f"-{source}")


def _estimate(values: FloatArray, intervals: Intervals) -> Estimate:
    """The first value, with percentiles of the others."""
    low, high = intervals.percentiles(values[1:])
    return Estimate(float(values[0]), float(low), float(high))


def stability_frame(
    pools: Mapping[Group, FloatArray], size: int, draws: int, seed: int
) -> pd.DataFrame:
    """Cosine between directions of one kind from disjoint draws of prompts (Joad et al., Table 8).

    Each draw splits the kind's prompts, and those of its negative class, into two halves of at most
    `size` prompts that share none.

    Returns:
        kind, value (mean over draws), low and high (least and greatest draw), n (prompts per half),
        draws.
    """
    generator, rows = np.random.default_rng(seed), []
    for kind in kinds_of(pools):
        positive, negative = pools[kind, "noncompliant"], pools[negative_class(kind, False, pools)]
        half = min(size, len(positive) // 2, len(negative) // 2)
        if half < 2:
            continue
        cosines = [_half_cosine(positive, negative, half, generator, kind) for _ in range(draws)]
        rows.append((kind, np.mean(cosines), min(cosines), max(cosines), half, draws))
    return pd.DataFrame(rows, columns=["kind", "value", "low", "high", "n", "draws"])


def _half_cosine(
    positive: FloatArray, negative: FloatArray, half: int, generator, kind: str
) -> float:
    first, second = (generator.permutation(len(rows)) for rows in (positive, negative))
    one, two = (
        unit_difference(positive[first[part]], negative[second[part]], kind)
        for part in (slice(0, half), slice(half, 2 * half))
    )
    return float(one @ two)


def span_frame(directions: KindDirections, subspaces: Mapping[str, FloatArray]) -> pd.DataFrame:
    """How much of other subspaces the span of the kinds explains.

    For the first k rows b_1..b_k of an orthonormal basis [K, d] and the orthonormal basis Q of the
    span of the kinds: explained = mean over i <= k of ||Q b_i||^2, the mean squared cosine of the
    principal angles where k is at most the rank of the span. A random basis gives rank(Q) / d on
    average (column chance).

    Returns:
        subspace, k, explained, chance, largest_angle (degrees, of the first k rows).
    """
    basis = orthonormal(directions.stacked(directions.kinds))
    rows = []
    for name, other in subspaces.items():
        shares = ((other @ basis.T) ** 2).sum(1)
        for k in range(1, len(other) + 1):
            singular = np.linalg.svd(other[:k] @ basis.T, compute_uv=False)
            angle = np.degrees(np.arccos(np.clip(singular.min(), 0, 1)))
            explained = shares[:k].mean()
            rows.append((name, k, explained, len(basis) / basis.shape[1], angle))
    return pd.DataFrame(rows, columns=["subspace", "k", "explained", "chance", "largest_angle"])


def orthonormal(rows: FloatArray, tolerance: float = 1e-8) -> FloatArray:
    """Orthonormal basis [r, d] of the row space, r the numerical rank."""
    _, singular, right = np.linalg.svd(rows, full_matrices=False)
    return right[singular > tolerance * singular[0]]


def effective_rank(vectors: FloatArray) -> tuple[float, int]:
    """Participation ratio of the singular values' squares, and how many hold 95 % of their sum.

    For K unit vectors the ratio is 1 if all agree and K if all are orthogonal.
    """
    energy = np.linalg.svd(vectors, compute_uv=False) ** 2
    ratio = float(energy.sum() ** 2 / (energy**2).sum())
    return ratio, int(np.searchsorted(np.cumsum(energy) / energy.sum(), 0.95) + 1)


def stability_scalars(
    stability: pd.DataFrame, cosines: pd.DataFrame
) -> dict[str, tuple[Estimate, int]]:
    """The least stable kind against the most alike pair of kinds (claim C1).

    kind_stability_mean, _lowest: cosine between draws of one kind, mean over kinds and least kind.
    kind_distinct_share: share of pairs of kinds whose cosine lies below the stability of both.
    """
    if stability.empty:
        return {}
    within = stability.set_index("kind").value
    pairs = cosines[(cosines.variant == "shared") & (cosines.a < cosines.b)]
    pairs = pairs[pairs.a.isin(within.index) & pairs.b.isin(within.index)]
    bound = np.minimum(within[pairs.a].to_numpy(), within[pairs.b].to_numpy())
    values = {
        "kind_stability_mean": within.mean(),
        "kind_stability_lowest": within.min(),
        "kind_distinct_share": (pairs.value.to_numpy() < bound).mean(),
    }
    sizes = {"kind_distinct_share": len(pairs)}
    return {
        name: (Estimate(float(value), np.nan, np.nan), sizes.get(name, len(within)))
        for name, value in values.items()
    }


def span_scalars(
    directions: KindDirections, span: pd.DataFrame, dim: FloatArray
) -> dict[str, tuple[Estimate, int]]:
    """Rank of the kinds' directions, and what of difference in means and INLP they explain.

    kind_effective_rank: participation ratio; kind_rank_95: directions that hold 95 % of the squared
    norm; kind_dim_cosine_mean, _highest: cosine with difference in means; kind_explains_dim,
    kind_explains_inlp: share of it in the span of the kinds; kind_explains_chance: of a random one.
    """
    vectors = directions.stacked(directions.kinds)
    ratio, number = effective_rank(vectors)
    with_dim = vectors @ dim
    last = span.groupby("subspace").last()
    values = {
        "kind_effective_rank": ratio,
        "kind_rank_95": number,
        "kind_dim_cosine_mean": with_dim.mean(),
        "kind_dim_cosine_highest": with_dim.max(),
        "kind_explains_chance": span.chance.iloc[0],
    }
    for metric, subspace in (("dim", "dim"), ("inlp", "inlp_corrected")):
        if subspace in last.index:
            values[f"kind_explains_{metric}"] = last.explained[subspace]
    n = len(vectors)
    return {name: (Estimate(float(value), np.nan, np.nan), n) for name, value in values.items()}
