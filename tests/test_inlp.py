"""INLP: against scikit-learn, against the published loop in float64, and its invariants."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from refusal.errors import InputError
from refusal.inlp import InlpSettings, inlp, logistic_regression, stratified_folds

SETTINGS = InlpSettings()


@pytest.fixture(params=["faithful", "corrected"])
def variant(request) -> str:
    return request.param


def classes(
    n: int = 64, width: int = 96, separation: float = 4.0, planted: int = 6, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes [n, width] that differ in `planted` directions of decreasing visibility.

    The class shows in the mean of the first coordinate, and in coordinates 1.. only in a share of
    the samples, so that more than one classifier beats chance.
    """
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(2, n, width, generator=generator)
    for index in range(planted):
        shows = torch.rand(2, n, generator=generator) < 1.0 / (1 + 0.3 * index)
        points[0, :, index] += separation * shows[0]
        points[1, :, index] -= separation * shows[1]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    points = points @ rotation + 2
    return points[0], points[1]


def largest_angle(left: torch.Tensor, right: torch.Tensor) -> float:
    """Largest principal angle, in degrees, between the spans of orthonormal rows [k, d].

    From the sine (what of one span lies outside the other): a cosine near 1 cannot resolve
    angles below 1e-6 degrees.
    """
    left, right = (torch.linalg.qr(x.double().T)[0].T for x in (left, right))
    outside = left - (left @ right.T) @ right
    return math.degrees(math.asin(min(1.0, float(torch.linalg.matrix_norm(outside, 2)))))


def published_loop(harmful, harmless, seed=42, rounds=100):
    """The published INLP loop (methods, section 1.4) in float64, with scikit-learn's solver.

    Returns classifiers [t, d] as trained, the row space basis [rank, d], and dev accuracies.
    """
    m = min(len(harmful), len(harmless))
    x = torch.cat([harmful[:m], harmless[:m]]).double().numpy()
    y = np.r_[np.ones(m), np.zeros(m)]
    order = np.random.default_rng(seed).permutation(2 * m)
    dev, train = order[: max(4, int(0.2 * 2 * m))], order[max(4, int(0.2 * 2 * m)) :]
    projection, total = np.eye(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
    found, accuracies = [], []
    for _ in range(rounds):
        model = LogisticRegression(C=0.1, fit_intercept=False, tol=1e-10, max_iter=10_000)
        w = model.fit(x[train] @ projection, y[train]).coef_[0]
        accuracies.append(float(((x[dev] @ projection @ w > 0) == (y[dev] == 1)).mean()))
        scores = x[train] @ w
        if scores[y[train] == 1].mean() < scores[y[train] == 0].mean():
            w = -w
        w = w / np.linalg.norm(w)
        found.append(w)
        total += np.outer(w, w)
        _, values, rows = np.linalg.svd(total)
        row_space = rows[values > 1e-7]
        projection = np.eye(x.shape[1]) - row_space.T @ row_space
        if accuracies[-1] < 0.55 or (len(accuracies) >= 3 and len(set(accuracies[-3:])) == 1):
            break
    return torch.from_numpy(np.array(found)), torch.from_numpy(row_space.copy()), accuracies


# --- the solver -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "width", "scale"), [(40, 200, 1), (40, 200, 30), (150, 20, 1)])
def test_logistic_regression_equals_scikit_learn(n, width, scale):
    harmful, harmless = (x.double() * scale for x in classes(n // 2, width, separation=1.0))
    points = torch.cat([harmful, harmless])
    labels = torch.cat([torch.ones(n // 2), torch.zeros(n // 2)]).double()
    oracle = LogisticRegression(C=0.1, fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = oracle.fit(points.numpy(), labels.numpy()).coef_[0]
    weights = (points.T @ logistic_regression(points @ points.T, labels, penalty=0.1)).numpy()
    cosine = weights @ expected / np.linalg.norm(weights) / np.linalg.norm(expected)
    assert cosine > 1 - 1e-6
    assert np.linalg.norm(weights) == pytest.approx(np.linalg.norm(expected), rel=1e-3)


def test_the_gradient_vanishes_at_the_solution():
    points = torch.cat(classes(32, 20, separation=1.0)).double()
    labels = torch.cat([torch.ones(32), torch.zeros(32)]).double()
    weights = points.T @ logistic_regression(points @ points.T, labels, penalty=0.1)
    weights.requires_grad_()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(points @ weights, labels)
    objective = losses + weights @ weights / (2 * 0.1 * len(points))
    (gradient,) = torch.autograd.grad(objective, weights)
    assert gradient.norm() < 1e-9


# --- the faithful variant ---------------------------------------------------------------------


@pytest.mark.parametrize("width", [24, 160])  # fewer dimensions than samples, and more
def test_faithful_equals_the_published_loop_in_float64(width):
    harmful, harmless = classes(width=width)
    found, row_space, accuracies = published_loop(harmful, harmless[:60])
    direction = inlp(harmful, harmless[:60], "faithful", SETTINGS)
    assert len(accuracies) >= 4
    assert direction.rank == len(found) == len(row_space)
    assert direction.accuracies.tolist() == accuracies
    for k in range(1, min(8, direction.rank) + 1):
        assert largest_angle(direction.basis[:k], found[:k]) < 0.1
    assert largest_angle(direction.basis, row_space) < 1.0
    cosines = (direction.basis.double() * found).sum(1)
    assert cosines.min() > 0.999  # same order, same orientation


def test_faithful_includes_the_last_near_chance_classifier_and_corrected_does_not():
    harmful, harmless = classes(planted=1, separation=8.0)
    faithful = inlp(harmful, harmless, "faithful", SETTINGS)
    assert faithful.accuracies[-1] < SETTINGS.stop_accuracy
    assert (faithful.accuracies[:-1] >= SETTINGS.stop_accuracy).all()
    corrected = inlp(harmful, harmless, "corrected", SETTINGS)
    assert corrected.rank >= 1
    assert (corrected.accuracies >= SETTINGS.stop_accuracy).all()


def test_three_equal_accuracies_stop_the_faithful_variant_only():
    # Four dev samples, so accuracies soon repeat; no other rule can fire.
    harmful, harmless = classes(n=10, width=60)
    settings = InlpSettings(stop_accuracy=0.0, max_directions=16)
    accuracies = inlp(harmful, harmless, "faithful", settings).accuracies.tolist()
    equal = [len(set(accuracies[i : i + 3])) == 1 for i in range(len(accuracies) - 2)]
    assert equal == [False] * (len(equal) - 1) + [True]
    assert len(accuracies) < 16
    assert inlp(harmful, harmless, "corrected", settings).rank == 16


def test_the_seed_sets_the_split():
    harmful, harmless = classes(separation=1.0)
    one = inlp(harmful, harmless, "faithful", SETTINGS)
    again = inlp(harmful, harmless, "faithful", SETTINGS)
    other = inlp(harmful, harmless, "faithful", InlpSettings(seed=1))
    assert torch.equal(one.basis, again.basis)
    assert largest_angle(one.basis[:1], other.basis[:1]) > 1


# --- the corrected variant --------------------------------------------------------------------


def test_a_planted_subspace_is_found(variant):
    # Each of three directions shows the class in a share of the samples, so that no single
    # classifier removes what the three say; 37 others are noise.
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 300, 40, generator=generator) * 0.3
    shows = torch.rand(2, 300, 3, generator=generator) < torch.tensor([0.9, 0.5, 0.3])
    points[:, :, :3] += torch.tensor([[[1.0]], [[-1.0]]]) * shows * torch.tensor([18.0, 9.0, 6.0])
    direction = inlp(points[0], points[1], variant, SETTINGS)
    planted = torch.eye(40)[:3]
    assert (direction.basis @ planted.T).norm(dim=0).min() > 0.99
    assert (direction.basis[0] @ planted.T).norm() > 0.85
    assert 3 <= direction.rank <= 14


def test_probe_on_fresh_data_is_near_chance_after_corrected():
    harmful, harmless = classes(n=600, width=40)
    direction = inlp(harmful[:300], harmless[:300], "corrected", SETTINGS)
    kept = [x - x @ direction.basis.T @ direction.basis for x in (harmful, harmless)]
    fit = torch.cat([x[:300] for x in kept]), torch.cat([x[300:] for x in kept])
    labels = np.r_[np.ones(300), np.zeros(300)]
    probe = LogisticRegression(C=0.1, fit_intercept=False, max_iter=1000)
    before = probe.fit(torch.cat([harmful[:300], harmless[:300]]).numpy(), labels)
    assert before.score(torch.cat([harmful[300:], harmless[300:]]).numpy(), labels) > 0.95
    assert probe.fit(fit[0].numpy(), labels).score(fit[1].numpy(), labels) < 0.62


def test_folds_are_stratified_and_deterministic():
    labels = np.r_[np.ones(23), np.zeros(31)]
    folds = stratified_folds(labels, 5, seed=7)
    assert np.array_equal(folds, stratified_folds(labels, 5, seed=7))
    for label in (0, 1):
        sizes = np.bincount(folds[labels == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_classes_that_do_not_differ_have_rank_zero_in_corrected():
    points = torch.randn(2, 200, 30, generator=torch.Generator().manual_seed(2))
    assert inlp(points[0], points[1], "corrected", SETTINGS).rank == 0


# --- both -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [24, 160])
def test_projector_invariants(variant, width):
    harmful, harmless = classes(width=width)
    direction = inlp(harmful, harmless, variant, SETTINGS)
    basis = direction.basis.double()
    assert direction.rank >= 3
    torch.testing.assert_close(
        basis @ basis.T, torch.eye(direction.rank).double(), rtol=0, atol=1e-6
    )
    projector = torch.eye(width).double() - basis.T @ basis
    torch.testing.assert_close(projector @ projector, projector, rtol=0, atol=1e-6)
    assert (projector @ basis.T).abs().max() < 1e-6


def test_directions_point_to_the_harmful_class(variant):
    harmful, harmless = classes(n=200)
    direction = inlp(harmful, harmless, variant, SETTINGS)
    assert ((harmful.mean(0) - harmless.mean(0)) @ direction.basis[0]) > 0
    assert direction.accuracies[0] > 0.9


def test_orientation_follows_the_class_means_not_the_class_sizes():
    # One coordinate far from the origin: without an intercept the sign of the weight says which
    # class the training split holds more of.
    low, high = 10 + 0.1 * torch.randn(2, 20, 1, generator=torch.Generator().manual_seed(0))
    high += 0.2
    for harmful, harmless in ((high, low), (low, high)):
        direction = inlp(harmful, harmless, "faithful", SETTINGS)
        assert direction.basis[0] @ (harmful.mean(0) - harmless.mean(0)) > 0


def test_result_is_well_conditioned(variant):
    harmful, harmless = (x.double() for x in classes(width=160))
    one = inlp(harmful, harmless, variant, SETTINGS)
    other = inlp(harmful * (1 + 1e-6), harmless * (1 + 1e-6), variant, SETTINGS)
    assert one.rank == other.rank >= 3
    assert largest_angle(one.basis, other.basis) < 0.01


def test_rank_is_limited(variant):
    direction = inlp(*classes(), variant, InlpSettings(max_directions=2))
    assert direction.rank == len(direction.accuracies) == 2


def test_one_repeated_point_has_rank_zero(variant):
    point = torch.randn(1, 16).repeat(20, 1)
    assert inlp(point, point, variant, SETTINGS).rank == 0


def test_exhausted_data_end_the_loop(variant):
    # Two dimensions, both separating: after two classifiers nothing is left to project.
    points = torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(0))
    harmful, harmless = points[0] + 1.5, points[1] - 1.5
    direction = inlp(harmful, harmless, variant, InlpSettings(stop_accuracy=0.0, seed=5))
    assert direction.rank <= 2


def test_too_few_or_broken_samples_are_input_errors(variant):
    harmful, harmless = classes(n=10)
    with pytest.raises(InputError, match="4 prompts in the smaller class"):
        inlp(harmful, harmless[:4], variant, SETTINGS)
    harmful[0, 0] = math.nan
    with pytest.raises(InputError, match="NaN"):
        inlp(harmful, harmless, variant, SETTINGS)
