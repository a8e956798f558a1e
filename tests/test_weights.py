"""Edited weights: the algebra, hooks against weights, and that nothing of it stays behind."""

import copy
import re

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import N_LAYERS, WIDTH, build_model
from transformers import AutoConfig, AutoModelForCausalLM

from refusal import weights
from refusal.directions import random_subspace
from refusal.equivalence import (
    PROMPT_COLUMNS,
    compare_with_hooks,
    equivalence_summary,
    prompts_table,
)
from refusal.errors import InputError
from refusal.interventions import Intervention, Operator, steering
from refusal.models import check_write_modules
from refusal.statistics import SUMMARY_COLUMNS, Intervals, wilson_interval
from refusal.tables.weights import weights_table
from refusal.weights import edited_weights, has_post_norms, write_matrices

# GPT-2: Conv1D instead of nn.Linear, learned positions.
PRE_NORM = ("llama", "qwen2", "mistral", "phi3", "gpt_neox", "gpt2")
POST_NORM = ("gemma2", "gemma3", "olmo2")
IDS = torch.randint(7, 107, (2, 20), generator=torch.Generator().manual_seed(1))
# Hooks in every write equal the edit for every alpha; hooks at every site for alpha 1 only.
CASES = [("writes", 1, 1.0), ("all", 1, 1.0), ("all", 4, 1.0), ("writes", 4, 2.0)]
CASES += [("writes", 3, 0.5), ("writes", 2, -1.0)]
# Orthonormal to the last bit also in float32, so that float64 has nothing to round.
EXACT = torch.zeros(2, WIDTH)
EXACT[0, [1, 5, 8, 20]] = torch.tensor([0.5, -0.5, 0.5, 0.5])
EXACT[1, [2, 5, 9, 8]] = torch.tensor([0.5, 0.5, 0.5, 0.5])


def projection(k=1, alpha=1.0, seed=0):
    return Operator.project(random_subspace(WIDTH, k, seed).basis, alpha)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def hooked(model, operator, scope="writes"):
    with steering(model, Intervention(operator, scope)):
        return logits(model)


def edited(model, operator):
    with edited_weights(model, operator):
        return logits(model)


def variant(model, **settings):
    """The same parameters in a model with other settings; parameters that are new are random."""
    config = copy.deepcopy(model.config)
    for name, value in settings.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    other = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    missing = other.load_state_dict(model.state_dict(), strict=False).missing_keys
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name in missing:
                parameter.normal_()
    return other


def tied(architecture):
    model = variant(build_model(architecture), tie_word_embeddings=True)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return model


def biased(architecture="llama"):
    return variant(build_model(architecture), attention_bias=True, mlp_bias=True)


# --- equality with hooks ----------------------------------------------------------------------


@pytest.mark.parametrize("architecture", PRE_NORM)
@pytest.mark.parametrize(("scope", "k", "alpha"), CASES)
def test_edited_weights_equal_hooks_in_the_logits(architecture, scope, k, alpha):
    model, operator = build_model(architecture), projection(k, alpha)
    expected = hooked(model, operator, scope)
    assert (expected - logits(model)).abs().max() > 0.1, "the intervention must do something"
    torch.testing.assert_close(edited(model, operator), expected, rtol=0, atol=1e-4)


class ExactNorm(torch.nn.Module):
    """RMSNorm in the type of its input; those of transformers compute in float32."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, h):
        return self.weight * h * (h.square().mean(-1, keepdim=True) + self.eps).rsqrt()


@pytest.mark.parametrize("architecture", PRE_NORM)
@pytest.mark.parametrize(("scope", "alpha"), [("all", 1.0), ("writes", 1.0), ("writes", 2.0)])
def test_in_float64_they_are_equal_to_nine_digits(architecture, scope, alpha):
    model = build_model(architecture).double()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                setattr(module, name, ExactNorm(child))
    operator = Operator.project(EXACT, alpha)
    expected = hooked(model, operator, scope)
    assert expected.dtype == torch.float64
    torch.testing.assert_close(edited(model, operator), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("architecture", [*PRE_NORM, "gemma2"])
def test_a_tied_head_keeps_the_unedited_matrix(architecture):
    model, operator = tied(architecture), projection(4)
    weight = model.get_input_embeddings().weight
    before = weight.clone()
    if architecture in PRE_NORM:
        expected = hooked(model, operator, "all")
        torch.testing.assert_close(edited(model, operator), expected, rtol=0, atol=1e-4)
    with edited_weights(model, operator):
        assert torch.equal(model.get_output_embeddings().weight, before)
        assert not torch.allclose(model.get_input_embeddings().weight, before, atol=1e-3)
    assert model.get_output_embeddings().weight is weight
    assert model.get_input_embeddings().weight is weight


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_biases_are_edited_too(alpha):
    model, operator = biased(), projection(2, alpha)
    attention, mlp = model.model.layers[1].self_attn.o_proj, model.model.layers[1].mlp.down_proj
    assert attention.bias.norm() > 1 and mlp.bias.norm() > 1
    expected = hooked(model, operator)
    torch.testing.assert_close(edited(model, operator), expected, rtol=0, atol=1e-4)
    before = [layer.bias.clone() for layer in (attention, mlp)]
    with edited_weights(model, operator):
        for layer, bias in zip((attention, mlp), before, strict=True):
            torch.testing.assert_close(layer.bias, operator(bias), rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", POST_NORM)
def test_with_post_norms_they_differ_and_all_is_restored(architecture):
    model, operator = build_model(architecture), projection(1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = logits(model)
    assert (edited(model, operator) - hooked(model, operator)).abs().max() > 1e-3
    assert (edited(model, operator) - before).abs().max() > 1e-3
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("architecture", [*PRE_NORM, *POST_NORM])
def test_post_norms_are_recognised(architecture):
    assert has_post_norms(build_model(architecture)) == (architecture in POST_NORM)


def test_greedy_generation_with_a_cache_is_that_under_hooks():
    model, operator = build_model("gpt_neox"), projection(1)

    def generate():
        return model.generate(input_ids=IDS, max_new_tokens=12, do_sample=False)

    with steering(model, Intervention(operator, "all")):
        expected = generate()
    with steering(model, Intervention(operator, "weights")):
        assert torch.equal(generate(), expected)


# --- the edit itself --------------------------------------------------------------------------


# Two layers per architecture by name, independent of how they are found.
NAMED = {
    "llama": ("model.layers.1.self_attn.o_proj", "model.layers.2.mlp.down_proj"),
    "phi3": ("model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "gemma3": ("model.layers.0.self_attn.o_proj", "model.layers.2.mlp.down_proj"),
    "gpt_neox": ("gpt_neox.layers.1.attention.dense", "gpt_neox.layers.0.mlp.dense_4h_to_h"),
    "gpt2": ("transformer.h.1.attn.c_proj", "transformer.h.2.mlp.c_proj"),
}


@pytest.mark.parametrize("architecture", NAMED)
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_matrices_equal_the_dense_product_in_float64(architecture, alpha):
    model, operator = build_model(architecture), projection(3, alpha)
    basis = operator.read.double()
    matrix = torch.eye(WIDTH, dtype=torch.float64) - alpha * basis.T @ basis
    layers = [model.get_submodule(name) for name in NAMED[architecture]]
    weight = [layer.weight.double() for layer in layers]
    embedding = model.get_input_embeddings().weight.double()
    if architecture == "gpt2":
        expected = [w @ matrix for w in weight]
    else:
        expected = [matrix @ w for w in weight]
    with edited_weights(model, operator):
        for layer, want in zip(layers, expected, strict=True):
            torch.testing.assert_close(layer.weight, want.float(), rtol=0, atol=1e-6)
        got = model.get_input_embeddings().weight
        torch.testing.assert_close(got, (embedding @ matrix).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("architecture", [*PRE_NORM, *POST_NORM])
def test_two_layers_per_block_and_the_embeddings_are_found(architecture):
    model = build_model(architecture)
    names = {module: name for name, module in model.named_modules()}
    found = write_matrices(model)
    n_embeddings = 2 if architecture == "gpt2" else 1
    assert len(found) == len(set(found)) == n_embeddings + 2 * N_LAYERS
    assert found[0] is model.get_input_embeddings()
    assert all(isinstance(module, torch.nn.Embedding) for module in found[:n_embeddings])
    assert all(str(n // 2) in names[module] for n, module in enumerate(found[n_embeddings:]))
    assert model.get_output_embeddings() not in found
    for name in NAMED.get(architecture, ()):
        assert model.get_submodule(name) in found


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_nothing_can_write_along_an_ablated_direction(architecture):
    model, operator = build_model(architecture), projection(2)
    with edited_weights(model, operator):
        for module in write_matrices(model):
            turned = isinstance(module, torch.nn.Linear)
            rows = module.weight.T if turned else module.weight
            assert (rows @ operator.read.T).abs().max() < 1e-5 * rows.norm()


def test_editing_twice_is_editing_once_and_reflecting_twice_is_nothing():
    model, before = build_model("gpt_neox"), logits(build_model("gpt_neox"))
    remove, reflect = projection(3), projection(3, 2.0)
    once = edited(model, remove)
    with edited_weights(model, remove):
        torch.testing.assert_close(edited(model, remove), once, rtol=0, atol=1e-4)
        assert torch.allclose(logits(model), once, rtol=0, atol=0), "the inner edit must end"
    with edited_weights(model, reflect):
        assert (logits(model) - before).abs().max() > 0.1
        torch.testing.assert_close(edited(model, reflect), before, rtol=0, atol=1e-4)


def test_hooks_that_are_in_force_do_not_hide_the_matrices():
    model, operator = build_model("llama"), projection(2)
    with steering(model, Intervention(operator, "all")):
        got = edited(model, operator)
    torch.testing.assert_close(got, hooked(model, operator, "all"), rtol=0, atol=1e-4)


def test_the_edit_does_not_depend_on_the_size_of_its_chunks(monkeypatch):
    model, operator = biased(), projection(4, 2.0)
    with edited_weights(model, operator):
        whole = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(weights, "_CHUNK", 5 * WIDTH)
    with edited_weights(model, operator):
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, whole[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types_and_gradients_are_kept(dtype):
    model = build_model("llama").to(dtype)
    with edited_weights(model, projection(2)):
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        assert not any(parameter.requires_grad for parameter in model.parameters())


# --- afterwards -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [*PRE_NORM, *POST_NORM])
def test_parameters_are_the_same_objects_and_bits_afterwards_also_after_an_error(architecture):
    model = build_model(architecture)
    names, objects = list(model.state_dict()), dict(model.named_parameters())
    values = {name: parameter.clone() for name, parameter in objects.items()}
    with edited_weights(model, projection(3, 2.0)):
        changed = [n for n, p in model.named_parameters() if not torch.equal(p, values[n])]
        assert len(changed) >= 1 + 2 * N_LAYERS
        assert list(model.state_dict()) == names
    with pytest.raises(KeyError, match="within"), edited_weights(model, projection(3, 2.0)):
        raise KeyError("within")
    for name, parameter in model.named_parameters():
        assert parameter is objects[name]
        assert torch.equal(parameter, values[name])
    assert list(model.state_dict()) == names


def test_an_error_half_way_through_the_edit_leaves_the_model_as_it_was(monkeypatch):
    model, operator = build_model("llama"), projection(1)
    before, calls = dict(model.named_parameters()), []
    original = weights._operated

    def failing(rows, operator):
        calls.append(rows)
        if len(calls) == 4:
            raise MemoryError
        return original(rows, operator)

    monkeypatch.setattr(weights, "_operated", failing)
    with pytest.raises(MemoryError), edited_weights(model, operator):
        pass
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


@pytest.mark.parametrize("operator", [Operator.identity(), projection(2, 0.0)])
def test_the_identity_edits_nothing(operator):
    model = build_model("llama")
    before = dict(model.named_parameters())
    with edited_weights(model, operator):
        assert all(parameter is before[name] for name, parameter in model.named_parameters())


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operator",
    [
        Operator.add(torch.ones(WIDTH)),
        Operator.alterrep(EXACT, 1),
        Operator.project(EXACT, 1.0, torch.ones(WIDTH)),
        Operator.project(EXACT.expand(3, 2, WIDTH)),
        Operator.project(torch.eye(WIDTH + 1)[:1]),
    ],
)
def test_operators_that_no_edit_can_make_are_refused(operator):
    model = build_model("llama")
    before = dict(model.named_parameters())
    with (
        pytest.raises(InputError, match="scope 'weights'.*Remedy"),
        edited_weights(model, operator),
    ):
        pass
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def small(model_type, **settings):
    shared = {"vocab_size": 120, "hidden_size": WIDTH, "num_hidden_layers": 2}
    shared |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    config = AutoConfig.for_model(model_type, **(shared | settings))
    return AutoModelForCausalLM.from_config(config).eval()


def test_a_mixture_of_experts_is_refused_in_one_line():
    model = small("mixtral", num_local_experts=3)
    check_write_modules(model)  # hooks can do it, only the weights cannot
    with pytest.raises(InputError, match="mixtral: the MLP output of block 0") as caught:
        edited(model, projection(1))
    assert "\n" not in str(caught.value)
    assert "experiments.weights: false" in str(caught.value)


def test_a_norm_after_the_embedding_is_refused_in_one_line():
    model = small("bloom", n_head=4, n_layer=2)
    with pytest.raises(InputError, match="bloom: the first block does not read") as caught:
        write_matrices(model)
    assert "\n" not in str(caught.value)
    assert "experiments.weights: false" in str(caught.value)


def test_weights_that_are_not_in_memory_are_refused():
    model = small("llama").to(torch.device("meta"))
    layer = model.model.layers[0].mlp.down_proj
    with pytest.raises(InputError, match="kept on disk.*experiments.weights: false"):
        weights._edited(model, layer, layer.weight, projection(1))


# --- the comparison with hooks ----------------------------------------------------------------

INTERVALS = Intervals(resamples=100)
SEQUENCES = [IDS[0, :7].tolist(), IDS[1].tolist(), IDS[0, 3:].tolist()]
PROMPTS = pd.DataFrame({"id": ["a", "b", "c"], "label": ["harmful", "harmful", "harmless"]})
RECIPES = {
    name: {"family": "dim", "operator": "project", "scope": "weights", "alpha": alpha}
    for name, alpha in (("removed", 1.0), ("flipped", 2.0))
}


def compared(architecture, dtype=torch.float32):
    model = build_model(architecture).to(dtype)
    operators = {"removed": projection(1), "flipped": projection(3, 2.0)}
    rows = compare_with_hooks(model, SEQUENCES, operators, max_tokens=64)
    return model, operators, prompts_table("m", model, rows, PROMPTS)


def test_comparison_equals_a_loop_over_single_prompts():
    model, operators, table = compared("gemma2")
    assert list(table.columns) == PROMPT_COLUMNS
    assert len(table) == 9, "three prompts: removed by hooks of two scopes, flipped by one"
    for row in table.itertuples():
        ids = torch.tensor([SEQUENCES[list(PROMPTS.id).index(row.id)]])
        operator = operators[row.intervention]
        with torch.no_grad():
            plain = model(input_ids=ids).logits[0, -1]
            with steering(model, Intervention(operator, row.hooks)):
                by_hooks = model(input_ids=ids).logits[0, -1]
            with edited_weights(model, operator):
                by_weights = model(input_ids=ids).logits[0, -1]
        difference = (by_hooks - by_weights).abs().max().item()
        assert row.difference == pytest.approx(difference, abs=1e-4)
        assert row.change == pytest.approx((by_hooks - plain).abs().max().item(), abs=1e-4)
        assert row.same_next_token == (by_hooks.argmax() == by_weights.argmax()).item()


def by_metric(table):
    rows = equivalence_summary("s", table, RECIPES, INTERVALS)
    assert list(rows.columns) == SUMMARY_COLUMNS
    return rows.set_index(["intervention", "dataset", "metric"])


def test_summary_takes_the_largest_and_the_widest_hooks():
    columns = dict.fromkeys(PROMPT_COLUMNS, None)
    table = pd.DataFrame(
        [
            columns
            | {"model": "m", "post_norms": False, "dtype": "float32", "hooks": hooks}
            | {
                "intervention": "removed",
                "id": i,
                "label": "harmful",
                "difference": difference,
                "change": 10.0 * i,
            }
            | {"same_next_token": i != 2}
            for hooks, values in (("all", [1e-6, 3e-6, 2e-6]), ("writes", [4e-6, 5e-6, 7e-6]))
            for i, difference in enumerate(values)
        ]
    )
    rows = by_metric(table).loc["removed", "harmful"]
    for metric, value in (
        ("logit_difference", 3e-6),
        ("logit_difference_writes", 7e-6),
        ("logit_change", 20.0),
    ):
        assert rows.loc[metric, ["value", "low", "high"]].tolist() == [value] * 3
        assert rows.loc[metric, "n"] == 3
    low, high = wilson_interval(2, 3)
    same = rows.loc["same_next_token", ["value", "low", "high"]].to_numpy(dtype=float)
    np.testing.assert_allclose(same, [2 / 3, low, high])


def test_what_is_not_a_number_is_no_agreement():
    _, _, table = compared("llama")
    table.loc[(table.id == "a") & (table.hooks == "all"), "difference"] = np.nan
    rows = by_metric(table)
    assert np.isnan(rows.loc[("removed", "harmful", "logit_difference"), "value"])
    assert rows.loc[("removed", "harmless", "logit_difference"), "value"] < 1e-4


def test_models_with_post_norms_are_reported_under_names_of_their_own():
    rows = by_metric(compared("gemma2")[2])
    plain = rows.loc[("removed", "harmful", "logit_difference")]
    assert np.isnan(plain.value) and "normalise" in plain.reason
    assert rows.loc[("removed", "harmful", "logit_difference_post_norm"), "value"] > 1e-3
    assert rows.loc[("flipped", "harmless", "logit_difference_post_norm"), "value"] > 1e-3
    assert np.isnan(rows.loc[("flipped", "harmless", "same_next_token"), "value"])
    rows = by_metric(compared("llama")[2])
    assert not any(metric.endswith("_post_norm") for _, _, metric in rows.index)
    assert ("flipped", "harmful", "logit_difference_writes") not in rows.index


def test_models_in_low_precision_are_reported_under_names_of_their_own():
    rows = by_metric(compared("llama", torch.bfloat16)[2])
    plain = rows.loc[("removed", "harmful", "logit_difference")]
    assert np.isnan(plain.value) and "rounded to bfloat16" in plain.reason
    assert rows.loc[("removed", "harmful", "logit_difference_rounded"), "value"] > 1e-4
    assert rows.loc[("removed", "harmful", "logit_change"), "value"] > 0.1


def test_table_shows_each_model_once_with_powers_of_ten_and_its_shares():
    tables = [compared(name)[2].assign(model=name) for name in ("llama", "gemma2")]
    summaries = [equivalence_summary("s", table, RECIPES, INTERVALS) for table in tables]
    cards = [
        {"name": name, "architecture": f"{name}_type", "dtype": "float32"}
        for name in ("gemma2", "llama", "absent")
    ]
    source = weights_table(cards, pd.concat(summaries), pd.concat(tables))
    lines = [line.split(" & ") for line in source.splitlines() if line.count("&") == 9][1:]
    assert [line[0] for line in lines] == ["gemma2", "", "llama", ""]
    assert [line[3] for line in lines] == ["yes", "", "no", ""]
    assert [line[5] == "--" for line in lines] == [False, True, False, True]
    assert all(re.fullmatch(r"\\num\{\d\.\de-[5-9]\}", line[6]) for line in lines[2:])
    assert all(re.fullmatch(r"\\num\{\d\.\d\d\}", line[6]) for line in lines[:2])
    assert all("\\scriptsize [" in text for line in lines for text in line[8:])


def test_without_an_intervention_of_scope_weights_the_remedy_is_named():
    with pytest.raises(InputError, match="experiments.weights: false"):
        compare_with_hooks(build_model("llama"), SEQUENCES, {}, max_tokens=64)
