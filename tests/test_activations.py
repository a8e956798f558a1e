"""The sweep reads what the library's own hidden states hold, whatever the batch."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import N_LAYERS, WIDTH, tiny_model

from refusal.activations import (
    activation_index,
    last_position_logits,
    load_activations,
    save_activations,
    sweep,
)
from refusal.errors import InputError
from refusal.models import decoder_layers, encode_prompts

TEXTS = ["Go", "Tell me a joke", "Why is it that the sky is blue in the evening?", "a b", "Count"]
N_POSITIONS = 4


def relative_error(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("logits", [False, True])
def test_sweep_of_ragged_batches_equals_single_hidden_states(architecture, logits):
    model, tokenizer = tiny_model(architecture)
    sequences = encode_prompts(tokenizer, TEXTS)
    got = sweep(model, sequences, N_POSITIONS, max_tokens=80, logits=logits)
    assert got.residual.shape == (len(TEXTS), N_POSITIONS, N_LAYERS, WIDTH)
    for row, sequence in enumerate(sequences):
        single = model(input_ids=torch.tensor([sequence]), output_hidden_states=True)
        for layer in range(N_LAYERS):
            expected = single.hidden_states[layer][0, -N_POSITIONS:]
            assert relative_error(got.residual[row, :, layer], expected) < 1e-5
        if logits:
            assert relative_error(got.last_logits[row], single.logits[0, -1]) < 1e-5
    assert logits == (got.last_logits is not None)


def test_chosen_layers_keep_their_order(architecture):
    model, tokenizer = tiny_model(architecture)
    sequences = encode_prompts(tokenizer, TEXTS)
    every = sweep(model, sequences, 2, max_tokens=1000).residual
    some = sweep(model, sequences, 2, max_tokens=1000, layers=[1, 0]).residual
    assert torch.equal(some, every[:, :, [1, 0]])


def test_forward_stops_before_the_last_wanted_block():
    model, tokenizer = tiny_model("llama")
    sequences = encode_prompts(tokenizer, TEXTS)
    ran = []
    layers = decoder_layers(model)
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(layers)
    ]
    handles.append(model.lm_head.register_forward_hook(lambda *_: ran.append("head")))
    try:
        sweep(model, sequences, 1, max_tokens=1000)
        assert ran == list(range(N_LAYERS - 1))
        ran.clear()
        sweep(model, sequences, 1, max_tokens=1000, layers=[1])
        assert ran == [0]
        ran.clear()
        sweep(model, sequences, 1, max_tokens=1000, logits=True)
        assert ran == [*range(N_LAYERS), "head"]
    finally:
        for handle in handles:
            handle.remove()


def test_hooks_are_removed_also_after_an_error(monkeypatch):
    model, tokenizer = tiny_model("llama")
    sequences = encode_prompts(tokenizer, TEXTS)
    sweep(model, sequences, 1, max_tokens=1000)
    with pytest.raises(IndexError):
        sweep(model, [[10_000, 1]], 1, max_tokens=1000)
    assert not any(block._forward_pre_hooks for block in decoder_layers(model))


def test_float16_and_bfloat16_activations_are_stored_in_float32():
    from conftest import build_model

    model = build_model("llama").to(torch.bfloat16)
    got = sweep(model, [[3, 20, 30]], 2, max_tokens=10, logits=True)
    assert got.residual.dtype == got.last_logits.dtype == torch.float32


def test_last_position_logits_equal_the_full_ones(architecture):
    model, tokenizer = tiny_model(architecture)
    sequences = encode_prompts(tokenizer, TEXTS)
    got = last_position_logits(model, sequences, max_tokens=80)
    for row, sequence in enumerate(sequences):
        expected = model(input_ids=torch.tensor([sequence])).logits[0, -1]
        assert relative_error(got[row], expected) < 1e-5
    assert last_position_logits(model, [], max_tokens=80).shape == (0, len(tokenizer))


def test_prompt_shorter_than_the_positions_is_an_error():
    model, _ = tiny_model("llama")
    with pytest.raises(InputError, match="2 tokens, but 3 positions"):
        sweep(model, [[1, 2, 3, 4], [1, 2]], 3, max_tokens=10)


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    residual = torch.randn(70, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    prompts = pd.DataFrame(
        {"id": [f"p{i}" for i in range(70)], "label": "harmful", "kind": "x", "split": "train"}
    )
    index = activation_index(prompts, np.linspace(-1, 1, 70))
    path = tmp_path / "model-1.5.safetensors"
    save_activations(path, residual, index)
    return path, residual, index


def test_saved_activations_load_again(stored):
    path, residual, index = stored
    got, got_index = load_activations(path)
    assert torch.equal(got, residual)
    pd.testing.assert_frame_equal(got_index, index)
    assert list(got_index) == ["row", "id", "label", "kind", "split", "refusal_metric"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_an_error(stored, value):
    path, residual, index = stored
    residual[66, 1, 2, 3] = value
    with pytest.raises(InputError, match="row 66"):
        save_activations(path, residual, index)
    assert load_activations(path)[0].isfinite().all(), "the file of before must be left alone"


def test_missing_damaged_or_ragged_files_are_errors(stored):
    path, residual, index = stored
    with pytest.raises(InputError, match="no such file"):
        load_activations(path.with_name("other.safetensors"))
    index.iloc[:5].to_parquet(path.with_suffix(".parquet"))
    with pytest.raises(InputError, match="5 in the index"):
        load_activations(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        load_activations(path)
