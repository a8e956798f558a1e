"""Tables of cross-entropies: what a cell says, and what a study that lacks rows leaves out."""

import math

import pytest
import synthetic_results as synthetic

from refusal.latex import MISSING, number, stacked
from refusal.tables.layout import lookup
from refusal.tables.losses import PUBLISHED, comparator_table, losses_table


@pytest.fixture(scope="module")
def summary():
    return synthetic.summary(synthetic.SUPPORTED)


def cells(table: str) -> dict[str, list[str]]:
    """Cells by the first cell of their row; of equal first cells the last row."""
    rows = (line.removesuffix(r" \\").split(" & ") for line in table.splitlines() if " & " in line)
    return {first: rest for first, *rest in rows}


def test_losses_hold_the_cross_entropy_and_its_change(summary):
    found = cells(losses_table(summary))["DiM ablation (all)"]
    rows = lookup(summary)
    for index, corpus in enumerate(("text", "answers", "own")):
        loss = rows["mean", "dim_ablation", corpus, "cross_entropy", "model"]
        ratio = rows["mean", "dim_ablation", corpus, "perplexity_ratio", "model"]
        assert found[2 * index] == number(loss.value, 3)
        change = found[2 * index + 1]
        assert change.startswith(number(math.log(ratio.value), 3))
        assert number(math.log(ratio.low), 3) in change


def test_every_model_and_the_mean_have_three_rows(summary):
    table = losses_table(summary)
    for heading in (*synthetic.MODELS, "mean over models"):
        assert rf"\textit{{{heading.replace('-', '-{}')}}}" in table
    assert table.count("DiM addition") == len(synthetic.MODELS) + 1
    assert "AlterRep" not in table


def test_the_only_model_is_no_mean():
    table = losses_table(synthetic.summary(synthetic.ONE_MODEL))
    assert "mean over models" not in table and table.count("No intervention") == 1


def test_comparator_sets_fine_tuning_beside_interventions_and_the_published_rows(summary):
    table = comparator_table(summary)
    measured, published = table.split("As published")
    assert [measured.count(name) for name in ("DiM ablation (all)", "Fine", "INLP flipping")] == [
        1,
        1,
        1,
    ]
    refused = lookup(summary)["mean", "fine_tuning", "harmful", "refused", "oracle"]
    assert cells(measured)["Fine-{}tuning"][0] == stacked(refused)[0]
    assert cells(published)["Fine-{}tuning"] == [
        r"\num{0.00}",
        MISSING,
        *(r"\num{2.382}", r"\num{0.034}", r"\num{1.626}", r"\num{-0.286}"),
        *(r"\num{0.273}", r"\num{0.078}"),
    ]
    assert len(cells(published)) == len(PUBLISHED)


def test_what_a_study_lacks_is_left_out(summary):
    lacking = summary[~summary.intervention.isin(["fine_tuning", "dim_addition-strength-1.0"])]
    measured = comparator_table(lacking).split("As published")[0]
    assert "Fine" not in measured and "addition" not in measured
    assert losses_table(lacking).count("addition") == 0
