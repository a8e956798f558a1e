"""Fine-tuning: what is learned and what is not, on every architecture; nothing is left behind."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ARCHITECTURES, N_LAYERS, build_model, tiny_model, tiny_tokenizer
from torch import nn

from refusal.errors import InputError
from refusal.fine_tuning import (
    adapted_modules,
    add_adapter,
    answer_loss,
    epoch_batches,
    fine_tune,
    training_pairs,
)
from refusal.generations import generate
from refusal.interventions import (
    build_intervention,
    load_intervention,
    save_intervention,
    steering,
)
from refusal.losses import completion_losses
from refusal.models import decoder_layers
from refusal.recipes import expand_interventions

SETTINGS = {"rank": 4, "alpha": 8, "epochs": 3, "batch_size": 4, "learning_rate": 0.01}


def prompts(n: int = 10) -> pd.DataFrame:
    """Harmful training prompts with answers of different length, and rows that must not be used."""
    rows = [
        (f"Tell me {'x' * (index % 5)} {index}", "harmful", "train", "Sure" + " ok" * (index % 3))
        for index in range(n)
    ]
    rows += [
        ("left out", "harmful", "train", None),
        ("test", "harmful", "test", "Sure"),
        ("validation", "harmful", "validation", "Sure"),
        ("harmless", "harmless", "train", "Sure"),
    ]
    return pd.DataFrame(rows, columns=["text", "label", "split", "answer"])


def pairs(n: int = 10, limit: int = 100, seed: int = 0) -> list:
    tokenizer = tiny_tokenizer()
    return training_pairs(
        tokenizer, prompts(n), end_token=tokenizer.eos_token_id, limit=limit, seed=seed
    )


def mean_loss(model, given: list) -> float:
    table = completion_losses(model, given, max_tokens=1000)
    return table.nll.sum() / table.tokens.sum()


def original_weights(model) -> dict[str, torch.Tensor]:
    """Copies of every parameter by the name that it has without adapter."""
    return {
        name.replace(".base_layer", ""): parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    }


def test_pairs_are_harmful_training_prompts_with_their_answers():
    tokenizer, found = tiny_tokenizer(), pairs()
    assert len(found) == 10
    texts = [tokenizer.decode(prompt) for prompt, _ in found]
    assert all("Tell me" in text and text.endswith("<assistant>\n") for text in texts)
    answers = [tokenizer.decode(answer) for _, answer in found]
    assert answers[2] == "Sure ok ok<eos>"
    assert all(answer[-1] == tokenizer.eos_token_id for _, answer in found)


def test_a_limit_draws_a_seeded_sample_in_the_order_of_the_file():
    everything, some = pairs(), pairs(limit=4, seed=1)
    places = [everything.index(pair) for pair in some]
    assert len(some) == 4 and places == sorted(places)
    assert some == pairs(limit=4, seed=1) and some != pairs(limit=4, seed=2)


def test_prompts_without_answers_are_refused_in_one_line():
    table = prompts().assign(answer=None)
    with pytest.raises(
        InputError, match="prompts.source.*`answer`.*interventions.fine_tuning"
    ) as e:
        training_pairs(tiny_tokenizer(), table, end_token=1, limit=5, seed=0)
    assert "\n" not in str(e.value)


def test_every_row_is_seen_once_per_epoch_beside_rows_of_its_length():
    lengths = [5, 1, 9, 3, 7, 2, 8]
    generator = np.random.default_rng(0)
    first, second = (list(epoch_batches(lengths, 3, generator)) for _ in range(2))
    for batches in (first, second):
        assert sorted(row for batch in batches for row in batch) == list(range(7))
        assert sorted(map(len, batches)) == [1, 3, 3]
        ranges = sorted((min(lengths[i] for i in b), max(lengths[i] for i in b)) for b in batches)
        assert all(left[1] < right[0] for left, right in zip(ranges, ranges[1:], strict=False))
    assert list(epoch_batches(lengths, 3, np.random.default_rng(0))) == first != second


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_answer_tokens_are_learned(architecture):
    """Against a loop over single, unpadded examples with all logits, in float64."""
    model, _ = tiny_model(architecture)
    given = pairs(5)
    total, tokens = 0.0, 0
    for prompt, answer in given:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0].double()
        for index, token in enumerate(answer):
            row = logits[len(prompt) + index - 1]
            total += float(torch.logsumexp(row, -1) - row[token])
            tokens += 1
    assert answer_loss(model, given).item() == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_adapter_learns_the_answers_and_leaves_the_weights(architecture):
    model, given = build_model(architecture), pairs()
    before, weights = mean_loss(model, given), original_weights(model)
    linear = [
        m for block in decoder_layers(model) for m in block.modules() if isinstance(m, nn.Linear)
    ]
    curve = fine_tune(model, given, SETTINGS, seed=0)
    assert len(curve) == SETTINGS["epochs"] and mean_loss(model, given) < 0.8 * before
    after = original_weights(model)
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    adapters = {name for name, _ in model.named_parameters() if "lora_A" in name}
    assert len(adapters) == len(linear) >= 4 * N_LAYERS
    assert not model.training and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_untrained_adapter_changes_nothing(architecture):
    model, given = build_model(architecture), pairs(3)
    before = completion_losses(model, given, max_tokens=1000)
    assert all("lora" not in name for name in adapted_modules(model))
    add_adapter(model, rank=2, alpha=4, seed=0)
    pd.testing.assert_frame_equal(before, completion_losses(model, given, max_tokens=1000))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }


def test_the_adapter_works_in_every_block_but_not_outside():
    names = adapted_modules(tiny_model("llama")[0])
    assert len(names) == 7 * N_LAYERS and "lm_head" not in names
    assert {name.split("layers.")[1].split(".")[0] for name in names} == set("012")


def test_a_model_without_linear_layers_is_refused():
    model = build_model("llama")
    for block in decoder_layers(model):
        block.self_attn, block.mlp = nn.Identity(), nn.Identity()
    with pytest.raises(InputError, match="llama has no linear layer.*interventions.fine_tuning"):
        adapted_modules(model)


def test_the_same_seed_gives_the_same_model_and_another_seed_another():
    given, losses = pairs(), []
    for seed in (3, 3, 4):
        model = build_model("gpt_neox")
        state = torch.random.get_rng_state()
        fine_tune(model, given, SETTINGS, seed=seed)
        assert torch.equal(state, torch.random.get_rng_state()), "the global generator was used"
        losses.append(completion_losses(model, given, max_tokens=1000).nll)
    pd.testing.assert_series_equal(losses[0], losses[1], check_exact=True)
    assert not np.allclose(losses[0], losses[2])


def test_a_fine_tuned_model_answers_as_it_was_taught(tmp_path, monkeypatch):
    """Greedy decoding with the cache goes through the adapter too; nothing is written."""
    monkeypatch.chdir(tmp_path)
    model, tokenizer = build_model("llama"), tiny_tokenizer()
    given = [(prompt, tokenizer("Sure")["input_ids"] + [3]) for prompt, _ in pairs()]
    fine_tune(model, given, SETTINGS | {"epochs": 15}, seed=0)
    limits = {"eos_ids": [3], "pad_id": 0, "max_new_tokens": 12, "max_tokens": 1000}
    completions = generate(model, [prompt for prompt, _ in given], **limits)
    texts = [tokenizer.decode(c.tokens, skip_special_tokens=True) for c in completions]
    assert texts == ["Sure"] * len(given)
    assert list(tmp_path.rglob("*")) == []


def test_a_diverging_training_is_an_error():
    settings = SETTINGS | {"learning_rate": math.inf}
    with pytest.raises(InputError, match="fine_tuning.learning_rate: the loss diverged"):
        fine_tune(build_model("llama"), pairs(4), settings, seed=0)


# --- as an entry of `interventions` -----------------------------------------------------------


def recipe() -> dict:
    return expand_interventions({"tuned": {"operator": "fine_tune"}})["tuned"]


def test_the_recipe_has_a_family_of_its_own_and_no_direction():
    made = recipe()
    assert made["family"] == "fine_tuning" and made["direction"] is None
    assert made["selection"] is None and made["tokens"] is None and made["k"] is None


@pytest.mark.parametrize("key, value", [("direction", "dim"), ("scope", "all"), ("alpha", 2)])
def test_other_keys_do_not_apply(key, value):
    with pytest.raises(InputError, match=f"tuned.{key}: does not apply to operator fine_tune"):
        expand_interventions({"tuned": {"operator": "fine_tune", key: value}})


def test_it_is_saved_like_others_but_no_hook_applies_it(tmp_path):
    path = tmp_path / "tuned.json"
    save_intervention(path, build_intervention("tuned", recipe()))
    loaded = load_intervention(path)
    assert loaded.recipe["operator"] == "fine_tune" and loaded.operator.is_identity
    assert loaded.layer is None and path.with_suffix(".npz").is_file()
    error = pytest.raises(InputError, match="tuned: made by training, not by hooks")
    with error, steering(tiny_model("llama")[0], loaded):
        pass
