"""Greedy decoding: a batch is exactly single prompts, and exactly the library's own decoding."""

import pytest
import torch
from conftest import ARCHITECTURES, tiny_model

from refusal import batching, generations
from refusal.activations import last_position_logits
from refusal.errors import InputError
from refusal.generations import (
    Completion,
    completions_table,
    generate,
)
from refusal.interventions import Intervention, steering
from refusal.operators import Operator

NEW_TOKENS = 24


def ragged_prompts(vocabulary: int, n: int = 10) -> list[list[int]]:
    """Random prompts of 3 to 23 tokens: some outgrow the tiny models' sliding window."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 24, (n,), generator=generator).tolist()
    return [torch.randint(7, vocabulary, (k,), generator=generator).tolist() for k in lengths]


def settings(model) -> dict:
    """Every 19th token stops, so that rows of a batch finish at very different steps."""
    vocabulary = model.config.vocab_size
    return {"eos_ids": list(range(3, vocabulary, 19)), "pad_id": 0, "max_new_tokens": NEW_TOKENS}


def one_by_one(model, prompts, **limits) -> list[Completion]:
    return [generate(model, [prompt], max_tokens=1, **limits)[0] for prompt in prompts]


def library_tokens(model, prompts, *, eos_ids, pad_id, max_new_tokens) -> list[list[int]]:
    """The tokens of transformers' own greedy generation, prompt by prompt."""
    out = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        generated = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_ids,
            pad_token_id=pad_id,
        )
        out.append(generated[0, len(prompt) :].tolist())
    return out


def intervention(model, scope: str) -> Intervention:
    width = model.config.hidden_size
    torch.manual_seed(2)
    basis = torch.linalg.qr(torch.randn(width, 4)).Q.T.contiguous()
    operator = Operator.project(basis[:1] if scope == "all" else basis, 1 if scope == "all" else 2)
    return Intervention(operator=operator, scope=scope, layer=1, recipe={})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_equals_single_prompts_and_the_library(architecture):
    model, _ = tiny_model(architecture)
    prompts = ragged_prompts(model.config.vocab_size)
    batch = generate(model, prompts, max_tokens=10_000, **settings(model))
    assert batch == one_by_one(model, prompts, **settings(model))
    assert [completion.tokens for completion in batch] == library_tokens(
        model, prompts, **settings(model)
    )
    assert {completion.stop_reason for completion in batch} == {"eos", "length"}


@pytest.mark.parametrize("scope", ["all", "writes"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_steered_batch_equals_steered_single_prompts_and_the_library(architecture, scope):
    model, _ = tiny_model(architecture)
    prompts = ragged_prompts(model.config.vocab_size, n=6)
    unsteered = generate(model, prompts, max_tokens=10_000, **settings(model))
    with steering(model, intervention(model, scope)):
        batch = generate(model, prompts, max_tokens=10_000, **settings(model))
        assert batch == one_by_one(model, prompts, **settings(model))
        assert [completion.tokens for completion in batch] == library_tokens(
            model, prompts, **settings(model)
        )
    assert batch != unsteered


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_dropping_finished_rows_changes_nothing(monkeypatch, architecture):
    model, _ = tiny_model(architecture)
    prompts = ragged_prompts(model.config.vocab_size, n=16)
    rows_per_step = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda module, arguments, output: rows_per_step.append(len(output))
    )
    dropping = generate(model, prompts, max_tokens=10_000, **settings(model))
    handle.remove()
    assert rows_per_step[0] == 16 and rows_per_step[-1] < 16
    monkeypatch.setattr(generations, "KEEP_ABOVE", -1)
    assert dropping == generate(model, prompts, max_tokens=10_000, **settings(model))


def test_token_budget_changes_nothing_and_bounds_every_batch():
    model, _ = tiny_model("llama")
    prompts = ragged_prompts(model.config.vocab_size, n=12)
    shapes = []
    handle = model.get_input_embeddings().register_forward_hook(
        lambda module, arguments, output: shapes.append(tuple(output.shape[:2]))
    )
    small = generate(model, prompts, max_tokens=150, **settings(model))
    handle.remove()
    prefills = [(rows, width) for rows, width in shapes if width > 1]
    assert len(prefills) > 2
    assert all(rows * (width + NEW_TOKENS) <= 150 for rows, width in prefills)
    assert small == generate(model, prompts, max_tokens=10_000, **settings(model))


def test_stop_token_is_included_and_reported():
    model, _ = tiny_model("llama")
    prompts = ragged_prompts(model.config.vocab_size, n=12)
    limits = settings(model)
    for completion in generate(model, prompts, max_tokens=10_000, **limits):
        stops = [token in limits["eos_ids"] for token in completion.tokens]
        assert not any(stops[:-1])
        assert stops[-1] == (completion.stop_reason == "eos")
        if completion.stop_reason == "length":
            assert len(completion.tokens) == NEW_TOKENS


def test_prefill_and_decoding_compute_only_the_last_logits():
    model, _ = tiny_model("gemma2")
    widths = set()
    handle = model.get_output_embeddings().register_forward_hook(
        lambda module, arguments, output: widths.add(output.shape[1])
    )
    generate(model, ragged_prompts(90, n=3), max_tokens=1000, **settings(model))
    handle.remove()
    assert widths == {1}


@pytest.mark.parametrize("scope", ["all", "source"])
def test_logits_of_the_first_tokens_are_those_after_the_prompts(scope):
    model, _ = tiny_model("llama")
    prompts = ragged_prompts(model.config.vocab_size)
    first = torch.empty(len(prompts), model.config.vocab_size)
    with steering(model, intervention(model, scope)):
        generate(model, prompts, max_tokens=100, first_logits=first, **settings(model))
        expected = last_position_logits(model, prompts, max_tokens=10_000)
    torch.testing.assert_close(first, expected, atol=1e-4, rtol=0)


def test_generation_survives_a_batch_out_of_memory(monkeypatch):
    model, _ = tiny_model("qwen2")
    prompts = ragged_prompts(model.config.vocab_size, n=7)
    expected = generate(model, prompts, max_tokens=10_000, **settings(model))
    decode = generations._decode_batch

    def small_memory(model, batch, *arguments):
        if len(batch) > 3:
            raise torch.OutOfMemoryError("test")
        return decode(model, batch, *arguments)

    monkeypatch.setattr(batching, "_fitting", {})
    monkeypatch.setattr(generations, "_decode_batch", small_memory)
    assert generate(model, prompts, max_tokens=10_000, **settings(model)) == expected


def test_empty_prompts_and_limits_are_refused():
    model, _ = tiny_model("llama")
    with pytest.raises(InputError, match="empty"):
        generate(model, [[8, 9], []], max_tokens=100, **settings(model))
    with pytest.raises(InputError, match="max_new_tokens"):
        generate(model, [[8]], max_tokens=100, **(settings(model) | {"max_new_tokens": 0}))
    assert generate(model, [], max_tokens=100, **settings(model)) == []


def test_completions_table_has_the_schema_and_no_special_tokens():
    _, tokenizer = tiny_model("llama")
    text = tokenizer("thin air", add_special_tokens=False).input_ids
    completions = [
        Completion([*text, tokenizer.eos_token_id], "eos"),
        Completion(text[:2], "length"),
    ]
    table = completions_table(tokenizer, ["harmful-test-0001", "harmful-test-0002"], completions)
    assert list(table.columns) == ["id", "completion", "tokens", "stop_reason"]
    assert table.completion[0] == "thin air"
    assert table.tokens.tolist() == [len(text) + 1, 2]
    assert table.stop_reason.tolist() == ["eos", "length"]
    with pytest.raises(ValueError):
        completions_table(tokenizer, ["only-one"], completions)
