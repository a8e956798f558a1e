"""Losses: parity with a loop over examples with full logits in float64, on every architecture."""

import math

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, build_model, tiny_model

from refusal import losses
from refusal.errors import InputError
from refusal.generations import generate
from refusal.interventions import Intervention, steering
from refusal.losses import completion_losses, kl_divergence, text_losses
from refusal.operators import Operator


def ragged_pairs(vocabulary: int, n: int = 9) -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(3)

    def tokens(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(7, vocabulary, (length,), generator=generator).tolist()

    return [(tokens(1, 20), tokens(1, 12)) for _ in range(n)]


def reference(model, prompt: list[int], completion: list[int]) -> tuple[float, bool]:
    """One unpadded example, all logits, one token at a time in float64."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0].double()
    nll, exact = 0.0, True
    for index, token in enumerate(completion):
        row = logits[len(prompt) + index - 1]
        nll += float(torch.logsumexp(row, -1) - row[token])
        exact &= int(row.argmax()) == token
    return nll, exact


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_completion_losses_equal_a_plain_loop(architecture):
    model, _ = tiny_model(architecture)
    vocabulary = model.config.vocab_size
    pairs = ragged_pairs(vocabulary)
    prompts = [prompt for prompt, _ in pairs[:3]]
    greedy = generate(model, prompts, eos_ids=[3], pad_id=0, max_new_tokens=6, max_tokens=1000)
    pairs += [(p, c.tokens) for p, c in zip(prompts, greedy, strict=True)]
    table = completion_losses(model, pairs, max_tokens=120)
    expected = [reference(model, *pair) for pair in pairs]
    np.testing.assert_allclose(table.nll, [nll for nll, _ in expected], rtol=1e-6, atol=1e-6)
    assert table.exact.tolist() == [exact for _, exact in expected]
    assert table.exact[-3:].all() and not table.exact.all()
    assert table.tokens.tolist() == [len(completion) for _, completion in pairs]
    assert table.dtypes.astype(str).tolist() == ["float64", "int64", "bool"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_steered_losses_equal_a_steered_loop(architecture):
    model, _ = tiny_model(architecture)
    pairs = ragged_pairs(model.config.vocab_size, n=5)
    basis = torch.eye(model.config.hidden_size)[:1]
    recipe = Intervention(operator=Operator.project(basis), scope="all", layer=None, recipe={})
    plain = completion_losses(model, pairs, max_tokens=1000)
    with steering(model, recipe):
        steered = completion_losses(model, pairs, max_tokens=1000)
        expected = [reference(model, *pair)[0] for pair in pairs]
    np.testing.assert_allclose(steered.nll, expected, rtol=1e-6, atol=1e-6)
    assert (steered.nll - plain.nll).abs().max() > 1e-3


def test_soft_cap_of_the_logits_counts():
    model = build_model("gemma2")
    pairs = ragged_pairs(model.config.vocab_size, n=3)
    capped = completion_losses(model, pairs, max_tokens=1000)
    model.config.final_logit_softcapping = None
    assert (completion_losses(model, pairs, max_tokens=1000).nll - capped.nll).abs().max() > 1e-4


def test_text_losses_leave_the_first_token_out():
    model, _ = tiny_model("llama")
    texts = [prompt + completion for prompt, completion in ragged_pairs(90)]
    table = text_losses(model, texts, max_tokens=100)
    expected = [reference(model, text[:1], text[1:])[0] for text in texts]
    np.testing.assert_allclose(table.nll, expected, rtol=1e-6, atol=1e-6)
    assert table.tokens.tolist() == [len(text) - 1 for text in texts]


def test_text_loss_agrees_with_the_library():
    """transformers' own loss is the mean over all tokens but the first."""
    model, _ = tiny_model("gpt_neox")
    text = list(range(10, 40))
    ids = torch.tensor([text])
    table = text_losses(model, [text], max_tokens=100)
    assert table.nll[0] / table.tokens[0] == pytest.approx(float(model(ids, labels=ids).loss), 1e-6)


@pytest.mark.parametrize("max_tokens", [1, 60, 100_000])
def test_token_budget_does_not_change_losses(max_tokens):
    model, _ = tiny_model("olmo2")
    pairs = ragged_pairs(model.config.vocab_size, n=7)
    one = completion_losses(model, pairs, max_tokens=1)
    table = completion_losses(model, pairs, max_tokens=max_tokens)
    np.testing.assert_allclose(table.nll, one.nll, rtol=1e-6, atol=1e-6)


def test_logits_are_computed_at_completion_positions_only():
    model, _ = tiny_model("llama")
    pairs = ragged_pairs(model.config.vocab_size, n=6)
    rows = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, arguments, out: rows.append(out.shape[:2]))
    completion_losses(model, pairs, max_tokens=10_000)
    handle.remove()
    assert rows == [(1, sum(len(completion) for _, completion in pairs))]
    assert not head._forward_pre_hooks


def test_losses_in_blocks_of_logits_are_the_same(monkeypatch):
    logits = 5 * torch.randn(23, 50, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(23)
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    for rows in (1, 7, 1000):
        monkeypatch.setattr(losses, "LOGIT_ROWS", rows)
        nll, wrong = losses._token_losses(logits, targets)
        torch.testing.assert_close(nll, expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(wrong, logits.argmax(-1) != targets)


def test_empty_prompts_completions_and_documents_are_refused():
    model, _ = tiny_model("llama")
    for pairs in ([([8], [])], [([], [8])]):
        with pytest.raises(InputError, match="row 0 has an empty"):
            completion_losses(model, pairs, max_tokens=100)
    with pytest.raises(InputError, match="row 1"):
        text_losses(model, [[8, 9], [8]], max_tokens=100)
    assert len(completion_losses(model, [], max_tokens=100)) == 0


def test_kl_divergence_equals_the_sum_written_out():
    generator = torch.Generator().manual_seed(0)
    base, steered = (torch.randn(4, 30, generator=generator) for _ in range(2))
    values = kl_divergence(base, steered)
    for row in range(4):
        p, q = (np.exp(x[row].double().numpy()) for x in (base, steered))
        p, q = p / p.sum(), q / q.sum()
        terms = [a * (math.log(a + 1e-6) - math.log(b + 1e-6)) for a, b in zip(p, q, strict=True)]
        assert values[row].item() == pytest.approx(sum(terms), rel=1e-12)
    assert values.dtype == torch.float64
    assert (values > 0).all()
    assert kl_divergence(base, base + 7).abs().max() < 1e-6
    exact = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=base.double()),
        torch.distributions.Categorical(logits=steered.double()),
    )
    torch.testing.assert_close(values, exact, rtol=1e-3, atol=1e-3)
