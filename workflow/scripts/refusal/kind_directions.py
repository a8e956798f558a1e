"""Directions of the kinds of refusal (Joad et al. 2026, arXiv 2602.02132, section 3).

A kind's direction is the normalised difference in means of its noncompliant prompts and a negative
class. As in the paper, nine of the eleven kinds share one negative class, the contrasts of core
safety; the variant `<kind>+own` takes the kind's own contrasts, since a shared class alone makes
directions alike.

Cosines between kinds and their bootstrap are computed from the Gram matrix of the prompts, so that
their cost does not grow with resamples times width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refusal.errors import InputError
from refusal.kinds import CORE, KINDS
from refusal.statistics import bootstrap_counts

FloatArray = NDArray[np.float64]
Group = tuple[str, str]  # (kind, side)

OWN = "+own"
OWN_CONTRAST_KINDS = (CORE, "OverRefusal-XST")  # those whose data set holds its own benign side
REFUSED_MINUS_COMPLIED = "refused_minus_complied"


@dataclass(frozen=True)
class KindDirections:
    """Unit directions of one model at one (position, layer).

    Attributes:
        position: negative, counted from the end of the prompt.
        layer: the block whose input is read and steered.
        residual_norm: mean norm of the activations of validation contrasts there: the unit of
            strengths, so that models compare.
        vectors: name -> float64 [d] of norm 1, in the order made.
    """

    position: int
    layer: int
    residual_norm: float
    vectors: dict[str, FloatArray]

    def stacked(self, names: Sequence[str]) -> FloatArray:
        """Rows of the named directions, [len(names), d]."""
        return np.stack([self.vectors[name] for name in names])

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds with a direction, in the order of `KINDS`."""
        return tuple(kind for kind in KINDS if kind in self.vectors)


def save_kind_directions(path: Path | str, directions: KindDirections) -> None:
    """Write an npz without pickle; `load_kind_directions` reads it back bit by bit."""
    names = list(directions.vectors)
    np.savez(
        path,
        position=directions.position,
        layer=directions.layer,
        residual_norm=directions.residual_norm,
        names=np.array(names),
        vectors=directions.stacked(names),
    )


def load_kind_directions(path: Path | str) -> KindDirections:
    """Read what `save_kind_directions` wrote.

    Raises:
        InputError: the file is no file of kind directions.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            vectors = dict(zip(file["names"].tolist(), file["vectors"], strict=True))
            place = int(file["position"]), int(file["layer"]), float(file["residual_norm"])
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: no file of kind directions ({error}). Make it again.") from None
    return KindDirections(*place, vectors)


def unit_difference(positive: FloatArray, negative: FloatArray, name: str) -> FloatArray:
    """Normalised difference of the means of [n, d] and [m, d].

    Raises:
        InputError: the means are the same, so there is no direction.
    """
    difference = positive.mean(0, dtype=np.float64) - negative.mean(0, dtype=np.float64)
    norm = float(np.linalg.norm(difference))
    if not norm > 0:
        raise InputError(
            f"kinds: the activations of {name} do not differ from their negative class. "
            "Read another position or layer (kinds.position, kinds.layer)."
        )
    return difference / norm


def negative_class(kind: str, own: bool, groups: Mapping[Group, object]) -> Group:
    """The negative class of a kind: its own contrasts, or those of core safety.

    A kind without contrasts of its own (published data sets) takes those of core safety.
    """
    own_group = (kind, "contrast")
    if own_group in groups and (own or kind in OWN_CONTRAST_KINDS):
        return own_group
    return (CORE, "contrast")


def estimate(groups: Mapping[Group, FloatArray]) -> dict[str, FloatArray]:
    """Directions of every kind, with the shared and with its own negative class.

    Args:
        groups: activations [n, d] by (kind, side).
    """
    vectors = {}
    for own in (False, True):
        for kind in kinds_of(groups):
            negative = groups[negative_class(kind, own, groups)]
            name = kind + OWN * own
            vectors[name] = unit_difference(groups[kind, "noncompliant"], negative, name)
    return vectors


def kinds_of(groups: Mapping[Group, object]) -> tuple[str, ...]:
    """Kinds with noncompliant prompts, in the order of `KINDS`."""
    return tuple(kind for kind in KINDS if (kind, "noncompliant") in groups)


def random_directions(draws: int, width: int, seed: int) -> dict[str, FloatArray]:
    """Isotropic unit vectors `random-0`, `random-1`, ..."""
    drawn = np.random.default_rng(seed).standard_normal((draws, width))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return {f"random-{index}": vector for index, vector in enumerate(drawn)}


def resampled_cosines(
    groups: Mapping[Group, FloatArray], own: bool, resamples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Cosine matrix of the kinds, and of bootstrap resamples of the prompts.

    Every group of prompts is resampled on its own; a negative class that kinds share is resampled
    once for all of them, as it enters all their directions.

    Returns:
        float64 [K, K] and [resamples, K, K], in the order of `kinds_of`.
    """
    names, rows = list(groups), np.concatenate([groups[name] for name in groups]).astype(np.float64)
    gram = rows @ rows.T
    ends = np.cumsum([len(groups[name]) for name in names])
    place = {
        name: slice(end - len(groups[name]), end) for name, end in zip(names, ends, strict=True)
    }
    shares = {
        name: bootstrap_counts(len(groups[name]), resamples, seed + index) / len(groups[name])
        for index, name in enumerate(names)
    }
    plain = {name: np.full((1, len(groups[name])), 1 / len(groups[name])) for name in names}
    return (
        _cosines(groups, own, plain, place, gram)[0],
        _cosines(groups, own, shares, place, gram),
    )


def _cosines(
    groups: Mapping[Group, FloatArray],
    own: bool,
    shares: Mapping[Group, FloatArray],
    place: Mapping[Group, slice],
    gram: FloatArray,
) -> FloatArray:
    """Cosines [resamples, K, K] of mean differences whose prompts weigh `shares`."""
    resamples = len(next(iter(shares.values())))
    weights = np.zeros((len(kinds_of(groups)), resamples, len(gram)))
    for row, kind in enumerate(kinds_of(groups)):
        negative = negative_class(kind, own, groups)
        weights[row, :, place[kind, "noncompliant"]] += shares[kind, "noncompliant"]
        weights[row, :, place[negative]] -= shares[negative]
    products = (weights @ gram).transpose(1, 0, 2) @ weights.transpose(1, 2, 0)
    norms = np.sqrt(np.einsum("raa->ra", products))
    return products / (norms[:, :, None] * norms[:, None, :])
