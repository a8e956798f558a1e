"""Directions of the kinds of refusal against plain loops: estimates, cosines, stability, span."""

import numpy as np
import pandas as pd
import pytest

from refusal.errors import InputError
from refusal.kind_ablation import ablation_map, ablation_scalars
from refusal.kind_directions import (
    KindDirections,
    estimate,
    load_kind_directions,
    negative_class,
    random_directions,
    resampled_cosines,
    save_kind_directions,
)
from refusal.kind_similarity import (
    cosine_frame,
    cosine_scalars,
    effective_rank,
    orthonormal,
    span_frame,
    span_scalars,
    stability_frame,
    stability_scalars,
)
from refusal.kinds import CORE
from refusal.statistics import Intervals, bootstrap_counts

WIDTH = 16
INTERVALS = Intervals(resamples=60, seed=3)
NAMES = (CORE, "OverRefusal-XST", "Humanizing-CCN", "Incomplete-CCN", "HateSpeech-SB", "Advice-SB")


@pytest.fixture(scope="module")
def groups():
    """Noncompliant prompts of each kind lie off the contrasts along an axis of the kind."""
    rng = np.random.default_rng(0)
    found = {}
    for index, kind in enumerate(NAMES):
        shift = 3 * np.eye(WIDTH)[index] + 2 * np.eye(WIDTH)[-1]
        found[kind, "noncompliant"] = rng.normal(size=(12, WIDTH)) * 0.3 + shift
        found[kind, "contrast"] = rng.normal(size=(10, WIDTH)) * 0.3
    return found


def direction(groups, kind, own, counts=None):
    """The definition, prompt by prompt."""
    means = []
    for group in ((kind, "noncompliant"), negative_class(kind, own, groups)):
        weights = np.ones(len(groups[group])) if counts is None else counts[group]
        total = sum(w * row for w, row in zip(weights, groups[group], strict=True))
        means.append(total / weights.sum())
    difference = means[0] - means[1]
    return difference / np.linalg.norm(difference)


def test_only_two_kinds_have_their_own_contrasts_unless_asked(groups):
    assert negative_class("Advice-SB", False, groups) == (CORE, "contrast")
    assert negative_class("Advice-SB", True, groups) == ("Advice-SB", "contrast")
    own = ("OverRefusal-XST", "contrast")
    assert negative_class("OverRefusal-XST", False, groups) == own
    without = {group: rows for group, rows in groups.items() if group != own}
    assert negative_class("OverRefusal-XST", True, without) == (CORE, "contrast")


def test_estimates_are_unit_differences_of_means(groups):
    found = estimate(groups)
    assert list(found) == [*NAMES, *(f"{kind}+own" for kind in NAMES)]
    for name, vector in found.items():
        kind, _, own = name.partition("+")
        np.testing.assert_allclose(vector, direction(groups, kind, bool(own)), atol=1e-12)
        assert np.linalg.norm(vector) == pytest.approx(1)


def test_equal_classes_have_no_direction(groups):
    same = {**groups, ("Advice-SB", "noncompliant"): groups[CORE, "contrast"]}
    with pytest.raises(InputError, match="Advice-SB do not differ.*kinds.position"):
        estimate(same)


@pytest.mark.parametrize("own", [False, True])
def test_cosines_and_their_resamples_equal_plain_loops(groups, own):
    value, resampled = resampled_cosines(groups, own, 5, seed=1)
    vectors = np.stack([direction(groups, kind, own) for kind in NAMES])
    np.testing.assert_allclose(value, vectors @ vectors.T, atol=1e-12)
    for draw in range(5):
        counts = {
            group: bootstrap_counts(len(rows), 5, 1 + index)[draw]
            for index, (group, rows) in enumerate(groups.items())
        }
        vectors = np.stack([direction(groups, kind, own, counts) for kind in NAMES])
        np.testing.assert_allclose(resampled[draw], vectors @ vectors.T, atol=1e-10)


def test_a_shared_negative_class_alone_makes_directions_alike():
    """Kinds of pure noise are orthogonal with own contrasts, not with a shared noisy one."""
    rng = np.random.default_rng(5)
    noise = {
        (kind, side): rng.normal(size=(8, 400))
        for kind in NAMES
        for side in ("noncompliant", "contrast")
    }
    found = cosine_scalars(noise, INTERVALS)
    assert abs(found["kind_cosine_own_mean"][0].value) < 0.1
    assert found["kind_cosine_shared_pool"][0].value > 0.15


def test_cosine_frame_has_both_variants_of_every_pair(groups):
    frame = cosine_frame(groups, INTERVALS)
    assert len(frame) == 2 * len(NAMES) ** 2
    other = frame[frame.a != frame.b]
    assert (other.low < other.high).all()
    wide = frame[frame.variant == "own"].pivot(index="a", columns="b", values="value")
    np.testing.assert_allclose(wide, wide.T, atol=1e-12)


def test_stable_kinds_are_more_alike_than_different_ones(groups):
    stability = stability_frame(groups, size=5, draws=6, seed=0)
    assert list(stability.kind) == list(NAMES) and (stability.n == 5).all()
    assert (stability.low <= stability.value).all() and (stability.value <= stability.high).all()
    scalars = stability_scalars(stability, cosine_frame(groups, INTERVALS))
    assert scalars["kind_distinct_share"][0].value == 1
    swapped = stability.assign(value=-1.0)
    assert (
        stability_scalars(swapped, cosine_frame(groups, INTERVALS))["kind_distinct_share"][0].value
        == 0
    )


def test_halves_of_a_draw_share_no_prompt():
    """With one outlying prompt, only one half can hold it."""
    rows = np.zeros((4, 3))
    rows[:, 0] = 1.0
    rows[0] = (0, 100.0, 0)
    pools = {(CORE, "noncompliant"): rows, (CORE, "contrast"): np.zeros((4, 3))}
    stability = stability_frame(pools, size=2, draws=10, seed=0)
    assert stability.value[0] < 0.1


def test_span_of_a_known_subspace():
    axes = np.eye(6)
    kinds = {CORE: axes[0], "Advice-SB": (axes[0] + axes[1]) / np.sqrt(2)}
    directions = KindDirections(-1, 1, 1.0, kinds)
    found = span_frame(directions, {"dim": axes[:1], "inlp_corrected": axes[1:4]})
    assert found.explained.tolist() == pytest.approx([1, 1, 1 / 2, 1 / 3])
    assert found.chance.tolist() == pytest.approx([1 / 3] * 4)
    assert found.largest_angle.tolist() == pytest.approx([0, 0, 90, 90], abs=1e-4)
    scalars = span_scalars(directions, found, axes[0])
    assert scalars["kind_explains_inlp"][0].value == pytest.approx(1 / 3)
    assert scalars["kind_dim_cosine_highest"][0].value == pytest.approx(1)


def test_rank_counts_independent_directions():
    axes = np.eye(5)
    assert effective_rank(axes[:3]) == (pytest.approx(3), 3)
    assert effective_rank(axes[[0, 0, 0]]) == (pytest.approx(1), 1)
    assert len(orthonormal(axes[[0, 0, 2]])) == 2


def test_directions_survive_saving(tmp_path, groups):
    made = KindDirections(-2, 3, 4.5, estimate(groups) | random_directions(2, WIDTH, 7))
    save_kind_directions(tmp_path / "d.npz", made)
    read = load_kind_directions(tmp_path / "d.npz")
    assert (read.position, read.layer, read.residual_norm) == (-2, 3, 4.5)
    assert list(read.vectors) == list(made.vectors) and read.kinds == NAMES
    for name, vector in made.vectors.items():
        np.testing.assert_array_equal(vector, read.vectors[name])
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(InputError, match="other.npz: no file of kind directions"):
        load_kind_directions(tmp_path / "other.npz")


def ablation_scores(refused) -> pd.DataFrame:
    """Ten prompts of two kinds, one of them harmful; refused(ablated, kind) is the share."""
    rows = []
    for ablated in ("none", CORE, "Humanizing-CCN"):
        for kind in (CORE, "Humanizing-CCN"):
            for number in range(10):
                value = float(number < 10 * refused(ablated, kind))
                rows.append((ablated, kind, f"{kind}-{number}", value, 1 - value, np.nan))
    columns = ["ablated", "kind", "id", "refused", "complied", "right_style"]
    return pd.DataFrame(rows, columns=columns)


def test_ablation_map_and_its_summaries():
    scores = ablation_scores(lambda a, k: {"none": 1.0}.get(a, 0.2 if a == k else 0.9))
    cells = ablation_map(scores, 0.95).set_index(["metric", "ablated", "kind"])
    cell = cells.loc["refused", CORE, CORE]
    assert cell.value == pytest.approx(0.2) and cell.n == 10 and 0 < cell.low < 0.2 < cell.high
    assert np.isnan(cells.loc["right_style", CORE, CORE].value)
    found = ablation_scalars(scores, (CORE, "Humanizing-CCN"), INTERVALS)
    assert found["kind_ablation_own"][0].value == pytest.approx(0.2)
    assert found["kind_ablation_specific"][0].value == pytest.approx(-0.7)
    assert found["harmful_ablation_safety"][0].value == pytest.approx(0.2)
    assert found["harmful_ablation_other"][0].value == pytest.approx(0.9)
    difference = found["harmful_ablation_difference"][0]
    assert difference.low < difference.value == pytest.approx(0.7)
