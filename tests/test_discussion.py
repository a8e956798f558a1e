"""The correlation over models, against scipy, and the table that it reads."""

import numpy as np
import pytest
import synthetic_results as synthetic
from scipy import stats

from refusal.discussion import (
    OFFSET_COLUMNS,
    fisher_correlation,
    offset_correlation,
    offset_table,
)
from refusal.statistics import Estimate


@pytest.mark.parametrize("n", [4, 5, 30])
def test_the_correlation_and_its_interval_are_those_of_scipy(n):
    x, y = np.random.default_rng(n).normal(size=(2, n))
    y += x
    expected = stats.pearsonr(x, y)
    value, low, high = fisher_correlation(x, y, 0.9)
    assert np.isclose(value, expected.statistic)
    assert np.allclose((low, high), expected.confidence_interval(0.9))


def test_pairs_with_a_gap_are_left_out():
    x, y = np.random.default_rng(0).normal(size=(2, 7))
    gaps = np.where(np.arange(7) == 2, np.nan, x), np.where(np.arange(7) == 5, np.nan, y)
    kept = [i for i in range(7) if i not in (2, 5)]
    assert fisher_correlation(*gaps) == fisher_correlation(x[kept], y[kept])


@pytest.mark.parametrize(
    ("x", "y"),
    [([1, 2, 3], [1, 3, 2]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([], []), ([np.nan] * 5, range(5))],
)
def test_too_few_or_equal_models_have_no_correlation(x, y):
    assert np.isnan(fisher_correlation(x, y)).all()


def test_a_perfect_correlation_is_itself():
    assert fisher_correlation([1, 2, 3, 4], [8, 6, 4, 2]) == Estimate(-1.0, -1.0, -1.0)


def test_the_offset_table_turns_the_change_into_a_reduction():
    summary = synthetic.summary()
    table = offset_table(summary, "oracle")
    assert list(table.columns) == OFFSET_COLUMNS
    assert table["model"].tolist() == list(synthetic.MODELS)
    rows = summary[(summary["intervention"] == "dim_ablation") & (summary["judge"] == "oracle")]
    rows = rows[rows["metric"] == "refused_change"].set_index("model").loc[list(synthetic.MODELS)]
    assert np.allclose(table["reduction"], -rows["value"])
    assert np.allclose(table["reduction_low"], -rows["high"])
    assert np.allclose(table["reduction_high"], -rows["low"])
    assert (table["offset_low"] < table["offset"]).all()
    assert offset_correlation(table) == fisher_correlation(table["offset"], table["reduction"])


def test_a_study_without_them_has_an_empty_table():
    table = offset_table(synthetic.summary(synthetic.UNMEASURED), "oracle")
    assert table.empty and np.isnan(offset_correlation(table).value)
