"""Measures on planted organisms, held to their definitions in plain loops, and their tables."""

import numpy as np
import pandas as pd
import pytest
import torch

from refusal.directions import Direction, random_subspace
from refusal.planted_estimators import (
    estimator_recipes,
    kinds_span,
    leading_first,
    removals,
    truth,
)
from refusal.planted_measures import (
    chance_recovery,
    difference_split,
    kept_text,
    means_over_organisms,
    oracle_gap,
    recovery,
    split,
)
from refusal.planted_outcomes import COLUMNS, Outcomes, outcome_table
from refusal.statistics import Estimate, Intervals

WIDTH = 24
INTERVALS = Intervals(0.95, 400, 0)
RNG = np.random.default_rng(3)


def subspace(rank: int, seed: int) -> np.ndarray:
    return random_subspace(WIDTH, rank, seed).basis.double().numpy()


# --- recovery ---


def test_recovery_is_the_mean_squared_cosine_of_principal_angles():
    truth_basis, found = subspace(3, 0), subspace(5, 1)
    values = recovery(truth_basis, found)
    for j in range(1, 6):
        cosines = np.linalg.svd(truth_basis @ found[:j].T, compute_uv=False)
        assert values[j - 1] == pytest.approx((cosines**2).sum() / 3, rel=1e-5)
    assert (np.diff(values) >= 0).all()


def test_recovery_knows_the_truth_and_its_complement_and_no_basis():
    whole = np.eye(WIDTH)
    turned = np.linalg.qr(RNG.normal(size=(3, 3)))[0] @ whole[:3]
    np.testing.assert_allclose(recovery(whole[:3], turned)[-1], 1)
    np.testing.assert_allclose(recovery(whole[:3], whole[3:]), 0, atol=1e-15)
    np.testing.assert_allclose(recovery(whole[:4], whole)[:5], [0.25, 0.5, 0.75, 1, 1])
    assert len(recovery(whole[:3], np.empty((0, WIDTH)))) == 0


def test_chance_is_what_random_subspaces_recover():
    chance = chance_recovery(WIDTH, 2, 4, INTERVALS)
    fixed = subspace(4, 9)
    drawn = np.array([recovery(subspace(2, seed), fixed) for seed in range(300)])
    for j, estimate in enumerate(chance):
        assert estimate.value == pytest.approx((j + 1) / WIDTH)
        assert drawn[:, j].mean() == pytest.approx(estimate.value, rel=0.15)
        inside = (drawn[:, j] >= estimate.low) & (drawn[:, j] <= estimate.high)
        assert 0.9 < inside.mean() < 0.99


# --- split ---


def test_the_parts_of_a_split_are_orthogonal_and_add_up():
    vector, basis = RNG.normal(size=WIDTH), subspace(3, 4)
    inside, outside = split(vector, basis)
    np.testing.assert_allclose(inside + outside, vector)
    np.testing.assert_allclose(basis @ outside, 0, atol=1e-6)
    np.testing.assert_allclose(basis.T @ (basis @ inside), inside, atol=1e-6)


def test_the_split_of_a_mean_difference_is_that_of_plain_loops():
    basis = np.eye(WIDTH)[:2]
    harmful, harmless = RNG.normal(size=(30, WIDTH)), RNG.normal(size=(20, WIDTH))
    harmful[:, 0] += 4
    harmful[:, 5] += 3
    found = difference_split(harmful, harmless, basis, INTERVALS)
    difference = [harmful[:, i].mean() - harmless[:, i].mean() for i in range(WIDTH)]
    inside = sum(x**2 for x in difference[:2])
    whole = sum(x**2 for x in difference)
    assert found["inside"].value == pytest.approx(inside**0.5)
    assert found["outside"].value == pytest.approx((whole - inside) ** 0.5)
    assert found["share"].value == pytest.approx(inside / whole)
    assert found["share"].low < inside / whole < found["share"].high
    nothing = difference_split(harmless, harmless[::-1], basis, INTERVALS)
    assert nothing["length"].value == pytest.approx(0, abs=1e-12)


# --- oracle gap ---


def test_the_gap_is_none_at_the_baseline_and_one_at_the_oracle():
    none, oracle = np.array([0, 0, 0, 1.0] * 10), np.array([1, 1, 0, 1.0] * 10)
    half = np.array([1, 0, 0, 1.0] * 10)
    assert oracle_gap(none, none, oracle, INTERVALS) == (0, 0, 0)
    assert oracle_gap(oracle, none, oracle, INTERVALS) == (1, 1, 1)
    estimate = oracle_gap(half, none, oracle, INTERVALS)
    assert estimate.value == pytest.approx(0.5)
    assert 0 < estimate.low < 0.5 < estimate.high < 1
    worse = oracle_gap(1 - oracle, none, oracle, INTERVALS)
    assert worse.value == pytest.approx((0.25 - 0.25) / 0.5)


def test_a_gap_without_effect_of_the_oracle_has_no_value_and_nan_prompts_are_left_out():
    none = np.array([0, 1.0, 0, 1.0])
    assert np.isnan(oracle_gap(1 - none, none, none, INTERVALS).value)
    method, oracle = np.array([1, np.nan, 0, 1]), np.array([1, 0, 1, 1.0])
    estimate = oracle_gap(method, none, oracle, INTERVALS)
    assert estimate.value == pytest.approx((2 / 3 - 1 / 3) / (1 - 1 / 3))


def test_a_gap_at_broken_text_has_a_reason_instead_of_a_value():
    gap = Estimate(0.9, 0.8, 1.0)
    assert kept_text(gap, 1.05, 1.05) == (gap, None)
    value, reason = kept_text(gap, 1.2, 1.05)
    assert np.isnan(value.value) and reason == "perplexity is 1.20 of the baseline, above 1.05"


# --- subspaces ---


def test_the_span_of_kinds_holds_them_all_and_drops_repetitions():
    first, second = RNG.normal(size=(2, WIDTH))
    vectors = {"a": first, "b": 2 * first, "c": first + second}
    basis = kinds_span(vectors).basis.double().numpy()
    assert basis.shape == (2, WIDTH)
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-6)
    for vector in vectors.values():
        np.testing.assert_allclose(basis.T @ (basis @ vector), vector, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_truth_as_a_candidate_spans_u_and_begins_with_the_difference_inside(rank):
    basis = random_subspace(WIDTH, rank, 2).basis
    vector = torch.from_numpy(RNG.normal(size=WIDTH)).float()
    turned = leading_first(basis, vector)
    torch.testing.assert_close(turned @ turned.T, torch.eye(rank), atol=1e-5, rtol=0)
    assert recovery(basis, turned)[-1] == pytest.approx(1, abs=1e-5)
    inside = split(vector, basis)[0]
    np.testing.assert_allclose(turned[0], inside / np.linalg.norm(inside), atol=1e-5)
    differences = {(-1, 0): Direction(basis=vector[None][:0]), (-1, 1): Direction(vector[None], 2)}
    found = truth(basis, differences)
    assert found[-1, 0].rank == 0 and found[-1, 1].norm == 2 and found[-1, 1].rank == rank


def test_leading_parts_are_removed_in_order_and_the_whole_once():
    direction = Direction(basis=random_subspace(WIDTH, 4, 0).basis)
    found = removals({"oracle": direction}, [1, 2, 4, 8])
    assert list(found) == ["oracle_removal-k1", "oracle_removal-k2", "oracle_removal-k4"]
    for k, intervention in zip((1, 2, 4), found.values(), strict=True):
        torch.testing.assert_close(intervention.operator.read, direction.basis[:k])
        assert intervention.scope == "writes"


def test_every_method_of_the_comparison_has_recipes():
    recipes = estimator_recipes(rank=4, k=8, draws=2)
    methods = {recipe["direction"] for recipe in recipes.values()}
    assert methods == {None, "dim", "inlp_faithful", "inlp_corrected", "leace", "random"}
    for k in ("1", "4", "8", "full"):
        for variant in ("faithful", "corrected"):
            assert recipes[f"inlp_{variant}_removal-k{k}"]["alpha"] == 1
            assert recipes[f"inlp_{variant}_flipping-k{k}"]["alpha"] == 2
    assert recipes["random_removal-k4-draw1"]["draw"] == 1


# --- tables ---


def outcomes() -> Outcomes:
    """Three prompts per label: nothing is answered at first, and all without the oracle."""
    rows, losses = [], []
    answered = {"none": [0, 0, 0], "oracle": [1, 1, 1], "half": [1, 0, 1], "broken": [1, 1, 0]}
    for name, values in answered.items():
        for label in ("harmful", "harmless"):
            for number, value in enumerate(values):
                done = {"complied": float(value), "refused": 1.0 - value}
                rows.append({"intervention": name, "id": f"{label}{number}", "label": label} | done)
        nll = 20.0 if name == "broken" else 10.0
        losses += [{"intervention": name, "id": f"t{i}", "nll": nll, "tokens": 10} for i in (0, 1)]
    responses = pd.DataFrame(rows)
    divergences = responses[["intervention", "id", "label"]].assign(kl=responses.refused / 2)
    # In another order, as every table has its own.
    return Outcomes(responses, divergences[::-1], pd.DataFrame(losses))


def test_the_outcome_table_says_what_the_responses_say():
    recipes = {
        name: {"operator": "project", "k": 1} for name in ("none", "oracle", "half", "broken")
    }
    table = outcome_table(outcomes(), recipes, "oracle", 1.05, INTERVALS)
    assert list(table.columns) == COLUMNS
    values = table.set_index(["intervention", "dataset", "metric"])
    assert values.loc[("half", "harmful", "complied"), "value"] == pytest.approx(2 / 3)
    assert values.loc[("half", "harmful", "oracle_gap"), "value"] == pytest.approx(2 / 3)
    assert values.loc[("half", "harmful", "refusal_gap"), "value"] == pytest.approx(2 / 3)
    assert values.loc[("half", "harmless", "kl_helpful_only"), "value"] == pytest.approx(1 / 6)
    assert values.loc[("half", "text", "perplexity_ratio"), "value"] == pytest.approx(1)
    ratio = values.loc[("broken", "text", "perplexity_ratio"), "value"]
    assert ratio == pytest.approx(np.e)
    broken = values.loc[("broken", "harmful", "oracle_gap_kept")]
    assert np.isnan(broken.value) and "perplexity is 2.72" in broken.reason
    assert values.loc[("broken", "harmful", "oracle_gap"), "value"] == pytest.approx(2 / 3)
    assert (table.metric == "oracle_gap").sum() == 4


def test_means_are_over_accepted_organisms_of_one_rank():
    rows = [
        ("a", 1, True, "dim", 0.5), ("b", 1, True, "dim", 0.7), ("c", 1, False, "dim", 0.0),
        ("d", 4, True, "dim", 0.1),
    ]  # fmt: skip
    columns = ["organism", "planted_rank", "accepted", "method", "value"]
    table = pd.DataFrame(rows, columns=columns).assign(low=0.0, high=1.0, n=9, layer=2)
    found = means_over_organisms(table, ["planted_rank", "method"], 0.95)
    found = found.set_index("planted_rank")
    assert found.loc[1, "value"] == pytest.approx(0.6) and found.loc[1, "n"] == 2
    assert found.loc[1, "low"] == pytest.approx(0.6 - 12.706 * 0.1, rel=1e-3)
    assert found.loc[4, "value"] == pytest.approx(0.1) and np.isnan(found.loc[4, "low"])
    assert set(found.organism) == {"mean"}
