"""Directions of refusal: difference in means, LEACE, random controls, and their file.

INLP has a module of its own (`refusal.inlp`). Every method gives a `Direction`: an ordered
orthonormal basis, so that its first k rows are "the first k directions" whatever the method.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from concept_erasure import LeaceFitter
from torch import Tensor

from refusal.errors import InputError

Candidate = tuple[int, int]
"""(position, layer): position counts from the end of the prompt, so it is negative."""

# A mean difference shorter than this share of the means themselves is rounding: at layer 0
# every post-instruction position holds the same token for all prompts.
_ZERO_SHARE = 1e-6
_KEY = re.compile(r"position(-\d+)_layer(\d+)_(\w+)")


@dataclass(frozen=True)
class Direction:
    """An ordered set of directions at one (position, layer).

    Attributes:
        basis: float32 [k, d], orthonormal rows in the order found; [0, d] where the classes do
            not differ, and such a direction is skipped by every later stage.
        norm: length of the raw mean difference (difference in means), else NaN.
        accuracies: float64 [k], dev accuracy of the classifier of each step (INLP), else NaN.
        write: float32 [k, d] or None. With it the operator is oblique (LEACE):
            h - ((h - origin) basis^T) write.
        origin: float32 [d] or None, the point that the oblique operator leaves in place.
    """

    basis: Tensor
    norm: float = math.nan
    accuracies: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    write: Tensor | None = None
    origin: Tensor | None = None

    def __post_init__(self) -> None:
        if self.accuracies.numel() == 0 and self.rank > 0:
            unknown = torch.full((self.rank,), math.nan, dtype=torch.float64)
            object.__setattr__(self, "accuracies", unknown)

    @property
    def rank(self) -> int:
        """Number of directions, k."""
        return self.basis.shape[0]


def empty_direction(width: int, norm: float = math.nan) -> Direction:
    """The direction of rank 0: the classes do not differ at this candidate."""
    return Direction(basis=torch.empty(0, width), norm=norm)


def require_finite(values: Tensor, name: str) -> None:
    """Raises InputError if `values` holds a NaN or an infinity."""
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            f"{name}: NaN or infinite values. Run the model in float32 or bfloat16 "
            "(models.<name>.dtype) or with eager attention, and extract the activations again."
        )


def filter_by_refusal_metric(
    index: pd.DataFrame, split: str, *, model: str, enabled: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the harmful and the harmless prompts of a split that the model treats as such.

    Kept are harmful prompts with refusal metric > 0 and harmless ones with metric < 0 (Arditi et
    al. 2024, section 2.3; Rocchetti & Ferrara 2026 use the same filter).

    Args:
        index: activation index with columns row, label, split, refusal_metric.
        split: the split to filter, "train" or "validation".
        model: name of the model, for the error.
        enabled: False keeps every prompt of the two classes.

    Returns:
        Rows of the harmful class and rows of the harmless class, int64 [m_harmful], [m_harmless].

    Raises:
        InputError: a class is empty.
    """
    kept = {}
    for label, sign in (("harmful", 1.0), ("harmless", -1.0)):
        members = index[(index["label"] == label) & (index["split"] == split)]
        if members.empty:
            raise InputError(
                f"prompts: no {label} prompt in split {split}. Add some: both classes are needed."
            )
        chosen = members[sign * members["refusal_metric"] > 0] if enabled else members
        kept[label] = chosen["row"].to_numpy(np.int64, copy=True)
        if kept[label].size == 0:
            verb = "refuses none" if label == "harmful" else "refuses all"
            raise InputError(
                f"model {model}: it {verb} of the {len(members)} {label} {split} prompts, so "
                f"filtering by the refusal metric leaves class {label} empty. Check the model's "
                "refusal tokens and chat template, or set `directions.filter: false`."
            )
    return kept["harmful"], kept["harmless"]


def class_means(activations: Tensor, rows: np.ndarray) -> Tensor:
    """Mean activation of the given rows, accumulated in float64.

    One row is added at a time, so that the float64 copy is never larger than one prompt's.

    Args:
        activations: float32 [n, positions, layers, width] (any trailing shape).
        rows: rows of one class.

    Returns:
        float64, the trailing shape of `activations`.

    Raises:
        InputError: a row holds NaN.
    """
    total = torch.zeros(activations.shape[1:], dtype=torch.float64)
    for row in rows.tolist():
        total += activations[row]
    mean = total / len(rows)
    require_finite(mean, "activations")
    return mean


def difference_in_means(harmful_mean: Tensor, harmless_mean: Tensor) -> Direction:
    """r = mean_harmful - mean_harmless at one candidate (Arditi et al. 2024, section 2.3).

    Args:
        harmful_mean: float64 [d].
        harmless_mean: float64 [d].

    Returns:
        The unit vector as a basis of one row with norm ||r||; rank 0 and norm 0 where the means
        coincide, as they do at layer 0 (all prompts end in the same tokens).
    """
    difference = harmful_mean.double() - harmless_mean.double()
    norm = float(difference.norm())
    if norm <= _ZERO_SHARE * float(harmless_mean.double().norm()):
        return empty_direction(difference.numel(), norm=0.0)
    return Direction(basis=(difference / norm).float().unsqueeze(0), norm=norm)


def leace(harmful: Tensor, harmless: Tensor) -> Direction:
    """Least-squares concept erasure of the class (Belrose et al. 2023), fitted in float64.

    Args:
        harmful: [m, d] activations.
        harmless: [m', d] activations.

    Returns:
        basis (what is read), write and origin with
        h - ((h - origin) basis^T) write equal to the package's eraser; rank 0 where the classes
        do not differ.

    Raises:
        InputError: NaN activations.
    """
    samples = torch.cat([harmful, harmless]).double()
    require_finite(samples, "activations")
    width = samples.shape[1]
    if is_constant(samples):
        return empty_direction(width)
    labels = torch.cat([torch.ones(len(harmful)), torch.zeros(len(harmless))]).double()
    eraser = LeaceFitter.fit(samples, labels).eraser
    read, write = orthonormal_read(eraser.proj_left, eraser.proj_right)
    if len(read) == 0:
        return empty_direction(width)
    return Direction(basis=read.float(), write=write.float(), origin=eraser.bias.float())


def orthonormal_read(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Factors with orthonormal read rows: x -> (x read^T) write is x -> (left @ right) x.

    Args:
        left: [d, r]; the eraser has r = 1, or r = d with nearly all columns zero where it blends
            in an orthogonal projection so as not to raise the variance.
        right: [r, d].

    Returns:
        read [k, d] with orthonormal rows and write [k, d], k the number of non-zero terms.
    """
    size = left.norm(dim=0) * right.norm(dim=1)
    used = size > 1e-10 * size.max()
    frame, factor = torch.linalg.qr(right[used].T)
    return frame.T.contiguous(), factor @ left[:, used].T


def is_constant(samples: Tensor) -> bool:
    """Whether all rows of `samples` [n, d] are one point, up to rounding."""
    highest, lowest = samples.amax(0), samples.amin(0)  # no copy of the samples
    largest = torch.maximum(highest.abs(), lowest.abs()).max()
    return float((highest - lowest).max()) <= _ZERO_SHARE * float(largest)


def random_subspace(width: int, k: int, seed: int) -> Direction:
    """k orthonormal directions, uniformly distributed: the first j rows are a random j-subspace.

    Args:
        width: width of the residual stream, d.
        k: number of directions, at most `width`.
        seed: seed of a numpy Generator.

    Raises:
        InputError: k is larger than the width.
    """
    if k > width:
        raise InputError(f"directions.random: {k} directions in width {width}. Ask for fewer.")
    gaussian = np.random.default_rng(seed).standard_normal((width, k))
    orthonormal, triangle = np.linalg.qr(gaussian)
    # QR leaves signs to the library; with a positive diagonal they are those of Gram-Schmidt.
    orthonormal = orthonormal * np.sign(np.diag(triangle))
    return Direction(basis=torch.from_numpy(orthonormal.T.copy()).float())


def save_directions(path: Path | str, directions: Mapping[Candidate, Direction]) -> None:
    """Write one method's directions to an npz file, with keys position<p>_layer<l>_<field>."""
    arrays: dict[str, np.ndarray] = {}
    for (position, layer), direction in sorted(directions.items()):
        prefix = f"position{position}_layer{layer}"
        require_finite(direction.basis, f"{path}: direction at {prefix}")
        arrays[f"{prefix}_basis"] = direction.basis.numpy()
        arrays[f"{prefix}_norm"] = np.float64(direction.norm)
        arrays[f"{prefix}_accuracies"] = direction.accuracies.numpy()
        if direction.write is not None and direction.origin is not None:
            arrays[f"{prefix}_write"] = direction.write.numpy()
            arrays[f"{prefix}_origin"] = direction.origin.numpy()
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def load_directions(path: Path | str) -> dict[Candidate, Direction]:
    """Read what `save_directions` wrote.

    Raises:
        InputError: the file holds a NaN or keys of another form.
    """
    fields: dict[Candidate, dict[str, Tensor]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            match = _KEY.fullmatch(key)
            if match is None:
                raise InputError(f"{path}: unknown key {key}. Make the file again.")
            candidate = (int(match[1]), int(match[2]))
            fields.setdefault(candidate, {})[match[3]] = torch.from_numpy(arrays[key])
    for candidate, parts in fields.items():
        require_finite(parts["basis"], f"{path}: direction at {candidate}")
    return {
        candidate: Direction(**{**parts, "norm": float(parts["norm"])})
        for candidate, parts in fields.items()
    }


@dataclass(frozen=True)
class Means:
    """Class means of a model, float64 [positions, layers, width] each, and the class sizes."""

    harmful: Tensor
    harmless: Tensor
    n_harmful: int
    n_harmless: int


def save_means(path: Path | str, means: Means) -> None:
    """Write the class means to an npz file, one array per attribute of `Means`."""
    with open(path, "wb") as file:
        np.savez(file, **{name: np.asarray(value) for name, value in vars(means).items()})


def load_means(path: Path | str) -> Means:
    """Read what `save_means` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Means(
            harmful=torch.from_numpy(arrays["harmful"]),
            harmless=torch.from_numpy(arrays["harmless"]),
            n_harmful=int(arrays["n_harmful"]),
            n_harmless=int(arrays["n_harmless"]),
        )
