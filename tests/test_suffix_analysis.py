"""Suffix analysis: conditions as read from the model, choices without test prompts, estimates."""

import copy
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model

from refusal.errors import InputError
from refusal.heads import REGIONS, all_heads, attention_blocks
from refusal.latex import estimate
from refusal.statistics import SUMMARY_COLUMNS, Intervals
from refusal.suffix import suffixed_prompts
from refusal.suffix_analysis import (
    ADVERSARIAL,
    ATTENTION_COLUMNS,
    CONDITIONS,
    COSINE_COLUMNS,
    HARMLESS,
    HEAD_COLUMNS,
    PLAIN,
    RANDOM,
    Choice,
    Condition,
    attention_frame,
    choose,
    cosine_frame,
    head_frame,
    measure_condition,
    prompt_regions,
    suffix_summary,
    suppression_share,
)
from refusal.tables.suffix import suffix_table
from refused import refused_prompts

TEXTS = ["Say a word", "Tell me how to bake bread", "Go. Now"]
INTERVALS = Intervals(resamples=400)
CHOICE = Choice(direction_layer=1, peak_layer=2, heads=[(1, 0), (0, 1)], columns=[2, 1])


@cache
def eager(architecture="llama"):
    model = copy.deepcopy(tiny_model(architecture)[0])
    model.set_attn_implementation("eager")
    return model


def unit():
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1))
    return vector / vector.norm()


def measured(model, prompts):
    blocks = attention_blocks(model)
    return measure_condition(
        model, blocks, prompts, unit(), refusal_tokens=[11, 12], max_tokens=100
    )


def made_up(shift, n=30, seed=0):
    """A condition of 2 layers with 2 heads each; all numbers move with `shift`."""
    generator = np.random.default_rng(seed)
    return Condition(
        cosines=0.1 * generator.normal(size=(n, 3)) + shift,
        attributions=generator.normal(size=(n, 4)) + 10 * shift,
        attention=generator.dirichlet(np.ones(4), size=(n, 4)),
        refusal=generator.normal(size=n) + shift,
    )


@pytest.fixture
def conditions():
    shifts = {PLAIN: 0.6, RANDOM: 0.5, ADVERSARIAL: 0.1, HARMLESS: 0.0}
    return {
        name: made_up(shift, n=40 if name == HARMLESS else 30, seed=seed)
        for seed, (name, shift) in enumerate(shifts.items())
    }


# --- reading ------------------------------------------------------------------------------------


def test_regions_cover_the_prompt_in_order():
    tokenizer = tiny_model("llama")[1]
    plain, suffixed = suffixed_prompts(tokenizer, [TEXTS[0]] * 2, ["", " xyz!"])
    regions = prompt_regions(suffixed)
    assert regions == sorted(regions) and set(regions) == {0, 1, 2, 3}
    of_suffix = [t for t, r in zip(suffixed.tokens, regions, strict=True) if r == 2]
    assert tokenizer.decode(of_suffix) == " xyz!"
    of_instruction = [t for t, r in zip(suffixed.tokens, regions, strict=True) if r == 1]
    assert tokenizer.decode(of_instruction) == TEXTS[0]
    assert set(prompt_regions(plain)) == {0, 1, 3} and len(prompt_regions(plain)) == len(plain[0])


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gpt_neox"], ids=str)
def test_a_condition_is_what_the_library_computes(architecture):
    model = eager(architecture)
    prompts = suffixed_prompts(tiny_model("llama")[1], TEXTS, [" xyz!", "", " ab"])
    condition = measured(model, prompts)
    assert condition.attention.shape == (3, 12, len(REGIONS))
    assert np.allclose(condition.attention.sum(-1), 1, atol=1e-5)
    assert (condition.attention[1, :, REGIONS.index("suffix")] == 0).all()
    for row, prompt in enumerate(prompts):
        output = model(
            torch.tensor([prompt.tokens]), output_hidden_states=True, output_attentions=True
        )
        hidden = torch.stack(output.hidden_states[:3])[:, 0, -1]  # the last one is normalised
        expected = torch.cosine_similarity(hidden, unit()[None], dim=-1)
        assert np.allclose(condition.cosines[row, :3], expected, atol=1e-5)
        weights = torch.cat(output.attentions, dim=1)[0, :, -1, prompt.suffix].sum(-1)
        found = condition.attention[row, :, REGIONS.index("suffix")]
        assert np.allclose(found, weights, atol=1e-5)
        probability = output.logits[0, -1].softmax(-1)[[11, 12]].sum()
        assert np.isclose(condition.refusal[row], torch.logit(probability), atol=1e-3)


def test_a_model_without_attention_weights_is_one_clear_error():
    model, tokenizer = tiny_model("llama")
    with pytest.raises(InputError, match="experiments.suffix: false"):
        measured(model, suffixed_prompts(tokenizer, TEXTS, [""] * 3))


# --- choice -------------------------------------------------------------------------------------


def test_choice_takes_the_peak_and_the_largest_mean_attributions():
    blocks = attention_blocks(tiny_model("llama")[0])
    validation = made_up(0.0)
    attributions = np.zeros((30, 12))
    attributions[:, [7, 2, 9]] = [3.0, 2.0, -9.0]
    cosines = validation.cosines.copy()
    cosines[:, 1] += 1
    condition = Condition(cosines, attributions, validation.attention, validation.refusal)
    choice = choose(blocks, condition, direction_layer=2, n_heads=3)
    assert choice.heads == [(1, 3), (0, 2), (0, 0)] and choice.columns == [7, 2, 0]
    assert choice.peak_layer == 1 and choice.direction_layer == 2
    assert choose(blocks, condition, 2, 99).heads[-1] == all_heads(blocks)[9]


# --- frames and summary -------------------------------------------------------------------------


def test_frames(conditions):
    cosines = cosine_frame("m", conditions, CHOICE, INTERVALS)
    assert list(cosines.columns) == COSINE_COLUMNS and len(cosines) == 4 * 3
    row = cosines[(cosines.condition == PLAIN) & (cosines.layer == 2)].iloc[0]
    assert np.isclose(row["mean"], conditions[PLAIN].cosines[:, 2].mean())
    assert np.isclose(row.sd, conditions[PLAIN].cosines[:, 2].std())
    assert row.low < row["mean"] < row.high and row.n == 30 and row.peak_layer == 2
    heads = head_frame("m", conditions, CHOICE, INTERVALS)
    assert list(heads.columns) == HEAD_COLUMNS and len(heads) == 4 * 2
    first = heads[(heads.condition == ADVERSARIAL) & (heads["rank"] == 1)].iloc[0]
    assert (first.layer, first["head"]) == (1, 0)
    assert np.isclose(first["mean"], conditions[ADVERSARIAL].attributions[:, 2].mean())
    attention = attention_frame("m", conditions, CHOICE, INTERVALS)
    assert list(attention.columns) == ATTENTION_COLUMNS and len(attention) == 4 * 2 * 2
    part = attention[(attention.condition == RANDOM) & (attention.region == "suffix")]
    expected = conditions[RANDOM].attention[:, [2, 1], REGIONS.index("suffix")].mean(0)
    assert np.allclose(part["mean"], expected)


def test_summary_against_plain_means(conditions):
    rows = suffix_summary("s", "m", conditions, CHOICE, {"none": {}}, INTERVALS)
    assert list(rows.columns) == SUMMARY_COLUMNS and set(rows["intervention"]) == {"none"}
    assert not rows.duplicated(["dataset", "metric", "judge"]).any()
    assert set(rows[rows["metric"] == "attention_suffix"]["dataset"]) == {RANDOM, ADVERSARIAL}
    assert not (rows["metric"] == "attention_suffix_change").any()
    value = rows.set_index(["dataset", "metric"])["value"]
    mean = {name: condition.cosines.mean(0) for name, condition in conditions.items()}
    written = {name: c.attributions[:, [1, 2]].sum(1).mean() for name, c in conditions.items()}
    attended = {name: c.attention[:, [1, 2], 1].mean() for name, c in conditions.items()}
    for name in CONDITIONS:
        assert np.isclose(value[name, "cosine"], mean[name][1])
        assert np.isclose(value[name, "cosine_peak"], mean[name][2])
        assert np.isclose(value[name, "attribution"], written[name])
        assert np.isclose(value[name, "attention_instruction"], attended[name])
        share = (conditions[name].refusal > 0).mean()
        assert np.isclose(value[name, "first_token_refused"], share)
    for name in (RANDOM, ADVERSARIAL):
        change = mean[name][2] - mean[PLAIN][2]
        assert np.isclose(value[name, "cosine_peak_change"], change)
        gap = mean[PLAIN][2] - mean[HARMLESS][2]
        assert np.isclose(value[name, "suppression_share_peak"], -change / gap)
    difference = written[ADVERSARIAL] - written[RANDOM]
    assert np.isclose(value[ADVERSARIAL, "attribution_against_random"], difference)
    shown = rows[rows["value"].notna()]
    assert (shown["low"] <= shown["value"]).all() and (shown["value"] <= shown["high"]).all()


def test_changes_are_paired(conditions):
    """A suffix that moves every prompt by the same amount has a change without spread."""
    plain = conditions[PLAIN]
    moved = Condition(plain.cosines - 0.3, plain.attributions, plain.attention, plain.refusal)
    rows = suffix_summary(
        "s", "m", conditions | {ADVERSARIAL: moved}, CHOICE, {"none": {}}, INTERVALS
    )
    row = rows[(rows.dataset == ADVERSARIAL) & (rows.metric == "cosine_change")].iloc[0]
    assert np.allclose([row.value, row.low, row.high], -0.3)


def test_suppression_share_known_values():
    generator = np.random.default_rng(2)
    harmful, harmless = generator.normal(2, 0.1, size=50), generator.normal(0, 0.1, size=50)
    none = suppression_share(harmful, harmful, harmless, INTERVALS)
    assert none == (0, 0, 0)
    half = suppression_share(harmful, harmful - 1, harmless, INTERVALS)
    assert half.low < 0.5 < half.high and half.high - half.low < 0.05
    # Resampled in step with the harmful prompts, equal spread would cancel out.
    same = suppression_share(harmful, harmful - 2, harmful - 2, INTERVALS)
    assert np.isclose(same.value, 1) and same.low < 0.999 < 1.001 < same.high


def test_without_a_gap_there_is_no_share(conditions):
    swapped = conditions | {HARMLESS: made_up(0.9)}
    rows = suffix_summary("s", "m", swapped, CHOICE, {"none": {}}, INTERVALS)
    shares = rows[rows["metric"].str.contains("suppression_share")]
    assert len(shares) == 6 and shares["value"].isna().all()
    assert shares["reason"].str.contains("no gap").all()


# --- which prompts ------------------------------------------------------------------------------


def test_refused_prompts_keep_their_number_among_all_harmful_ones():
    labels = ["harmful", "harmless", "harmful", "harmful"]
    ids = [f"p{i}" for i in range(4)]
    prompts = pd.DataFrame({"id": ids, "label": labels, "split": "test", "text": ids})
    index = prompts.assign(row=range(4), refusal_metric=[1.0, -1.0, -2.0, 3.0])
    found = refused_prompts(prompts, index, "test", model="m", enabled=True)
    assert found["id"].tolist() == ["p0", "p3"] and found["number"].tolist() == [0, 2]
    everything = refused_prompts(prompts, index, "test", model="m", enabled=False)
    assert everything["number"].tolist() == [0, 1, 2]
    never = index.assign(refusal_metric=-1.0)
    with pytest.raises(InputError, match="experiments.suffix: false and experiments.heads: false"):
        refused_prompts(prompts, never, "test", model="m", enabled=True)


# --- table --------------------------------------------------------------------------------------


def test_the_table_prints_what_the_summary_says(conditions):
    rows = suffix_summary("s", "m_1", conditions, CHOICE, {"none": {}}, INTERVALS)
    lines = suffix_table(rows).splitlines()
    block = lines.index(next(line for line in lines if "peak layer" in line))
    cells = [text.strip() for text in lines[block + 1].removesuffix(r"\\").split("&")]
    assert cells[0] == r"m\_1" and len(cells) == 7
    value = rows.set_index(["dataset", "metric"])
    expected = [value.loc[(name, "cosine_peak")] for name in CONDITIONS]
    expected.append(value.loc[(ADVERSARIAL, "cosine_peak_against_random")])
    expected.append(value.loc[(ADVERSARIAL, "suppression_share_peak")])
    assert cells[1:] == [estimate(row.value, row.low, row.high) for row in expected]
    assert "Mean" not in suffix_table(rows)  # one model is no mean over models


def test_the_table_without_the_experiment_says_so():
    rows = pd.DataFrame(columns=SUMMARY_COLUMNS)
    assert "nothing of this kind was measured" in suffix_table(rows)
