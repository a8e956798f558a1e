"""(c) INLP in the span of the samples, against a d x d decomposition for every classifier."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from measuring import Result, alternate, compare_peaks, compare_seconds, require
from subjects import SEED, Subject
from torch import Tensor

from refusal.inlp import InlpSettings
from refusal.inlp import inlp as library_inlp

GROUP = "c inlp"
SETTINGS = InlpSettings()
COMPARED_DIRECTIONS = 8
LARGEST_ANGLE = 1.0  # degrees
PUBLISHED_TOLERANCE = 1e-5
# With the published tolerance the float64 form stops early, too far from its own minimum to tell
# whether the directions are the same.
CONVERGED = 1e-9


class Outcome(NamedTuple):
    """Unit directions [k, d] in the order found, and the rank that the procedure has counted."""

    directions: Tensor
    rank: int

    @property
    def found(self) -> int:
        """Number of classifiers."""
        return len(self.directions)


def two_classes(width: int, per_class: int = 128) -> tuple[Tensor, Tensor]:
    """Gaussian classes that differ along a dozen directions, less and less, float32 [m, d]."""
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(2 * per_class, width, generator=generator)
    axes = torch.linalg.qr(torch.randn(width, 12, generator=generator)).Q
    signs = torch.ones(2 * per_class, 1)
    signs[per_class:] = -1
    strengths = 12 * 0.8 ** torch.arange(12.0)
    # Each axis tells the classes apart for its own random part of the prompts.
    shown = (torch.rand(2 * per_class, 12, generator=generator) < 0.5).float()
    samples = noise + (signs * shown * strengths) @ axes.T
    return samples[:per_class], samples[per_class:]


def plain_inlp(
    harmful: Tensor,
    harmless: Tensor,
    dtype: torch.dtype,
    max_directions: int,
    tolerance: float = PUBLISHED_TOLERANCE,
) -> Outcome:
    """The published procedure of Rocchetti & Ferrara 2026 as written (methods 1.4).

    The classifier is fitted in d dimensions by L-BFGS down to a gradient of `tolerance`; the row
    space is read off a full singular value decomposition of the sum of all w w^T, with everything
    above 1e-7 counted.
    """
    samples = torch.cat([harmful, harmless]).to(dtype)
    labels = torch.cat([torch.ones(len(harmful)), torch.zeros(len(harmless))]).to(dtype)
    order = np.random.default_rng(SETTINGS.seed).permutation(len(samples))
    n_dev = int(SETTINGS.dev_share * len(samples))
    dev, train = order[:n_dev], order[n_dev:]
    projected, projected_dev = samples[train], samples[dev]
    width = samples.shape[1]
    row_space = torch.zeros(width, width, dtype=dtype)
    directions: list[Tensor] = []
    accuracies: list[float] = []
    basis = samples[:0]
    while len(directions) < max_directions:
        weights = _fit_in_full_width(projected, labels[train], tolerance)
        accuracies.append(
            float(((projected_dev @ weights > 0) == (labels[dev] == 1)).double().mean())
        )
        scores = samples[train] @ weights
        sign = torch.sign(scores[labels[train] == 1].mean() - scores[labels[train] == 0].mean())
        directions.append(sign * weights / weights.norm())
        row_space += torch.outer(directions[-1], directions[-1])
        _, sizes, right = torch.linalg.svd(row_space)
        basis = right[sizes > 1e-7]
        stalled = len(accuracies) >= 3 and len(set(accuracies[-3:])) == 1
        if accuracies[-1] < SETTINGS.stop_accuracy or stalled:
            break
        projector = torch.eye(width, dtype=dtype) - basis.T @ basis
        projected, projected_dev = samples[train] @ projector, samples[dev] @ projector
    return Outcome(torch.stack(directions), len(basis))


def _fit_in_full_width(points: Tensor, labels: Tensor, tolerance: float) -> Tensor:
    """Logistic regression without intercept by L-BFGS, otherwise with the published settings."""
    weights = torch.zeros(points.shape[1], dtype=points.dtype, requires_grad=True)
    strength = 1 / (2 * SETTINGS.penalty * len(points))
    published = tolerance == PUBLISHED_TOLERANCE
    optimiser = torch.optim.LBFGS(
        [weights],
        lr=1,
        max_iter=200 if published else 5000,
        tolerance_grad=tolerance,
        tolerance_change=1e-9 if published else 0.0,
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(points @ weights, labels)
        loss = loss + strength * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach()


def largest_angle(one: Tensor, other: Tensor) -> float:
    """Largest principal angle between the spans of two sets of rows, in degrees."""
    frames = [torch.linalg.qr(rows.double().T).Q for rows in (one, other)]
    # By the sine: the cosine of a small angle is 1 to all digits.
    outside = frames[1] - frames[0] @ (frames[0].T @ frames[1])
    sine = float(torch.linalg.matrix_norm(outside, 2))
    return math.degrees(math.asin(min(1.0, sine)))


def _parity(ours: Tensor, float64: Tensor) -> str:
    """Angles between the spans of the first k directions, for every k up to eight."""
    common = min(len(ours), len(float64), COMPARED_DIRECTIONS)
    angles = [largest_angle(ours[:k], float64[:k]) for k in range(1, common + 1)]
    require(max(angles) <= LARGEST_ANGLE, f"spans differ by {max(angles):.2f} degrees")
    return f"spans of the first 1 to {common} directions within {max(angles):.2f} degrees"


def measure(subject: Subject, quick: bool) -> list[Result]:
    """Time at two widths in float32, the published precision; directions against float64."""
    results = []
    cases = [(128, 2, None, None)] if quick else [(1024, 3, 100, 1 / 3), (2048, 1, 400, 1 / 3)]
    for width, repeats, target, peak_target in cases:
        harmful, harmless = two_classes(width)

        def ours():
            return library_inlp(harmful, harmless, "faithful", SETTINGS)  # noqa: B023

        def plain(max_directions=SETTINGS.max_directions):
            return plain_inlp(harmful, harmless, torch.float32, max_directions)  # noqa: B023

        found = ours().basis
        float64 = plain_inlp(
            harmful, harmless, torch.float64, COMPARED_DIRECTIONS, CONVERGED
        ).directions
        parity = _parity(found, float64)
        outcomes: list[Outcome] = []
        timing = alternate(ours, lambda: outcomes.append(plain()), repeats)  # noqa: B023
        rounds = f"{len(found)} directions, in float32 the other side needs {outcomes[0].found}"
        what = f"INLP, n 256, d {width} ({rounds}) against a d x d SVD per direction"
        results.append(compare_seconds(GROUP, what, timing, at_least=target, parity=parity))
        results.append(
            compare_peaks(
                GROUP,
                f"peak memory of INLP, n 256, d {width}",
                ours,
                lambda: plain(1),  # noqa: B023
                at_most=peak_target,
                repeats=3 if width <= 1024 else 1,
                parity=f"rank of its {outcomes[0].found} float32 classifiers: {outcomes[0].rank}",
            )
        )
    return results
