"""How much of a planted subspace U [k, d] an estimator finds, and how much of its effect it has.

Directions are orthonormal rows, as everywhere here. Numbers of one organism; intervals over
prompts, or for chance over random subspaces. Intervals over organisms: `means_over_organisms`.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from refusal.statistics import (
    Estimate,
    Intervals,
    bootstrap_means,
    mean_ignoring_nan,
    student_mean,
)

FloatArray = NDArray[np.float64]

MEAN = "mean"
CHANCE_DRAWS = 1000


# --------------------------------------------------------------------------------------- recovery


def recovery(subspace: ArrayLike, directions: ArrayLike) -> FloatArray:
    """Mean squared cosine of U with the first j directions, for j = 1 to their number.

    The mean over k orthonormal directions of U of the squared length of their projection onto the
    span of the first j directions, which is that of the squared cosines of the principal angles: 1
    if the span holds U, and j / d on average if it is a random one.

    Args:
        subspace: U, orthonormal rows [k, d].
        directions: orthonormal rows [m, d], in the order found.

    Returns:
        float64 [m].
    """
    subspace, directions = (np.asarray(x, dtype=np.float64) for x in (subspace, directions))
    return ((subspace @ directions.T) ** 2).sum(0).cumsum() / len(subspace)


def chance_recovery(width: int, rank: int, directions: int, intervals: Intervals) -> list[Estimate]:
    """Recovery of a random U of `rank` by any first j directions: j / d, and where draws fall.

    By symmetry the directions may be the first axes of the space, and U is drawn.
    """
    rng = np.random.default_rng(intervals.seed)
    frames = np.linalg.qr(rng.standard_normal((CHANCE_DRAWS, width, rank)))[0]
    drawn = (frames[:, :directions] ** 2).sum(-1).cumsum(-1) / rank
    low, high = intervals.percentiles(drawn.T)
    return [Estimate((j + 1) / width, float(low[j]), float(high[j])) for j in range(directions)]


# ------------------------------------------------------------------------- represented and mediated


def split(direction: ArrayLike, subspace: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The part of a vector [d] inside U and the part outside; they add up to it."""
    direction = np.asarray(direction, dtype=np.float64)
    subspace = np.asarray(subspace, dtype=np.float64)
    inside = (direction @ subspace.T) @ subspace
    return inside, direction - inside


def difference_split(
    harmful: ArrayLike, harmless: ArrayLike, subspace: ArrayLike, intervals: Intervals
) -> dict[str, Estimate]:
    """Lengths of the mean difference inside and outside U, and its share inside, over prompts.

    What lies inside mediates refusal; what lies outside represents harmfulness without mediating
    it. Prompts of both classes are resampled. A bootstrap of a length is biased upwards, since
    every resample adds noise in d - k directions outside and k inside: read the value, and the
    interval as the scatter.

    Args:
        harmful, harmless: activations [n, d] and [m, d] at one position and layer.

    Returns:
        length, inside and outside (Euclidean norms) and share (of the squared length, NaN where the
        classes do not differ).
    """
    classes = [np.asarray(x, dtype=np.float64) for x in (harmful, harmless)]
    means = [x.mean(0, keepdims=True) for x in classes]
    drawn = [intervals.counts(len(x)) @ x / len(x) for x in classes]
    value = _lengths(means[0] - means[1], subspace)
    resampled = _lengths(drawn[0] - drawn[1], subspace)
    found = {}
    for name, values in resampled.items():
        low, high = intervals.percentiles(values)
        found[name] = Estimate(float(value[name][0]), float(low), float(high))
    return found


def _lengths(differences: FloatArray, subspace: ArrayLike) -> dict[str, FloatArray]:
    """Norms of rows [n, d], of their parts inside and outside U, and the squared share inside."""
    length = np.linalg.norm(differences, axis=1)
    inside, outside = (np.linalg.norm(x, axis=1) for x in split(differences, subspace))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = inside**2 / length**2
    return {"length": length, "inside": inside, "outside": outside, "share": share}


# ------------------------------------------------------------------------------------- oracle gap


def oracle_gap(
    method: ArrayLike, none: ArrayLike, oracle: ArrayLike, intervals: Intervals
) -> Estimate:
    """Share of the effect of the oracle that a method has: (m - m0) / (m_oracle - m0), means.

    0 is no effect, 1 is that of removing U, and values beyond are possible. One row per prompt,
    NaN where it has no value; all three are resampled together. NaN where the oracle has no effect.

    Args:
        method, none, oracle: an outcome [n] of the same prompts under the method, without
            intervention, and under the removal of U.
    """
    sides = [np.asarray(x, dtype=np.float64) for x in (method, none, oracle)]
    known = np.isfinite(sides).all(0)
    stacked = np.stack([side[known] for side in sides])
    low, high = intervals.percentiles(_gap(bootstrap_means(stacked, intervals)))
    return Estimate(float(_gap(mean_ignoring_nan(stacked))), float(low), float(high))


def _gap(means: FloatArray) -> FloatArray:
    """The gap of means [3, ...] of method, none and oracle."""
    method, none, oracle = means
    possible = oracle - none
    return np.divide(
        method - none, possible, out=np.full_like(possible, np.nan), where=possible != 0
    )


def kept_text(gap: Estimate, perplexity_ratio: float, bound: float) -> tuple[Estimate, str | None]:
    """The gap where text stays predictable, else no value, with the reason.

    A method that breaks text does not refuse either, so that its gap would mean nothing.
    """
    if perplexity_ratio <= bound:
        return gap, None
    reason = f"perplexity is {perplexity_ratio:.2f} of the baseline, above {bound:g}"
    return Estimate(np.nan, np.nan, np.nan), reason


# ---------------------------------------------------------------------------------- over organisms


def means_over_organisms(table: pd.DataFrame, keys: list[str], confidence: float) -> pd.DataFrame:
    """Mean of `value` over accepted organisms with Student's t, one row per key.

    Args:
        table: columns organism, accepted, value, `keys` and others, which are kept where all
            organisms agree and left empty elsewhere. One row per organism and key.

    Returns:
        Columns of `table`, and low, high and n, the number of organisms with a value; organism is
        "mean". Empty if no organism is accepted.
    """
    rows = []
    for _, group in table[table.accepted].groupby(keys, sort=False, dropna=False):
        shared = {name: group[name].iloc[0] for name in group if group[name].nunique() == 1}
        value, low, high = student_mean(group.value, confidence)
        n = int(np.isfinite(group.value.astype(float)).sum())
        found = {"organism": MEAN, "value": value, "low": low, "high": high, "n": n}
        rows.append(shared | found)
    columns = list(dict.fromkeys([*table.columns, "low", "high", "n"]))
    means = pd.DataFrame(rows, columns=columns)
    return means.astype({name: table[name].dtype for name in table.columns})
