"""How a steered model refuses, against whether it does (Joad et al. 2026, section 4 and Table 6).

The paper shows by examples that the direction of a kind decides how a model refuses, not whether.
Here both are measured as information: of the responses to prompts that the unsteered model answers,
each steered along the direction of every kind, how many bits tell the direction

    whether:  I(direction; refused)          as a share of H(refused),
    how:      I(direction; style | refused)  as a share of H(style | refused).

Counts of a finite sample hold some information by chance alone. What permuting the directions
within every prompt leaves on average is subtracted; the permutations also give a p-value.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from refusal.kinds import KINDS
from refusal.statistics import Estimate, Intervals, mean_ignoring_nan, wilson_interval

FloatArray = NDArray[np.float64]

PERMUTATIONS = 500
NOT_REFUSED = -1
NO_ENTROPY = 1e-9  # bits; what rounding leaves of none


@dataclass(frozen=True)
class Styles:
    """Style of every response: codes int [P, D], an index into `styles` or `NOT_REFUSED`.

    Rows are prompts, columns directions.
    """

    directions: tuple[str, ...]
    styles: tuple[str, ...]
    codes: NDArray[np.int64]

    def counts(self) -> FloatArray:
        """One-hot outcomes [P, D, S + 1]; the last column is "not refused"."""
        return np.eye(len(self.styles) + 1)[self.codes]  # -1 picks the last row


def styles_of(responses: pd.DataFrame, directions: Sequence[str]) -> Styles:
    """Responses (id, direction, refused, said) as a table of prompts by directions.

    Prompts that lack a response under some direction are left out.
    """
    code = {style: index for index, style in enumerate(KINDS)}
    values = [
        code[said] if refused else NOT_REFUSED
        for said, refused in zip(responses.said, responses.refused == 1, strict=True)
    ]
    table = responses.assign(code=values).pivot(index="id", columns="direction", values="code")
    table = table.reindex(columns=list(directions)).dropna().astype(np.int64)
    return Styles(tuple(directions), KINDS, table.to_numpy())


def distribution_frame(responses: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Share of the responses under each direction that refuse in each style, Wilson intervals.

    Returns:
        direction, style (a kind, or "answered"), value, low, high, n.
    """
    said = responses.said.where(responses.refused == 1, "answered")
    counts = pd.crosstab(responses.direction, said).reindex(columns=[*KINDS, "answered"])
    counts = counts.reindex(pd.unique(responses.direction)).fillna(0)
    n = counts.sum(axis=1)
    table = counts.stack().rename("count").rename_axis(["direction", "style"]).reset_index()
    table["n"] = table.direction.map(n).astype(int)
    low, high = wilson_interval(table["count"], table.n, confidence)
    return table.assign(value=table["count"] / table.n, low=low, high=high).drop(columns="count")


def information(joint: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mutual information in bits of counts [..., A, B], and the entropy of B.

    NaN where there are no counts.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p = joint / joint.sum((-2, -1), keepdims=True)
        a, b = p.sum(-1, keepdims=True), p.sum(-2, keepdims=True)
        terms = np.where(p > 0, p * np.log2(p / (a * b)), 0.0).sum((-2, -1))
        entropy = -np.where(b > 0, b * np.log2(b), 0.0).sum((-2, -1))
    empty = joint.sum((-2, -1)) == 0
    return np.where(empty, np.nan, terms), np.where(empty, np.nan, entropy)


def whether_and_how(counts: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Information on whether and on how, with both entropies, from counts [..., D, S + 1]."""
    refused = counts[..., :-1]
    whether = np.stack([refused.sum(-1), counts[..., -1]], axis=-1)
    return (*information(whether), *information(refused))


def permuted(styles: Styles, permutations: int, seed: int) -> FloatArray:
    """Counts [permutations, D, S + 1] with directions permuted within each prompt."""
    generator = np.random.default_rng(seed)
    one_hot, found = styles.counts(), []
    for _ in range(permutations):
        shuffled = generator.permuted(
            np.tile(np.arange(len(styles.directions)), (len(one_hot), 1)), axis=1
        )
        found.append(np.take_along_axis(one_hot, shuffled[:, :, None], axis=1).sum(0))
    return np.stack(found)


def style_scalars(styles: Styles, intervals: Intervals) -> dict[str, tuple[Estimate, int]]:
    """Numbers on how and whether, bootstrap over prompts with all directions of a prompt.

    style_information, refusal_information: bits, chance subtracted. style_share, refusal_share: the
        same as a share of the entropy of style, or of refusal.
    style_minus_refusal_share: their difference (claim C4).
    style_information_p: share of permutations with as much information on style.
    own_style: share of the refusals under a kind's direction that are in its own style, mean over
        directions; own_style_gain: minus the share of that style under the other directions.
    steered_refused: share of all steered responses that refuse.
    """
    one_hot = styles.counts()
    plain = one_hot.sum(0)[None]
    resampled = np.einsum("rp,pds->rds", intervals.counts(len(one_hot)), one_hot, optimize=True)
    counts = np.concatenate([plain, resampled])
    chance = whether_and_how(permuted(styles, PERMUTATIONS, intervals.seed))
    whether, whether_entropy, how, how_entropy = whether_and_how(counts)
    style, style_share = _beyond_chance(how, how_entropy, chance[2])
    refusal, refusal_share = _beyond_chance(whether, whether_entropy, chance[0])
    own, gain = own_style(counts, [styles.styles.index(name) for name in styles.directions])
    found = {
        "style_information": style,
        "refusal_information": refusal,
        "style_share": style_share,
        "refusal_share": refusal_share,
        "style_minus_refusal_share": style_share - refusal_share,
        "own_style": own,
        "own_style_gain": gain,
        "steered_refused": counts[..., :-1].sum((1, 2)) / counts.sum((1, 2)),
    }
    n = len(one_hot)
    result = {name: (_estimate(values, intervals), n) for name, values in found.items()}
    p = (1 + (chance[2] >= how[0]).sum()) / (1 + PERMUTATIONS) if np.isfinite(how[0]) else np.nan
    result["style_information_p"] = (Estimate(float(p), np.nan, np.nan), PERMUTATIONS)
    return result


def _beyond_chance(
    bits: FloatArray, entropy: FloatArray, chance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Bits, and their share of the entropy, minus what permutations hold on average.

    The first value belongs to the sample itself, whose entropy permutations share. Without entropy
    there is no share: NaN.
    """
    expected = mean_ignoring_nan(chance)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = bits / entropy - expected / entropy[0]
    return bits - expected, np.where(entropy > NO_ENTROPY, share, np.nan)


def own_style(counts: FloatArray, own: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """Share of refusals in the own style, and its gain over other directions: [...] each.

    Args:
        counts: [..., D, S + 1]. Directions that refuse nothing are left out of the means.
        own: column of every direction's own style, [D].
    """
    refused = counts[..., :-1]
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no refusal anywhere: NaN
        shares = (refused / refused.sum(-1, keepdims=True))[..., list(own)]
        rows = np.arange(len(own))
        mine = shares[..., rows, rows]
        others = np.where(np.eye(len(own), dtype=bool), np.nan, shares)
        others = np.where(np.isfinite(mine), np.nanmean(others, axis=-2), np.nan)
        value = np.nanmean(mine, axis=-1)
        return value, value - np.nanmean(others, axis=-1)


def _estimate(values: FloatArray, intervals: Intervals) -> Estimate:
    """The first value, with percentiles of the others."""
    low, high = intervals.percentiles(values[1:])
    return Estimate(float(values[0]), float(low), float(high))
