"""Difference in means, LEACE, random directions, filtering and the file of directions."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from concept_erasure import LeaceFitter

from refusal.directions import (
    Direction,
    Means,
    class_means,
    difference_in_means,
    filter_by_refusal_metric,
    leace,
    load_directions,
    load_means,
    orthonormal_read,
    random_subspace,
    save_directions,
    save_means,
)
from refusal.errors import InputError

WIDTH = 24


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def two_classes(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Two Gaussian classes, float32 [n, WIDTH], with different means away from the origin."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(3, 0.3, WIDTH)
    noise = torch.randn(2, n, WIDTH, generator=generator) * scale
    offset = torch.randn(WIDTH, generator=generator)
    return noise[0] + 5 + offset, noise[1] + 5 - offset


def index_of(metrics: dict[str, list[float]]) -> pd.DataFrame:
    """Activation index with these refusal metrics per label, all in split train."""
    rows = [(label, metric) for label, values in metrics.items() for metric in values]
    index = pd.DataFrame(rows, columns=["label", "refusal_metric"])
    return index.assign(row=range(len(index)), split="train")


# --- means ------------------------------------------------------------------------------------


def test_class_means_equal_float64_means_of_the_rows():
    activations = torch.randn(9, 2, 3, WIDTH) * 1e3
    rows = np.array([0, 4, 8])
    expected = activations[rows].numpy().astype(np.float64).mean(axis=0)
    torch.testing.assert_close(class_means(activations, rows), torch.from_numpy(expected))


def test_class_means_of_nan_activations_are_an_input_error():
    activations = torch.zeros(3, 1, 1, WIDTH)
    activations[1, 0, 0, 5] = math.nan
    with pytest.raises(InputError, match="NaN"):
        class_means(activations, np.array([0, 1]))


def test_difference_in_means_is_a_unit_vector_with_its_length():
    harmful, harmless = (x.double().mean(0) for x in two_classes())
    direction = difference_in_means(harmful, harmless)
    assert direction.basis.shape == (1, WIDTH) and direction.basis.dtype == torch.float32
    assert direction.norm == pytest.approx(float((harmful - harmless).norm()), rel=1e-12)
    rebuilt = direction.basis[0].double() * direction.norm
    torch.testing.assert_close(rebuilt, harmful - harmless, rtol=0, atol=1e-6)
    assert direction.accuracies.isnan().all() and len(direction.accuracies) == 1


def test_equal_means_give_a_direction_of_rank_zero():
    # Layer 0: the same token ends every prompt. Class sizes differ, so the sums round differently.
    activations = torch.randn(1, 1, 1, WIDTH).repeat(30, 1, 1, 1)
    means = class_means(activations, np.arange(13)), class_means(activations, np.arange(13, 30))
    direction = difference_in_means(means[0][0, 0], means[1][0, 0])
    assert direction.rank == 0 and direction.norm == 0.0
    assert direction.basis.shape == (0, WIDTH)


# --- LEACE ------------------------------------------------------------------------------------


def erase(direction: Direction, points: torch.Tensor) -> torch.Tensor:
    """The oblique operator h - ((h - origin) basis^T) write, in float64."""
    basis, write = direction.basis.double(), direction.write.double()
    return points - (points - direction.origin.double()) @ basis.T @ write


def test_leace_equals_the_eraser_of_the_package():
    harmful, harmless = two_classes()
    samples = torch.cat([harmful, harmless]).double()
    labels = torch.cat([torch.ones(60), torch.zeros(60)]).double()
    eraser = LeaceFitter.fit(samples, labels).eraser

    direction = leace(harmful, harmless)
    fresh = torch.randn(20, WIDTH, dtype=torch.float64) * 4
    error = erase(direction, fresh) - eraser(fresh)
    assert error.norm() < 1e-6 * fresh.norm()
    assert (eraser(fresh) - fresh).norm() > 0.05 * fresh.norm()  # it does something
    assert direction.basis.norm() == pytest.approx(1, abs=1e-6)


def test_an_eraser_of_d_columns_is_stored_at_its_true_rank():
    # What the package returns where it blends in an orthogonal projection: factors of a full SVD.
    matrix = torch.randn(WIDTH, 2).double() @ torch.randn(2, WIDTH).double()
    u, s, vh = torch.linalg.svd(matrix)
    read, write = orthonormal_read(u * s.sqrt(), s.sqrt().unsqueeze(1) * vh)
    assert read.shape == write.shape == (2, WIDTH)
    torch.testing.assert_close(write.T @ read, matrix)
    torch.testing.assert_close(read @ read.T, torch.eye(2).double())


def test_leace_makes_the_class_means_equal():
    harmful, harmless = (x.double() for x in two_classes(n=4000))
    direction = leace(harmful, harmless)
    assert direction.rank == 1
    gap = (erase(direction, harmful).mean(0) - erase(direction, harmless).mean(0)).norm()
    assert gap < 0.02 * (harmful.mean(0) - harmless.mean(0)).norm()


def test_leace_of_one_repeated_point_has_rank_zero():
    point = torch.randn(1, WIDTH)
    assert leace(point.repeat(8, 1), point.repeat(8, 1)).rank == 0


# --- random directions ------------------------------------------------------------------------


def test_random_subspace_is_orthonormal_seeded_and_nested():
    direction = random_subspace(WIDTH, 6, seed=3)
    gram = direction.basis @ direction.basis.T
    torch.testing.assert_close(gram, torch.eye(6), rtol=0, atol=1e-6)
    assert torch.equal(direction.basis, random_subspace(WIDTH, 6, seed=3).basis)
    assert not torch.allclose(direction.basis, random_subspace(WIDTH, 6, seed=4).basis)
    assert random_subspace(WIDTH, WIDTH, seed=3).rank == WIDTH


def test_random_directions_are_isotropic():
    firsts = torch.stack([random_subspace(3, 1, seed).basis[0] for seed in range(600)]).double()
    assert firsts.mean(0).norm() < 0.15
    torch.testing.assert_close(
        firsts.T @ firsts / 600, torch.eye(3).double() / 3, rtol=0, atol=0.07
    )


def test_more_random_directions_than_dimensions_are_an_input_error():
    with pytest.raises(InputError, match="width"):
        random_subspace(4, 5, seed=0)


# --- filtering --------------------------------------------------------------------------------


def test_filter_keeps_prompts_whose_metric_agrees_with_the_label():
    index = index_of({"harmful": [2.0, -1.0, 0.0, 3.0], "harmless": [-2.0, 1.0, math.nan, -0.5]})
    harmful, harmless = filter_by_refusal_metric(index, "train", model="m")
    assert harmful.tolist() == [0, 3] and harmless.tolist() == [4, 7]
    harmful, harmless = filter_by_refusal_metric(index, "train", model="m", enabled=False)
    assert harmful.tolist() == [0, 1, 2, 3] and harmless.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("label", ["harmful", "harmless"])
def test_class_left_empty_names_model_class_and_remedy(label):
    metrics = {"harmful": [1.0, 2.0], "harmless": [-1.0, -2.0]}
    metrics[label] = [-value for value in metrics[label]]
    with pytest.raises(InputError) as error:
        filter_by_refusal_metric(index_of(metrics), "train", model="neox-0")
    for part in ("neox-0", f"class {label} empty", "directions.filter: false"):
        assert part in str(error.value)


def test_missing_class_is_an_input_error_even_without_filter():
    index = index_of({"harmful": [1.0]})
    with pytest.raises(InputError, match="no harmless prompt in split train"):
        filter_by_refusal_metric(index, "train", model="m", enabled=False)


# --- files ------------------------------------------------------------------------------------


def test_directions_survive_their_file_and_the_file_is_reproducible(tmp_path):
    harmful, harmless = two_classes()
    directions = {
        (-1, 10): difference_in_means(harmful.double().mean(0), harmless.double().mean(0)),
        (-2, 3): leace(harmful, harmless),
        (-5, 0): difference_in_means(harmless.mean(0), harmless.mean(0)),
    }
    save_directions(tmp_path / "a.npz", directions)
    save_directions(tmp_path / "b.npz", dict(reversed(directions.items())))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    loaded = load_directions(tmp_path / "a.npz")
    assert loaded.keys() == directions.keys()
    for candidate, direction in directions.items():
        for name, value in vars(direction).items():
            other = getattr(loaded[candidate], name)
            if isinstance(value, torch.Tensor):
                assert torch.equal(value.nan_to_num(-1), other.nan_to_num(-1))
                assert value.dtype == other.dtype
            else:
                assert other == value or (math.isnan(other) and math.isnan(value))


def test_a_direction_with_nan_is_neither_written_nor_read(tmp_path):
    broken = Direction(basis=torch.full((1, 4), math.nan))
    with pytest.raises(InputError, match="NaN"):
        save_directions(tmp_path / "x.npz", {(-1, 0): broken})
    np.savez(
        tmp_path / "x.npz",
        **{"position-1_layer0_basis": broken.basis.numpy(), "position-1_layer0_norm": 1.0},
    )
    with pytest.raises(InputError, match="x.npz"):
        load_directions(tmp_path / "x.npz")


def test_means_survive_their_file(tmp_path):
    means = Means(torch.randn(2, 3, WIDTH).double(), torch.randn(2, 3, WIDTH).double(), 7, 9)
    save_means(tmp_path / "means.npz", means)
    loaded = load_means(tmp_path / "means.npz")
    assert torch.equal(loaded.harmful, means.harmful)
    assert torch.equal(loaded.harmless, means.harmless)
    assert (loaded.n_harmful, loaded.n_harmless) == (7, 9)
