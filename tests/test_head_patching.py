"""Patched heads: the cache is exact, the ends of the curve are known, orders are fixed."""

import numpy as np
import pytest
import torch
from conftest import tiny_model

from refusal.activations import last_position_logits
from refusal.errors import InputError
from refusal.head_patching import (
    CURVE_COLUMNS,
    assign_donors,
    curve_frame,
    curve_sizes,
    effects,
    head_orders,
    heads_for_half,
    patched_metrics,
    patching_summary,
    single_head_sets,
    size_of,
)
from refusal.heads import all_heads, attention_blocks, patching, read_token
from refusal.models import encode_prompts, refusal_metric
from refusal.statistics import SUMMARY_COLUMNS, Intervals, wilson_interval

TOKENS = [11, 12]
HARMLESS = ["Say a word", "Tell me how to bake bread for ten people", "What is that thing?"]
HARMFUL = ["Break it", "Sing a song about a bird that sits on a tree", "Cut the rope, now!"]
INTERVALS = Intervals(resamples=300)


def prompts(texts):
    return encode_prompts(tiny_model("llama")[1], texts)


def outputs(model, blocks, texts, position=-1):
    return read_token(model, blocks, prompts(texts), max_tokens=80, position=position).outputs


def metric(logits):
    return refusal_metric(logits, TOKENS).numpy()


@pytest.mark.parametrize("position", [-1, -3])
def test_cached_passes_equal_whole_ones(architecture, position):
    """Prompt by prompt, without cache and padding; some outgrow the sliding windows."""
    model, _ = tiny_model(architecture)
    blocks = attention_blocks(model)
    donors = outputs(model, blocks, HARMFUL, position)
    sets = [[], [(0, 1)], [(0, 1), (2, 3), (1, 0)], all_heads(blocks), [(0, 1)]]
    options = {"max_tokens": 1000, "position": position}
    found = patched_metrics(model, blocks, prompts(HARMLESS), donors, sets, TOKENS, **options)
    for row, sequence in enumerate(prompts(HARMLESS)):
        own = [of_layer[row : row + 1] for of_layer in donors]
        for index, heads in enumerate(sets):
            with patching(blocks, heads, own, position):
                whole = metric(last_position_logits(model, [sequence], max_tokens=1))
            assert np.allclose(found[index, row], whole[0], atol=2e-4)
    assert np.array_equal(found[1], found[4])  # a pass leaves the cache as it was
    assert np.abs(found[1] - found[0]).max() > 1e-3


def test_all_heads_give_the_donors_answer_and_batches_do_not_matter(architecture):
    model, _ = tiny_model(architecture)
    blocks = attention_blocks(model)
    donors = outputs(model, blocks, HARMFUL)
    args = (model, blocks, prompts(HARMLESS), donors, [[], all_heads(blocks)], TOKENS)
    together, alone = (patched_metrics(*args, max_tokens=most) for most in (1000, 1))
    assert np.allclose(together, alone, atol=2e-4)
    expected = metric(last_position_logits(model, prompts(HARMFUL), max_tokens=1000))
    assert np.allclose(together[1], expected, atol=2e-4)
    unpatched = metric(last_position_logits(model, prompts(HARMLESS), max_tokens=1000))
    assert np.allclose(together[0], unpatched, atol=2e-4)


def test_a_position_before_the_prompt_is_one_clear_error():
    model, _ = tiny_model("llama")
    blocks = attention_blocks(model)
    donors = [torch.zeros(1, 32)] * 3
    with pytest.raises(InputError, match="heads.position: -99.*Remedy"):
        patched_metrics(
            model, blocks, prompts(["Go."]), donors, [[]], TOKENS, max_tokens=9, position=-99
        )


def test_donors_are_all_used_before_one_comes_again():
    chosen = assign_donors(7, 3, seed=5)
    assert sorted(chosen[:3]) == sorted(chosen[3:6]) == [0, 1, 2] and chosen[6] == chosen[0]
    assert np.array_equal(chosen, assign_donors(7, 3, seed=5))
    assert sorted(assign_donors(2, 9, seed=5)) != [0, 1]


def test_effects_are_mean_changes_in_the_order_of_the_sets():
    blocks = attention_blocks(tiny_model("llama")[0])
    sets = single_head_sets(blocks)
    assert sets[0] == [] and sets[1:] == [[head] for head in all_heads(blocks)]
    metrics = np.array([[1.0, 2.0], [3.0, 2.0], [1.0, 0.0]])
    assert effects(metrics).tolist() == [1.0, -1.0]


def test_orders_hold_every_head_once_and_are_seeded():
    heads = [(layer, head) for layer in range(3) for head in range(4)]
    effect = np.arange(12.0) % 5
    orders = head_orders(heads, effect, draws=3, seed=1)
    assert list(orders) == [("ranked", 0), ("random", 0), ("random", 1), ("random", 2)]
    assert all(sorted(order) == heads for order in orders.values())
    ranked = [effect[heads.index(head)] for head in orders["ranked", 0]]
    assert ranked == sorted(ranked, reverse=True)
    assert orders == head_orders(heads, effect, draws=3, seed=1)
    assert orders["random", 0] != orders["random", 1]
    assert orders["random", 0] != head_orders(heads, effect, draws=1, seed=2)["random", 0]


def test_sizes_of_the_curve():
    assert curve_sizes(16, 33) == list(range(17))
    many = curve_sizes(1024, 33)
    assert many[:4] == [0, 1, 2, 3] and many[-1] == 1024 and len(many) <= 33 + 3
    assert {128, 256, 512} <= set(many) and many == sorted(set(many))
    assert [size_of(part, 2) for part in ("none", "eighth", "half")] == [0, 1, 1]
    assert all(size_of(part, 5) in curve_sizes(5, 2) for part in ("none", "eighth", "half"))


def test_heads_for_half():
    refused = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=float)
    sizes = [0, 1, 2, 8]
    fewest = heads_for_half(sizes, refused, INTERVALS)
    assert fewest.value == 2 and fewest.low == 1 and fewest.high == 8
    assert np.isnan(heads_for_half(sizes, 0 * refused, INTERVALS)).all()


@pytest.fixture
def curves():
    """Metrics of four sizes of 20 prompts: the ranked order reaches most prompts sooner."""
    generator = np.random.default_rng(0)
    shift = np.array([-3.0, -0.5, 1.0, 3.0])[:, None]
    metrics = {("ranked", 0): generator.normal(size=(4, 20)) + shift}
    for draw in range(2):
        metrics["random", draw] = generator.normal(size=(4, 20)) + shift - [[0], [1], [1], [0]]
    return metrics


def test_curve_frame(curves):
    heads = [(0, 0), (0, 1), (1, 0)]
    orders = {key: heads[::-1] if key[0] == "ranked" else heads for key in curves}
    frame = curve_frame("m", orders, range(4), curves, INTERVALS)
    assert list(frame.columns) == CURVE_COLUMNS and len(frame) == 3 * 2 * 4
    part = frame[(frame.order == "ranked") & (frame.metric == "first_token_refused")]
    refused = (curves["ranked", 0] > 0).sum(1)
    assert part["head"].tolist() == ["", "1.0", "0.1", "0.0"]
    assert np.allclose(part["value"], refused / 20) and (part["n"] == 20).all()
    assert np.allclose(part[["low", "high"]].T, wilson_interval(refused, 20))
    means = frame[
        (frame.order == "random") & (frame.draw == 1) & (frame.metric == "refusal_metric")
    ]
    assert np.allclose(means["value"], curves["random", 1].mean(1))
    assert (means["low"] < means["value"]).all() and (means["value"] < means["high"]).all()


def test_summary(curves):
    sizes = [0, 1, 2, 4]
    rows = patching_summary("s", "m", sizes, curves, {"none": {"family": "baseline"}}, INTERVALS)
    assert list(rows.columns) == SUMMARY_COLUMNS
    assert set(rows["intervention"]) == {"none"} and set(rows["dataset"]) == {"harmless"}
    value = rows.set_index("metric")["value"]
    refused = {key: metrics > 0 for key, metrics in curves.items()}
    random = (refused["random", 0][2].mean() + refused["random", 1][2].mean()) / 2
    assert np.isclose(value["heads_half_refused"], refused["ranked", 0][2].mean())
    assert np.isclose(value["heads_half_random_refused"], random)
    assert np.isclose(
        value["heads_half_refused_difference"],
        refused["ranked", 0][2].mean() - random,
    )
    assert value["heads_share_for_half"] == value["heads_for_half"] / 4
    assert "heads_none_random_refused" not in value.index


def test_a_curve_that_never_reaches_half_has_a_reason(curves):
    low = {key: np.full_like(metrics, -1.0) for key, metrics in curves.items()}
    rows = patching_summary("s", "m", [0, 1, 2, 4], low, {"none": {}}, INTERVALS)
    half = rows[rows["metric"].str.endswith("for_half")]
    assert half["value"].isna().all() and half["reason"].str.contains("half of the harmless").all()
