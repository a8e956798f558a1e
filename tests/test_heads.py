"""Heads: their writes add up to the model's, attention is the model's own, patching is exact."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import build_model, tiny_model

from refusal.activations import last_position_logits, sweep
from refusal.errors import InputError
from refusal.heads import (
    REGIONS,
    all_heads,
    attention_blocks,
    head_attributions,
    patching,
    ranked,
    read_token,
)
from refusal.models import encode_prompts, refusal_metric

TEXTS = ["Say a word", "Tell me how to bake bread for ten people", "Go.", "What is that thing?"]
REFUSAL_TOKENS = [11, 12]


# One prompt per batch: transformers' eager attention in float64 gives NaN where rows are padded.
ALONE = 1


def single(architecture):
    """The tiny model with attention that hands its weights out."""
    model = copy.deepcopy(tiny_model(architecture)[0])
    model.set_attn_implementation("eager")
    return model


def double(architecture):
    """The same in float64."""
    return single(architecture).double()


def prompts(texts=TEXTS):
    return encode_prompts(tiny_model("llama")[1], texts)


def unit(width=32, seed=3):
    vector = torch.randn(width, generator=torch.Generator().manual_seed(seed)).double()
    return vector / vector.norm()


def regions_of(sequence):
    """Three tokens before, four after, the rest instruction but for two tokens of a suffix."""
    middle = len(sequence) - 7
    return [0] * 3 + [1] * (middle - 2) + [2] * 2 + [3] * 4


# --- attribution -------------------------------------------------------------------------------


def test_heads_and_bias_add_up_to_the_actual_write(architecture):
    model = double(architecture)
    blocks = attention_blocks(model)
    reading = read_token(model, blocks, prompts(), max_tokens=ALONE)
    heads, bias = head_attributions(blocks, reading, unit())
    assert heads.shape == (4, 12) and all_heads(blocks)[5] == (1, 1)
    # Norms compute in float32 whatever the model's type.
    exact = all(block.post_norm is None for block in blocks)
    for layer, write in enumerate(reading.writes):
        total = heads[:, 4 * layer : 4 * layer + 4].sum(1) + bias[:, layer]
        assert torch.allclose(total, write @ unit(), atol=1e-10 if exact else 1e-6)
        assert write.norm() > 0.1


def test_the_writes_are_what_the_residual_stream_gains(architecture):
    """Against the library's own hidden states: block output = input + attention + MLP."""
    model = double(architecture)
    sequence = prompts()[1]
    reading = read_token(model, attention_blocks(model), [sequence], max_tokens=100)
    hidden = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states
    for layer in range(3):
        assert torch.allclose(reading.residual[:, layer], hidden[layer][:, -1], atol=1e-10)
    final = next(m for n, m in model.get_decoder().named_children() if n in FINAL_NORMS)
    assert torch.allclose(final(reading.residual[:, 3]), hidden[3][:, -1], atol=1e-10)


FINAL_NORMS = ("norm", "final_layer_norm")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2"], ids=str)
def test_a_heads_attribution_is_the_change_from_removing_it(architecture):
    """An independent reference: without norm, zeroing a head changes the write by what it wrote.

    With a post-norm, the same holds for what the norm is given, times its factor.
    """
    model = double(architecture)
    blocks = attention_blocks(model)
    sequences = prompts()[:1]
    reading = read_token(model, blocks, sequences, max_tokens=100)
    heads, _ = head_attributions(blocks, reading, unit())
    zeros = [torch.zeros_like(z) for z in reading.outputs]
    kept = []
    handle = blocks[1].projection.register_forward_hook(
        lambda module, args, output: kept.append(output[0, -1])
    )
    model(torch.tensor(sequences))
    for head in range(4):
        with patching(blocks, [(1, head)], zeros):
            model(torch.tensor(sequences))
    handle.remove()
    factor = reading.writes[1][0] / kept[0]
    removed = [(kept[0] - kept[1 + head]) * factor @ unit() for head in range(4)]
    assert torch.allclose(heads[0, 4:8], torch.stack(removed), atol=1e-8)


def test_padding_and_batches_change_nothing(architecture):
    model = single(architecture)
    blocks = attention_blocks(model)
    regions = [regions_of(row) for row in prompts()]
    together = read_token(model, blocks, prompts(), max_tokens=1000, regions=regions)
    for row, sequence in enumerate(prompts()):
        alone = read_token(model, blocks, [sequence], max_tokens=1, regions=regions[row : row + 1])
        assert torch.allclose(together.residual[row], alone.residual[0], atol=2e-5)
        assert torch.allclose(together.attention[row], alone.attention[0], atol=2e-5)
        for one, other in zip(together.outputs, alone.outputs, strict=True):
            assert torch.allclose(one[row], other[0], atol=2e-5)


def test_reading_agrees_with_the_sweep_of_activations(architecture):
    model, _ = tiny_model(architecture)
    reading = read_token(
        model, attention_blocks(model), prompts(), max_tokens=60, refusal_tokens=REFUSAL_TOKENS
    )
    swept = sweep(model, prompts(), 1, max_tokens=60, logits=True)
    assert torch.equal(reading.residual[:, :3], swept.residual[:, 0])
    assert torch.equal(reading.refusal, refusal_metric(swept.last_logits, REFUSAL_TOKENS))


def test_another_position_is_read_where_it_is():
    model = double("llama")
    blocks = attention_blocks(model)
    sequences = prompts()
    reading = read_token(model, blocks, sequences, max_tokens=ALONE, position=-3)
    # Causal: the third token from the end does not know the last two.
    shorter = read_token(model, blocks, [row[:-2] for row in sequences], max_tokens=ALONE)
    assert torch.allclose(reading.residual, shorter.residual, atol=1e-6)
    assert torch.allclose(reading.outputs[2], shorter.outputs[2], atol=1e-6)


def test_a_post_norm_that_shifts_has_no_attribution():
    model = double("gemma2")
    blocks = attention_blocks(model)
    reading = read_token(model, blocks, prompts(), max_tokens=100)
    shifted = copy.copy(reading.writes)
    shifted[1] = shifted[1] + 0.1
    reading = type(reading)(reading.residual, reading.outputs, shifted)
    with pytest.raises(InputError, match="elementwise factor.*experiments.suffix: false"):
        head_attributions(blocks, reading, unit())


# --- attention ----------------------------------------------------------------------------------


def test_attention_masses_equal_the_librarys_weights(architecture):
    model = double(architecture)
    regions = [regions_of(row) for row in prompts()]
    reading = read_token(
        model, attention_blocks(model), prompts(), max_tokens=ALONE, regions=regions
    )
    assert reading.attention.shape == (4, 12, len(REGIONS))
    assert torch.allclose(reading.attention.sum(-1), torch.ones(4, 12).double(), atol=1e-12)
    for row, sequence in enumerate(prompts()):
        weights = model(torch.tensor([sequence]), output_attentions=True).attentions
        for layer, of_layer in enumerate(weights):
            for region in range(len(REGIONS)):
                at = [i for i, number in enumerate(regions[row]) if number == region]
                expected = of_layer[0, :, -1, at].sum(-1)
                found = reading.attention[row, 4 * layer : 4 * layer + 4, region]
                assert torch.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"], ids=str)
def test_attention_and_outputs_equal_a_plain_computation_with_grouped_queries(architecture):
    """softmax(q k^T / sqrt(d)) v by hand for the first block: 4 query heads, 2 key heads."""
    model = double(architecture)
    sequence = prompts()[1]
    regions = regions_of(sequence)
    block = attention_blocks(model)[0]
    reading = read_token(
        model, attention_blocks(model), [sequence], max_tokens=100, regions=[regions]
    )
    layer, attention = model.model.layers[0], block.module
    x = layer.input_layernorm(model.model.embed_tokens(torch.tensor(sequence)))
    q, k, v = (getattr(attention, f"{name}_proj")(x) for name in "qkv")
    width = block.head_width
    frequency = 10000.0 ** (-torch.arange(0, width, 2).double() / width)

    def rotated(vector, position):
        angle = torch.cat([position * frequency] * 2)
        half = torch.cat([-vector[width // 2 :], vector[: width // 2]])
        return vector * angle.cos() + half * angle.sin()

    last = len(sequence) - 1
    for head in range(4):
        query = rotated(q[last, head * width : (head + 1) * width], last)
        group = slice(head // 2 * width, (head // 2 + 1) * width)
        scores = [rotated(k[i, group], i) @ query / math.sqrt(width) for i in range(last + 1)]
        weights = torch.stack(scores).softmax(0)
        masses = [weights[[r == region for r in regions]].sum() for region in range(len(REGIONS))]
        assert torch.allclose(reading.attention[0, head], torch.stack(masses), atol=1e-6)
        z = reading.outputs[0][0, head * width : (head + 1) * width]
        assert torch.allclose(z, weights @ v[:, group], atol=1e-6)


def test_a_model_that_returns_no_weights_is_one_clear_error():
    model, _ = tiny_model("llama")
    assert model.config._attn_implementation == "sdpa"
    blocks = attention_blocks(model)
    regions = [regions_of(row) for row in prompts()]
    with pytest.raises(InputError, match="attention: eager.*experiments.suffix: false"):
        read_token(model, blocks, prompts(), max_tokens=100, regions=regions)


def test_an_attention_whose_output_is_no_linear_map_is_refused():
    model = build_model("llama")
    model.model.layers[1].self_attn.o_proj = torch.nn.Sequential(
        torch.nn.Linear(32, 32), torch.nn.Tanh()
    )
    with pytest.raises(InputError, match="0 linear maps.*experiments.heads: false"):
        attention_blocks(model)


# --- patching -----------------------------------------------------------------------------------


def logits(model, sequences):
    return last_position_logits(model, sequences, max_tokens=10_000)


def equal_lengths():
    """Prompts of one length in one batch, so that rows stay in order."""
    return prompts(["Say a word", "Buy a ball", "Get a coat", "Cut a tree"])


def test_patching_with_the_own_outputs_changes_nothing(architecture):
    model = double(architecture)
    blocks, sequences = attention_blocks(model), equal_lengths()
    own = read_token(model, blocks, sequences, max_tokens=10_000).outputs
    with patching(blocks, all_heads(blocks), own):
        patched = logits(model, sequences)
    assert torch.allclose(patched, logits(model, sequences), atol=1e-6)


def test_patching_all_heads_gives_the_donors_logits(architecture):
    """The last token's stream is its embedding and what its heads fetch; all prompts end alike."""
    model = double(architecture)
    blocks, sequences = attention_blocks(model), equal_lengths()
    donors = sequences[1:] + sequences[:1]
    outputs = read_token(model, blocks, donors, max_tokens=10_000).outputs
    with patching(blocks, all_heads(blocks), outputs):
        patched = logits(model, sequences)
    expected = logits(model, donors)
    assert torch.allclose(patched, expected, atol=1e-6)
    assert not torch.allclose(expected, logits(model, sequences), atol=1e-2)


def test_only_the_named_heads_are_patched_and_only_within_the_block():
    model = double("llama")
    blocks, sequences = attention_blocks(model), equal_lengths()
    before = read_token(model, blocks, sequences, max_tokens=10_000)
    sevens = [torch.full_like(z, 7) for z in before.outputs]
    with patching(blocks, [(1, 2), (1, 0)], sevens):
        seen = []
        handle = blocks[1].projection.register_forward_hook(
            lambda module, args, output: seen.append(args[0])
        )
        logits(model, sequences)
        handle.remove()
    heads = seen[0].unflatten(-1, (4, -1))
    assert (heads[:, -1, [0, 2]] == 7).all() and (heads[:, -1, [1, 3]] != 7).all()
    assert (heads[:, :-1] != 7).all()
    after = read_token(model, blocks, sequences, max_tokens=10_000)
    assert torch.equal(before.residual, after.residual)


def test_hooks_are_gone_after_an_error():
    model = double("llama")
    blocks, sequences = attention_blocks(model), equal_lengths()
    outputs = read_token(model, blocks, sequences, max_tokens=10_000).outputs
    with pytest.raises(RuntimeError), patching(blocks, [(0, 0)], outputs):
        raise RuntimeError
    assert not blocks[0].projection._forward_pre_hooks


def test_ranking_is_by_effect_and_ties_by_place():
    heads = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert ranked(heads, np.array([1.0, 3.0, 1.0, -2.0])) == [(0, 1), (0, 0), (1, 0), (1, 1)]
