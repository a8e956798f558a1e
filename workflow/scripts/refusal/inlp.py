"""Iterative nullspace projection: linear classifiers of refusal, one after the other.

Ravfogel et al. 2020 (arXiv 2004.07667), in the two variants of `inlp`. Each classifier is trained
on data from which the directions of all earlier ones are projected out.

With n samples in d > n dimensions every classifier lies in the span of the samples, so all of it
happens in n coordinates, and a classifier is solved for its n coefficients over the samples: no
d x d matrix is ever built. A Newton step costs n^3 / 3, which is meant for hundreds of samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal.directions import Direction, empty_direction, is_constant, require_finite
from refusal.errors import InputError

Variant = Literal["faithful", "corrected"]

_MIN_PER_CLASS = 5
# Share of the size of the data below which only rounding is left after projection.
_EXHAUSTED = 1e-10
# Newton's method ends after a step that started this close to the minimum, as a share of its value.
_CONVERGED = 1e-10


@dataclass(frozen=True)
class InlpSettings:
    """Settings of INLP (`directions.inlp` in the configuration).

    Attributes:
        penalty: inverse strength C of the L2 penalty, as in scikit-learn.
        max_directions: largest rank.
        dev_share: share of the samples held out to measure accuracy (faithful).
        stop_accuracy: a classifier whose dev accuracy is below this counts as near chance.
        folds: number of folds that measure accuracy (corrected).
        seed: seed of the split into train and dev, or into folds.
    """

    penalty: float = 0.1
    max_directions: int = 100
    dev_share: float = 0.2
    stop_accuracy: float = 0.55
    folds: int = 5
    seed: int = 42


class Step(NamedTuple):
    """One classifier: its unit direction [r], and how many dev samples it classifies rightly."""

    direction: Tensor
    correct: int


def inlp(harmful: Tensor, harmless: Tensor, variant: Variant, settings: InlpSettings) -> Direction:
    """INLP at one (position, layer), both classes cut to the size of the smaller one.

    faithful: the published rules of Rocchetti & Ferrara 2026. One random split holds out
        `dev_share` of the samples, not stratified. Stops AFTER including a classifier whose dev
        accuracy is below `stop_accuracy`, or when the last three accuracies are exactly equal.
    corrected: the accuracy of step t is that of stratified k-fold cross-validation of the whole
        procedure (each fold projects out its own t - 1 classifiers, so held-out samples never
        shape what is removed); the directions are fitted on all samples. Stops BEFORE including
        a classifier whose accuracy is below `stop_accuracy`.

    Both stop at `max_directions`, and where nothing is left of the data.

    Args:
        harmful: [m, d] activations.
        harmless: [m', d] activations.
        variant: "faithful" or "corrected".
        settings: see `InlpSettings`.

    Returns:
        Basis in the order found, each row oriented so that the harmful samples score higher, with
        the dev accuracy of each step. Row 0 is the first classifier's own direction. Rank 0
        where all samples are one point (layer 0), or if no classifier beats chance (corrected).

    Raises:
        InputError: too few samples in a class, or NaN activations.
    """
    size = min(len(harmful), len(harmless))
    needed = max(settings.folds, _MIN_PER_CLASS)
    if size < needed:
        raise InputError(
            f"directions.inlp: {size} prompts in the smaller class, {needed} are needed. "
            "Add training prompts, or set `directions.filter: false`."
        )
    samples = torch.cat([harmful[:size], harmless[:size]]).double()
    require_finite(samples, "activations")
    if is_constant(samples):
        return empty_direction(samples.shape[1])
    labels = torch.cat([torch.ones(size), torch.zeros(size)]).double()
    run = {"faithful": _faithful, "corrected": _corrected}[variant]
    frame, points = span_coordinates(samples)
    del samples  # in wide models the largest tensor here, and not needed any more
    directions, accuracies = run(points, labels, settings)
    if not directions:
        return empty_direction(len(frame))
    return Direction(
        basis=(torch.stack(directions) @ frame.T).float(),
        accuracies=torch.tensor(accuracies, dtype=torch.float64),
    )


def span_coordinates(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal frame [d, r] of the samples' span and their coordinates [n, r], r = min(n, d)."""
    n, width = samples.shape
    if n >= width:
        return torch.eye(width, dtype=samples.dtype), samples
    frame, triangle = torch.linalg.qr(samples.T)
    return frame, triangle.T.contiguous()


def _faithful(
    points: Tensor, labels: Tensor, settings: InlpSettings
) -> tuple[list[Tensor], list[float]]:
    """Directions and accuracies under the published split and stop rules."""
    order = torch.from_numpy(np.random.default_rng(settings.seed).permutation(len(points)))
    n_dev = max(4, int(settings.dev_share * len(points)))
    steps = classifiers(points, labels, order[n_dev:], order[:n_dev], settings.penalty)
    directions: list[Tensor] = []
    accuracies: list[float] = []
    for step in islice(steps, settings.max_directions):
        directions.append(step.direction)
        accuracies.append(step.correct / n_dev)
        stalled = len(accuracies) >= 3 and len(set(accuracies[-3:])) == 1
        if stalled or accuracies[-1] < settings.stop_accuracy:
            break
    return directions, accuracies


def _corrected(
    points: Tensor, labels: Tensor, settings: InlpSettings
) -> tuple[list[Tensor], list[float]]:
    """Directions of all samples' classifiers, as many as cross-validation finds above chance."""
    folds = torch.from_numpy(stratified_folds(labels.numpy(), settings.folds, settings.seed))
    rows = torch.arange(len(points))
    held_out = [
        classifiers(points, labels, rows[folds != fold], rows[folds == fold], settings.penalty)
        for fold in range(settings.folds)
    ]
    full = classifiers(points, labels, rows, rows[:0], settings.penalty)
    directions: list[Tensor] = []
    accuracies: list[float] = []
    # Ends where the data of a fold are exhausted, which is the end for all of them.
    for steps in islice(zip(*held_out, strict=False), settings.max_directions):
        accuracy = sum(step.correct for step in steps) / len(points)
        step = next(full, None) if accuracy >= settings.stop_accuracy else None
        if step is None:
            break
        directions.append(step.direction)
        accuracies.append(accuracy)
    return directions, accuracies


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every sample, int64 [n]: each class spread evenly over the folds."""
    rng = np.random.default_rng(seed)
    assignment = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        assignment[rng.permutation(members)] = np.arange(len(members)) % folds
    return assignment


def classifiers(
    points: Tensor, labels: Tensor, train: Tensor, dev: Tensor, penalty: float
) -> Iterator[Step]:
    """Yield the classifiers of INLP one by one, until nothing is left of the training data.

    The raw data are projected anew in every round, as Ravfogel et al. advise: repeated projection
    would pile up rounding. Each direction is made orthogonal to the earlier ones by Gram-Schmidt,
    done twice because once leaves a residue of the size of the cancellation.

    Args:
        points: float64 [n, r], all samples.
        labels: float64 [n] of 0 (harmless) and 1 (harmful).
        train: rows to train on.
        dev: rows to measure accuracy on.
        penalty: C of the logistic regression.
    """
    raw, targets = points[train], labels[train]
    gram = raw @ raw.T
    basis = points.new_empty(0, points.shape[1])
    while len(basis) < points.shape[1]:
        projected = project_out(raw, basis)
        if float(projected.abs().max()) <= _EXHAUSTED * float(raw.abs().max()):
            return
        weights = logistic_regression(gram, targets, penalty) @ projected
        direction = project_out(project_out(weights, basis), basis)
        direction = direction / direction.norm()
        scores = raw @ direction
        if scores[targets == 1].mean() < scores[targets == 0].mean():
            direction = -direction
        predicted = project_out(points[dev], basis) @ direction > 0
        basis = torch.cat([basis, direction.unsqueeze(0)])
        # The Gram matrix of the data projected once more: much cheaper than their product.
        gram = gram - torch.outer(scores, scores)
        yield Step(direction, int((predicted == (labels[dev] == 1)).sum()))


def project_out(points: Tensor, basis: Tensor) -> Tensor:
    """Remove from `points` [..., r] their component in the span of the rows of `basis` [k, r]."""
    return points - (points @ basis.T) @ basis


def logistic_regression(
    gram: Tensor, labels: Tensor, penalty: float, max_iterations: int = 100
) -> Tensor:
    """L2 logistic regression without intercept, solved for coefficients over the samples.

    Minimises mean BCE(x . w, y) + lam ||w||^2 with lam = 1 / (2 C n), which is scikit-learn's
    `LogisticRegression(C=C, fit_intercept=False)`, by Newton's method with a line search. With
    w = X^T c a step needs one Cholesky factor of I + C V^(1/2) X X^T V^(1/2), V the variances of
    the predictions (Rasmussen & Williams 2006, algorithm 3.1).

    Args:
        gram: float64 [n, n], X X^T.
        labels: float64 [n] of 0 and 1.
        penalty: C.
        max_iterations: Newton steps; fewer than ten are needed.

    Returns:
        c, float64 [n], with w = X^T c.
    """

    def objective(coefficients: Tensor, scores: Tensor) -> float:
        """n times the objective: sum of BCE + ||w||^2 / (2 C)."""
        losses = torch.nn.functional.softplus(scores) - labels * scores
        return float(losses.sum() + coefficients @ scores / (2 * penalty))

    coefficients, scores = torch.zeros_like(labels), torch.zeros_like(labels)
    value = objective(coefficients, scores)
    for _ in range(max_iterations):
        probability = torch.sigmoid(scores)
        residual = probability - labels + coefficients / penalty  # gradient in w is X^T residual
        spread = (probability * (1 - probability)).sqrt()
        system = penalty * spread.unsqueeze(1) * gram * spread
        system.diagonal().add_(1)
        inner = (spread * (gram @ residual)).unsqueeze(1)
        solved = torch.cholesky_solve(inner, torch.linalg.cholesky(system)).squeeze(1)
        step = penalty * (penalty * spread * solved - residual)
        step_scores = gram @ step
        slope = float(residual @ step_scores)
        # A few roundings of slack keep the search from failing at the minimum itself.
        bound, length = value * (1 + 1e-14), 1.0
        while True:
            moved = coefficients + length * step, scores + length * step_scores
            new = objective(*moved)
            if not new > bound + 1e-4 * length * slope:
                break
            length /= 2
        (coefficients, scores), value = moved, new
        # -slope is twice the distance to the minimum; the step just taken squares the error.
        if -slope <= _CONVERGED * value:
            return coefficients
    raise RuntimeError(f"logistic regression: no convergence in {max_iterations} Newton steps")
