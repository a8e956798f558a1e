"""Landing positions, cosines, angles and projections against algebra done by hand."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from refusal.errors import InputError
from refusal.geometry import (
    ANGLE_COLUMNS,
    COSINE_COLUMNS,
    LANDING_COLUMNS,
    PROJECTION_COLUMNS,
    ClassMeans,
    chance_angles,
    cosines,
    landing,
    landing_summary,
    nearest_centroid,
    position_along_dim,
    principal_angles,
    principal_plane,
    projection_summary,
    projections,
    subspace_table,
)
from refusal.off_distribution import Distribution, Spread
from refusal.statistics import SUMMARY_COLUMNS, Intervals, wilson_interval

N, POSITIONS, LAYERS, WIDTH = 60, 2, 3, 8
INTERVALS = Intervals(resamples=300, seed=1)


@dataclass
class Steering:
    recipe: dict
    operator: object = field(repr=False)


def recipe(name, scope="source", position=-1, layer=2, **values):
    base = {
        "name": name,
        "family": name,
        "direction": "dim",
        "operator": "project",
        "k": 1,
        "rank": 1,
        "alpha": 1.0,
        "strength": None,
        "origin": "zero",
        "side": None,
        "draw": None,
    }
    return base | {"scope": scope, "position": position, "layer": layer} | values


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    labels = np.array(["harmful", "harmless", "borderline"])[np.arange(N) % 3]
    residual = generator.normal(size=(N, POSITIONS, LAYERS, WIDTH)) + 2.0
    residual[labels == "harmful", :, 1:] += 3 * generator.normal(size=WIDTH)
    split = np.where(np.arange(N) < 12, "train", "test")
    index = pd.DataFrame(
        {
            "row": range(N),
            "id": [f"p{i}" for i in range(N)],
            "label": labels,
            "kind": "safety",
            "split": split,
        }
    )
    harmful, harmless = (residual[labels == label].mean(0) for label in ("harmful", "harmless"))
    # As at layer 0 of a real model, where every prompt has the same token and so the same mean.
    harmful[:, 0] = harmless[:, 0]
    means = SimpleNamespace(harmful=torch.as_tensor(harmful), harmless=torch.as_tensor(harmless))
    return torch.as_tensor(residual, dtype=torch.float32), index, means


def unit_dim(means, candidate):
    difference = (means.harmful[candidate] - means.harmless[candidate]).numpy()
    return difference / np.linalg.norm(difference)


def project(unit, alpha):
    v = torch.as_tensor(unit, dtype=torch.float32)
    return lambda h: h - alpha * (h @ v)[:, None] * v


def interventions(means):
    at, other = (-1, 2), (-2, 1)
    return {
        "none": Steering(recipe("none", scope="source", operator="none", k=None), lambda h: h),
        "ablation": Steering(recipe("ablation"), project(unit_dim(means, at), 1)),
        "reflection": Steering(recipe("reflection", alpha=2.0), project(unit_dim(means, at), 2)),
        "elsewhere": Steering(
            recipe("elsewhere", position=-2, layer=1), project(unit_dim(means, other), 1)
        ),
        "everywhere": Steering(recipe("everywhere", scope="all"), lambda h: 1 / 0),
    }


@pytest.fixture(scope="module")
def table(data):
    return landing("neox-0", *data, interventions(data[2]))


def test_position_is_zero_and_one_at_the_means(data):
    at = ClassMeans.at(data[2], (-1, 2))
    middle = (at.harmful + at.harmless) / 2
    t = position_along_dim(np.stack([at.harmless, at.harmful, middle]), at)
    assert np.allclose(t, [0, 1, 0.5])


def test_position_equals_its_definition(data):
    residual, _, means = data
    at, unit = ClassMeans.at(means, (-1, 2)), unit_dim(means, (-1, 2))
    for h in residual[:5, -1, 2].numpy().astype(float):
        low, high = at.harmless @ unit, at.harmful @ unit
        assert np.isclose(position_along_dim(h[None], at)[0], (h @ unit - low) / (high - low))


def test_position_is_nan_where_the_means_coincide(data):
    assert np.isnan(position_along_dim(np.ones((1, WIDTH)), ClassMeans.at(data[2], (-1, 0)))).all()


def test_nearest_uses_the_full_distance():
    means = ClassMeans(np.array([2.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.0]))
    h = np.array([[0.9, 5.0, 5.0], [1.1, 5.0, -5.0], [1.0, 0.0, 0.0]])
    assert nearest_centroid(h, means).tolist() == ["harmless", "harmful", "harmless"]


def test_plane_equals_scikit_learn_up_to_sign_and_is_oriented(data):
    h = data[0][:, -1, 2].numpy().astype(float)
    harmful = (data[1]["label"] == "harmful").to_numpy()
    plane = principal_plane(h, harmful)
    expected = PCA(2).fit_transform(h)
    coordinates = plane.coordinates(h)
    assert np.allclose(np.abs(coordinates), np.abs(expected))
    assert coordinates[harmful, 0].mean() > coordinates[~harmful, 0].mean()
    mirrored = principal_plane(h[::-1], harmful[::-1])
    assert np.allclose(mirrored.axes, plane.axes)


def test_plane_needs_two_rows():
    with pytest.raises(InputError, match="prompts.sizes.test"):
        principal_plane(np.ones((1, 4)), np.array([True]))


def test_landing_schema_and_scopes(table, data):
    assert list(table.columns) == LANDING_COLUMNS
    assert set(table["intervention"]) == {"none", "ablation", "reflection", "elsewhere"}
    test_ids = set(data[1].loc[data[1]["split"] == "test", "id"])
    assert all(set(rows["id"]) == test_ids for _, rows in table.groupby("intervention"))
    none = table[table["intervention"] == "none"]
    assert set(zip(none["position"], none["layer"], strict=True)) == {(-1, 2), (-2, 1)}


def test_landing_of_ablation_and_reflection_follows_from_algebra(table, data):
    means = data[2]
    at, unit = ClassMeans.at(means, (-1, 2)), unit_dim(means, (-1, 2))
    low, span = at.harmless @ unit, (at.harmful - at.harmless) @ unit
    t = {
        name: rows.set_index("id")["position_along_dim"]
        for name, rows in table[table["layer"] == 2].groupby("intervention")
    }
    assert np.allclose(t["ablation"], -low / span, atol=1e-5)  # z becomes 0 for every prompt
    assert np.allclose(t["reflection"] + t["none"], -2 * low / span, atol=1e-5)  # z changes sign


def test_landing_uses_each_interventions_own_candidate(table, data):
    residual, index, means = data
    rows = np.flatnonzero(index["split"] == "test")
    expected = position_along_dim(residual[rows, -2, 1].numpy(), ClassMeans.at(means, (-2, 1)))
    at = (table["intervention"] == "none") & (table["position"] == -2)
    assert np.allclose(table.loc[at, "position_along_dim"], expected)


def test_landing_shares_one_plane_fitted_without_borderline(table, data):
    residual, index, _ = data
    fit = (index["split"] == "test") & index["label"].isin(["harmful", "harmless"])
    pca = PCA(2).fit(residual[np.flatnonzero(fit), -1, 2].numpy().astype(float))
    rows = np.flatnonzero(index["split"] == "test")
    expected = pca.transform(residual[rows, -1, 2].numpy().astype(float))
    at = (table["intervention"] == "none") & (table["layer"] == 2)
    assert np.allclose(np.abs(table.loc[at, ["pc1", "pc2"]]), np.abs(expected), atol=1e-5)


def test_landing_without_a_candidate_is_an_input_error(data):
    broken = {"x": Steering(recipe("x", position=None), lambda h: h)}
    with pytest.raises(InputError, match="interventions.x"):
        landing("m", *data, broken)


def test_a_fine_tuning_lands_nowhere(data):
    residual, index, means = data
    tuned = recipe("tuned", position=None, layer=None, direction=None, operator="fine_tune")
    others = interventions(means)
    everything = others | {"tuned": Steering(tuned, lambda h: h)}
    both = [landing("m", residual, index, means, given) for given in (others, everything)]
    pd.testing.assert_frame_equal(*both)


def test_landing_of_nothing_is_an_empty_table(data):
    assert list(landing("m", *data, {}).columns) == LANDING_COLUMNS


def test_landing_summary(table, data):
    recipes = {name: item.recipe for name, item in interventions(data[2]).items()}
    rows = landing_summary("organisms", "neox-0", table, recipes, INTERVALS)
    assert list(rows.columns) == SUMMARY_COLUMNS and set(rows["judge"]) == {"geometry"}
    assert "none" not in set(rows["intervention"])
    pick = (table["intervention"] == "reflection") & (table["label"] == "harmful")
    row = rows.query("intervention == 'reflection' and dataset == 'harmful'").set_index("metric")
    t = table.loc[pick, "position_along_dim"]
    assert np.isclose(row.loc["landing_t", "value"], t.mean())
    assert row.loc["landing_t", "low"] < t.mean() < row.loc["landing_t", "high"]
    near = (table.loc[pick, "nearest"] == "harmless").sum()
    assert row.loc["nearest_harmless", "value"] == near / pick.sum()
    assert np.allclose(
        row.loc["nearest_harmless", ["low", "high"]].astype(float),
        wilson_interval(near, pick.sum()),
    )
    assert row.loc["landing_t", "alpha"] == 2 and row.loc["landing_t", "n"] == pick.sum()


def test_landing_summary_where_the_means_coincide_is_nan_with_reason(data):
    at_zero = {"x": Steering(recipe("x", layer=0), lambda h: h)}
    rows = landing_summary("s", "m", landing("m", *data, at_zero), {"x": recipe("x")}, INTERVALS)
    t = rows[rows["metric"] == "landing_t"]
    assert len(t) == 3 and t["value"].isna().all() and t["reason"].str.contains("coincide").all()


def basis(k, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, k)))[0].T


def test_cosines_and_energy_share():
    unit = basis(1, seed=3)
    full = SimpleNamespace(basis=basis(WIDTH).astype(np.float32), accuracies=np.full(WIDTH, 0.9))
    dim = {(-1, 2): SimpleNamespace(basis=unit, accuracies=[np.nan])}
    rows = cosines("m", "inlp_faithful", dim, {(-1, 2): full, (-1, 1): full})
    assert list(rows.columns) == COSINE_COLUMNS and len(rows) == WIDTH
    assert np.allclose(rows["cosine"], full.basis @ unit[0], atol=1e-6)
    assert rows["energy_share"].is_monotonic_increasing
    assert np.isclose(rows["energy_share"].iloc[-1], 1, atol=1e-5)  # a full basis holds all of DiM


def test_cosines_of_an_empty_dim_are_nan():
    dim = {(-1, 0): SimpleNamespace(basis=np.zeros((0, WIDTH)), accuracies=[])}
    rows = cosines("m", "inlp", dim, {(-1, 0): SimpleNamespace(basis=basis(2), accuracies=[1, 1])})
    assert rows["cosine"].isna().all() and rows["energy_share"].isna().all()


def test_principal_angles_known_and_invariant():
    axes = np.eye(4)
    tilted = np.stack([axes[0], np.cos(0.3) * axes[1] + np.sin(0.3) * axes[2]])
    assert np.allclose(principal_angles(axes[:2], tilted), [0, np.degrees(0.3)], atol=1e-6)
    rotation = np.array([[0.6, 0.8], [-0.8, 0.6]])
    assert np.allclose(
        principal_angles(rotation @ axes[:2], tilted), [0, np.degrees(0.3)], atol=1e-6
    )


def test_chance_angles_equal_plain_sampling():
    plain = np.mean([principal_angles(basis(2, 2 * s), basis(2, 2 * s + 1)) for s in range(400)], 0)
    assert np.allclose(chance_angles(WIDTH, 2, draws=400), plain, atol=2.5)
    assert chance_angles(WIDTH, 2) == chance_angles(WIDTH, 2)
    assert np.allclose(chance_angles(4, 4), 0, atol=1e-4)  # two full spaces coincide


def test_subspace_table():
    spaces = {
        ("a", 1): basis(4, 0),
        ("a", 2): basis(2, 1),
        ("b", 1): basis(4, 0),
        ("wide", 1): np.eye(12)[:4],
    }
    rows = subspace_table("inlp_faithful", spaces, [1, 2, 4], draws=20)
    assert list(rows.columns) == ANGLE_COLUMNS
    assert not (rows["other_model"] == "wide").any()
    same = rows.query("model == 'a' and other_model == 'b' and layer == 1 and k == 4")
    assert same["angle_index"].tolist() == [1, 2, 3, 4]
    assert np.allclose(same["angle_degrees"], 0, atol=1e-4)
    across = rows.query("model == 'a' and other_model == 'a'")
    assert set(across["k"]) == {1, 2}  # layer 2 has rank 2 only
    assert (rows["chance_degrees"] > 0).all()


def test_projections_and_their_ratio(data):
    residual, index, means = data
    candidate = (-1, 2)
    direction = SimpleNamespace(basis=unit_dim(means, candidate)[None], accuracies=[np.nan])
    rows = projections("m", residual, index, direction, candidate)
    assert list(rows.columns) == PROJECTION_COLUMNS and len(rows) == 48
    expected = residual[20, -1, 2].numpy().astype(float) @ direction.basis[0]
    assert np.isclose(rows.set_index("id").loc["p20", "projection"], expected)
    recipes = {"none": recipe("none")}
    summary = projection_summary("s", "m", rows, recipes, INTERVALS)
    mean = rows.groupby("label")["projection"].mean()
    row = summary.iloc[0]
    assert row["metric"] == "projection_ratio" and row["dataset"] == "harmless"
    assert np.isclose(row["value"], mean["harmless"] / mean["harmful"]) and row["n"] == 32
    assert row["low"] < row["value"] < row["high"]


def test_the_classes_of_the_projection_ratio_are_resampled_independently():
    z = np.random.default_rng(5).uniform(1, 3, size=50)
    table = pd.DataFrame(
        {"label": ["harmless"] * 50 + ["harmful"] * 50, "projection": np.concatenate([z, z])}
    )
    row = projection_summary("s", "m", table, {"none": recipe("none")}, INTERVALS).iloc[0]
    # Resampled in step, the two equal classes would give a ratio of exactly 1 every time.
    assert row["value"] == 1 and row["low"] < 0.97 and row["high"] > 1.03


def test_projection_ratio_without_a_class_is_nan_with_reason(data):
    table = pd.DataFrame({"label": ["harmless"], "projection": [1.0]})
    row = projection_summary("s", "m", table, {"none": recipe("none")}, INTERVALS).iloc[0]
    assert np.isnan(row["value"]) and "no harmful" in row["reason"]


# --- off the distribution ---


@pytest.mark.parametrize("n", [5, 200])  # fewer and more rows than dimensions
def test_distances_are_those_of_the_shrunk_covariance(n):
    generator = np.random.default_rng(n)
    rows = generator.normal(size=(n, WIDTH)) * np.linspace(0.2, 3, WIDTH)
    rows -= rows.mean(0)
    precision = np.linalg.inv(LedoitWolf(assume_centered=True).fit(rows).covariance_)
    h, mean = generator.normal(size=(20, WIDTH)) * 4, generator.normal(size=WIDTH)
    expected = [np.sqrt((x - mean) @ precision @ (x - mean)) for x in h]
    assert np.allclose(Spread.fit(rows).distances(h, mean), expected)


def test_without_any_spread_there_is_no_distance():
    assert np.isnan(Spread.fit(np.zeros((4, 3))).distances(np.ones((2, 3)), np.zeros(3))).all()


@pytest.fixture(scope="module")
def unsteered():
    """Two classes far apart along axis 0, wide along axis 1 and narrow along the others."""
    generator = np.random.default_rng(0)
    scale = np.array([1.0, 10.0, 0.1, 0.1])
    means = np.array([[8.0, 0, 0, 0], [-8.0, 0, 0, 0]])
    splits = [[generator.normal(size=(400, 4)) * scale + mean for mean in means] for _ in range(2)]
    return Distribution.fit(means, *splits), splits[1]


def test_unsteered_prompts_are_at_distance_one_and_inside(unsteered):
    distribution, test = unsteered
    for h in test:
        assert np.isclose(distribution.relative_distance(h).mean(), 1, atol=1e-6)
        assert distribution.outside(h).mean() == pytest.approx(0.05, abs=0.001)


def test_off_is_judged_in_the_spread_of_each_axis(unsteered):
    distribution, (harmful, harmless) = unsteered
    step = np.eye(4) * 5
    assert distribution.outside(harmless + step[2]).all()  # hardly varies there
    assert distribution.outside(harmless + step[1]).mean() < 0.15  # varies more than the step
    across = np.array([-16.0, 0, 0, 0])
    assert distribution.outside(harmful + across).mean() < 0.1  # onto the other class
    assert distribution.outside(harmless + across).all()  # off both
    assert (distribution.relative_distance(harmless + across) > 3).all()


def test_off_needs_to_be_far_from_both_classes(unsteered):
    distribution, (harmful, _) = unsteered
    distances = distribution.distances(harmful)
    assert (distances[:, 1] > distribution.radius[1]).all()  # all are far from the other class
    inside = distances[:, 0] <= distribution.radius[0]
    assert np.array_equal(distribution.outside(harmful), ~inside)


def test_landing_measures_the_distance_at_each_interventions_own_candidate(table, data):
    residual, index, means = data
    at = ClassMeans.at(means, (-2, 1))
    splits = [
        [
            residual[
                np.flatnonzero((index["split"] == s) & (index["label"] == name)), -2, 1
            ].numpy()
            for name in ("harmful", "harmless")
        ]
        for s in ("train", "test")
    ]
    expected = Distribution.fit(np.stack(at), *splits)
    rows = table[(table["intervention"] == "none") & (table["position"] == -2)]
    h = residual.numpy()[index.set_index("id").loc[rows["id"], "row"], -2, 1]
    assert np.allclose(rows["distance"], expected.relative_distance(h))
    assert np.array_equal(rows["outside"], expected.outside(h))


def test_what_is_off_is_summarised_with_intervals(table):
    recipes = {name: recipe(name) for name in ("ablation", "reflection", "elsewhere", "none")}
    summary = landing_summary("s", "m", table, recipes, INTERVALS)
    rows = table[(table["intervention"] == "reflection") & (table["label"] == "harmless")]
    here = summary[(summary["intervention"] == "reflection") & (summary["dataset"] == "harmless")]
    at = here.set_index("metric")
    assert np.isclose(at.loc["off_distribution", "value"], rows["distance"].mean())
    assert at.loc["off_distribution", "low"] < at.loc["off_distribution", "high"]
    hits = int(rows["outside"].sum())
    assert np.isclose(at.loc["outside", "value"], hits / len(rows))
    bounds = wilson_interval(hits, len(rows), INTERVALS.confidence)
    assert np.allclose(at.loc["outside", ["low", "high"]].astype(float), bounds)
