"""The operator's algebra, where it acts in a model, and the recipes that make it."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import N_LAYERS, WIDTH, build_model, tiny_model

from refusal.batching import left_pad, position_ids
from refusal.directions import Direction, leace, random_subspace
from refusal.errors import InputError
from refusal.generations import generate
from refusal.interventions import (
    Intervention,
    build_intervention,
    load_intervention,
    save_intervention,
    steering,
)
from refusal.models import (
    block_input,
    decoder_layers,
    encode_prompts,
    first_tensor,
    removing,
    write_modules,
)
from refusal.operators import Operator
from refusal.recipes import expand_interventions

SCOPES = ("source", "writes", "all")
IDS = torch.randint(7, 107, (2, 20), generator=torch.Generator().manual_seed(1))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def basis_of(k, width=WIDTH, seed=0):
    return random_subspace(width, k, seed).basis


def intervention(operator, scope="source", layer=1):
    return Intervention(operator, scope, layer)


# --- the operator's algebra -------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("origin", [None, randn(WIDTH, seed=3)])
def test_projection_equals_the_dense_matrix_in_float64(alpha, origin):
    basis, h = basis_of(4), randn(3, 5, WIDTH)
    mu = torch.zeros(WIDTH) if origin is None else origin
    row_space = basis.double().T @ basis.double()
    expected = h.double() - alpha * (h.double() - mu.double()) @ row_space
    got = Operator.project(basis, alpha, origin)(h)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


def test_alpha_zero_returns_the_very_activation():
    h = randn(3, WIDTH)
    assert Operator.project(basis_of(4), 0.0)(h) is h
    assert Operator.identity()(h) is h


def test_projection_is_idempotent_and_leaves_nothing_along_the_basis():
    basis, h = basis_of(8), 100 * randn(50, WIDTH)
    project = Operator.project(basis)
    once = project(h)
    assert (once @ basis.T).abs().max() < 1e-5 * h.norm(dim=1).min()
    torch.testing.assert_close(project(once), once, rtol=0, atol=1e-4)


@pytest.mark.parametrize("origin", [None, randn(WIDTH, seed=3)])
def test_reflection_twice_is_the_identity(origin):
    flip, h = Operator.project(basis_of(8), 2.0, origin), randn(50, WIDTH)
    assert (flip(h) - h).norm() > 1
    torch.testing.assert_close(flip(flip(h)), h, rtol=0, atol=1e-5)


def test_affine_projection_gives_every_activation_the_coordinates_of_the_origin():
    basis, origin, h = basis_of(3), randn(WIDTH, seed=3), randn(50, WIDTH)
    got = Operator.project(basis, 1.0, origin)(h) @ basis.T
    torch.testing.assert_close(got, (origin @ basis.T).expand(50, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
def test_alterrep_equals_its_definition_as_a_plain_loop(side, alpha):
    basis, h = basis_of(5), randn(7, WIDTH)
    got = Operator.alterrep(basis, side, alpha)(h)
    for row, result in zip(h.double().numpy(), got.double().numpy(), strict=True):
        expected = row.copy()
        for w in basis.double().numpy():
            expected -= (w @ row) * w
        for w in basis.double().numpy():
            expected += side * alpha * abs(w @ row) * w
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_addition_adds_and_changes_nothing_in_place():
    h, vector = randn(3, 4, WIDTH), randn(WIDTH, seed=2)
    before = h.clone()
    assert torch.equal(Operator.add(vector)(h), before + vector)
    Operator.project(basis_of(2))(h)
    assert torch.equal(h, before)


def test_erase_is_the_oblique_affine_projection_of_the_package():
    from concept_erasure import LeaceEraser

    harmful, harmless = randn(60, WIDTH) + 1.0, randn(60, WIDTH, seed=1)
    samples = torch.cat([harmful, harmless]).double()
    labels = torch.cat([torch.ones(60), torch.zeros(60)]).double()
    direction = leace(harmful, harmless)
    got = Operator.erase(direction)(samples.float())
    expected = LeaceEraser.fit(samples, labels)(samples)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)
    assert not torch.allclose(direction.basis, direction.write, atol=1e-3), "must be oblique"
    means = got[:60].mean(0), got[60:].mean(0)
    torch.testing.assert_close(*means, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_arithmetic_is_float32_or_better_and_the_type_is_kept(dtype):
    operator, h = Operator.project(basis_of(4), 2.0, randn(WIDTH, seed=3)), randn(9, WIDTH)
    h = h.to(dtype)
    got = operator(h)
    assert got.dtype == dtype
    if dtype == torch.float64:
        torch.testing.assert_close(operator(got), h, rtol=0, atol=1e-6)
    else:
        assert torch.equal(got, operator(h.float()).to(dtype))


def test_no_matrix_of_width_squared_is_formed():
    width = 1_000_000  # squared: 4 TB
    basis = torch.nn.functional.normalize(randn(1, width), dim=1)
    assert Operator.project(basis)(randn(2, width)).shape == (2, width)


def test_tensors_follow_the_activation_to_its_device():
    """As in a model spread over devices; "meta" is a second device that every machine has."""
    bases = torch.stack([basis_of(3, seed=seed) for seed in range(4)])
    operators = [
        Operator.project(bases[0], 2.0, randn(WIDTH)),
        Operator.project(bases),
        Operator.add(randn(WIDTH)),
        Operator.alterrep(bases[0], 1),
    ]
    for operator in operators:
        for device in ("cpu", "meta", "cpu"):
            assert operator(torch.zeros(4, 6, WIDTH, device=device)).device.type == device


def test_batched_operator_equals_a_loop_of_single_ones():
    bases = torch.stack([basis_of(3, seed=seed) for seed in range(4)])
    origins, vectors, h = randn(4, WIDTH), randn(4, WIDTH, seed=1), randn(4, 6, WIDTH, seed=2)
    cases = [
        (Operator.project(bases, 2.0), [Operator.project(b, 2.0) for b in bases]),
        (
            Operator.project(bases, 1.0, origins),
            [Operator.project(b, 1.0, o) for b, o in zip(bases, origins, strict=True)],
        ),
        (Operator.add(vectors), [Operator.add(v) for v in vectors]),
        (Operator.alterrep(bases, -1, 2.0), [Operator.alterrep(b, -1, 2.0) for b in bases]),
    ]
    for batched, singles in cases:
        expected = torch.stack([one(row) for one, row in zip(singles, h, strict=True)])
        torch.testing.assert_close(batched(h), expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(batched(h[:, -1]), expected[:, -1], rtol=0, atol=2e-6)


def test_stack_mixes_ranks_strengths_and_kinds():
    singles = [
        Operator.project(basis_of(3), 2.0),
        Operator.identity(),
        Operator.add(randn(WIDTH)),
        Operator.project(basis_of(1), 1.0, randn(WIDTH, seed=5)),
        Operator.project(basis_of(2), 0.0),
    ]
    h = randn(5, 6, WIDTH, seed=2)
    got = Operator.stack(singles)(h)
    expected = torch.stack([one(row) for one, row in zip(singles, h, strict=True)])
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)
    assert torch.equal(got[[1, 4]], h[[1, 4]])
    with pytest.raises(ValueError, match="stacked"):
        Operator.stack([Operator.alterrep(basis_of(1), 1)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Operator(randn(2, 4), randn(3, 4)), "alike"),
        (lambda: Operator(randn(4), randn(4)), "alike"),
        (lambda: Operator.project(basis_of(2), 1.0, randn(WIDTH - 1)), "origin must have shape"),
        (lambda: Operator(randn(2, 4), randn(2, 4), shift=randn(2, 4)), "shift must have shape"),
        (lambda: Operator.add(torch.tensor([1.0, float("nan")])), "shift has NaN"),
        (lambda: Operator.project(basis_of(2), float("inf")), "alpha must be finite"),
        (lambda: Operator.project(2 * basis_of(2)), "not orthonormal"),
        (lambda: Operator.alterrep(basis_of(2), 0), "side must be"),
        (lambda: Operator.erase(Direction(basis_of(1))), "leace"),
    ],
)
def test_operators_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- where it acts ----------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_alpha_zero_equals_the_unhooked_model_exactly(architecture, scope):
    model, _ = tiny_model(architecture)
    expected = model(input_ids=IDS).logits
    with steering(model, intervention(Operator.project(basis_of(4), 0.0), scope)):
        assert any(block._forward_pre_hooks for block in decoder_layers(model))
        assert torch.equal(model(input_ids=IDS).logits, expected)
    assert torch.equal(model(input_ids=IDS).logits, expected)


class SiteRecorder:
    """What leaves every site of a model; made inside `steering`, it sees the steered values."""

    def __init__(self, model):
        self.inputs, self.writes, self.outputs = {}, {}, {}
        self.handles = []
        layers = enumerate(zip(decoder_layers(model), write_modules(model), strict=True))
        for layer, (block, parts) in layers:
            self.handles += [
                block.register_forward_pre_hook(self.keep_input(layer), with_kwargs=True),
                block.register_forward_hook(self.keep(self.outputs, layer)),
                parts[0].register_forward_hook(self.keep(self.writes, (layer, "attention"))),
                parts[1].register_forward_hook(self.keep(self.writes, (layer, "mlp"))),
            ]

    def keep(self, table, key):
        def hook(module, args, output):
            table[key] = first_tensor(output).clone()

        return hook

    def keep_input(self, layer):
        def hook(module, args, kwargs):
            self.inputs[layer] = block_input(args, kwargs).clone()

        return hook

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("k", [1, 8])
@pytest.mark.parametrize("scope", SCOPES)
def test_ablation_leaves_no_component_at_any_hooked_site(architecture, scope, k):
    model, _ = tiny_model(architecture)
    basis = basis_of(k)
    with (
        steering(model, intervention(Operator.project(basis), scope)),
        SiteRecorder(model) as seen,
    ):
        model(input_ids=IDS)
    if scope == "source":
        sites = [seen.inputs[1]]
    else:
        # With clean writes every block input is clean too: the sum of what was written.
        sites = [*seen.inputs.values(), *seen.writes.values()]
    for h in sites:
        assert ((h @ basis.T).norm(dim=-1) < 1e-5 * h.norm(dim=-1)).all()


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_writes_scope_changes_every_addend_of_the_residual_stream_once(architecture, alpha):
    model, _ = tiny_model(architecture)
    operator = Operator.project(basis_of(4), alpha)
    with (
        SiteRecorder(model) as before,  # registered first: sees what the modules themselves give
        steering(model, intervention(operator, "writes")),
        SiteRecorder(model) as after,
    ):
        model(input_ids=IDS)
    addends = [before.inputs[0], *before.writes.values()]
    expected = sum(operator(addend) for addend in addends)
    torch.testing.assert_close(after.outputs[N_LAYERS - 1], expected, rtol=1e-4, atol=1e-4)
    running = operator(before.inputs[0])
    for layer in range(N_LAYERS):
        torch.testing.assert_close(after.inputs[layer], running, rtol=1e-4, atol=1e-4)
        running = running + sum(operator(before.writes[layer, p]) for p in ("attention", "mlp"))


@pytest.mark.parametrize(
    ("architecture", "attention_out", "mlp_out"),
    [
        ("llama", "self_attn.o_proj", "mlp.down_proj"),
        ("gpt_neox", "attention.dense", "mlp.dense_4h_to_h"),
    ],
)
def test_flipping_the_writes_equals_editing_the_weights(architecture, attention_out, mlp_out):
    basis = basis_of(3)
    edit = torch.eye(WIDTH) - 2.0 * basis.T @ basis
    model, _ = tiny_model(architecture)
    edited = build_model(architecture)
    embedding = edited.get_input_embeddings().weight
    embedding.copy_(embedding @ edit)
    for block in decoder_layers(edited):
        for name in (attention_out, mlp_out):
            linear = block.get_submodule(name)
            linear.weight.copy_(edit @ linear.weight)
            if linear.bias is not None:
                linear.bias.copy_(edit @ linear.bias)
    with steering(model, intervention(Operator.project(basis, 2.0), "writes")):
        got = model(input_ids=IDS).logits
    expected = edited(input_ids=IDS).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got, model(input_ids=IDS).logits, atol=1e-2)


def test_source_scope_changes_the_input_of_one_block_only(architecture):
    model, _ = tiny_model(architecture)
    vector = randn(WIDTH)
    with SiteRecorder(model) as plain:
        model(input_ids=IDS)
    with (
        steering(model, intervention(Operator.add(vector), "source", 1)),
        SiteRecorder(model) as seen,
    ):
        model(input_ids=IDS)
    assert torch.equal(seen.inputs[0], plain.inputs[0])
    assert torch.equal(seen.inputs[1], plain.inputs[1] + vector)
    assert not torch.allclose(seen.inputs[2], plain.inputs[2])


def test_batched_operator_steers_each_row_by_itself(architecture):
    model, tokenizer = tiny_model(architecture)
    sequences = encode_prompts(tokenizer, ["Go", "Tell me a longer joke", "Why?"])
    singles = [Operator.project(basis_of(2, seed=seed), 2.0) for seed in range(3)]
    ids, mask = left_pad(sequences, 0)
    with steering(model, intervention(Operator.stack(singles), "writes")):
        batch = model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).logits
    for row, (one, sequence) in enumerate(zip(singles, sequences, strict=True)):
        with steering(model, intervention(one, "writes")):
            expected = model(input_ids=torch.tensor([sequence])).logits[0, -1]
        torch.testing.assert_close(batch[row, -1], expected, rtol=1e-3, atol=1e-4)


def test_generated_tokens_are_steered_like_the_prompt(architecture):
    model, _ = tiny_model(architecture)
    ids = IDS[:1]
    with steering(model, intervention(Operator.project(basis_of(4), 2.0), "writes")):
        cached = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=-1)
        for _ in range(6):
            logits = model(input_ids=ids, use_cache=False).logits[:, -1]
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(cached, ids)


def hooks_of(model) -> list[tuple[dict, dict]]:
    """All hooks of a model; transformers keeps some of its own on a model that it has traced."""
    return [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]


def test_hooks_are_removed_also_after_an_error():
    model, _ = tiny_model("llama")
    before = hooks_of(model)
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        steering(model, intervention(Operator.project(basis_of(1)), "all")),
    ):
        raise RuntimeError("on purpose")
    assert hooks_of(model) == before


def test_hooks_are_removed_when_registering_fails(monkeypatch):
    model, _ = tiny_model("llama")
    before = hooks_of(model)

    def fail(*args, **kwargs):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(write_modules(model)[-1][1], "register_forward_hook", fail)
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        steering(model, intervention(Operator.project(basis_of(1)), "all")),
    ):
        pass
    assert hooks_of(model) == before


@pytest.mark.parametrize(
    "operator",
    [
        Operator.project(basis_of(1), 2.0),
        Operator.add(randn(WIDTH)),
        Operator.alterrep(basis_of(1), 1, 4.0),
    ],
)
def test_scope_all_is_refused_where_acting_twice_differs(operator):
    with pytest.raises(InputError, match="alpha 1 only"):
        intervention(operator, "all")


def test_interventions_of_another_model_are_refused():
    model, _ = tiny_model("llama")
    cases = {
        "made for width 16": intervention(Operator.project(basis_of(1, 16))),
        "layers 0 to 2": intervention(Operator.project(basis_of(1)), layer=3),
    }
    for message, wrong in cases.items():
        with pytest.raises(InputError, match=message), steering(model, wrong):
            pass
    with pytest.raises(InputError, match="layer"):
        Intervention(Operator.project(basis_of(1)), "source")
    with pytest.raises(InputError, match="everywhere"):
        Intervention(Operator.project(basis_of(1)), "everywhere", 0)


# --- some tokens, some layers -------------------------------------------------------------------


def greedy_tokens(model, prompt, n_tokens, forward):
    """Plain greedy decoding without a cache; `forward(ids, prompt_length)` gives all logits."""
    ids = list(prompt)
    for _ in range(n_tokens):
        ids.append(int(forward(torch.tensor([ids]), len(prompt))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("tokens", ["prompt", "last", "generated"])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox"])
def test_steering_of_some_tokens_equals_a_mask_over_positions(name, tokens):
    model, _ = tiny_model(name)
    prompts = [IDS[0].tolist(), IDS[1, :13].tolist()]
    operator = Operator.add(4 * randn(WIDTH, seed=5))
    block = decoder_layers(model)[1]

    def forward(ids, prompt_length):
        inside = {
            "prompt": torch.arange(ids.shape[1]) < prompt_length,
            "last": torch.arange(ids.shape[1]) == prompt_length - 1,
            "generated": torch.arange(ids.shape[1]) >= prompt_length,
        }[tokens]

        def hook(module, args, kwargs):
            h = block_input(args, kwargs)
            h = torch.where(inside[:, None], operator(h), h)
            return ((h, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": h})

        handle = block.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            return model(input_ids=ids, use_cache=False).logits
        finally:
            handle.remove()

    expected = [greedy_tokens(model, prompt, 8, forward) for prompt in prompts]
    with steering(model, Intervention(operator, "source", 1, tokens=tokens)):
        completions = generate(
            model, prompts, eos_ids=[], pad_id=0, max_new_tokens=8, max_tokens=1000
        )
    assert [completion.tokens for completion in completions] == expected
    everywhere = Intervention(operator, "source", 1)
    with steering(model, everywhere):
        completions = generate(
            model, prompts, eos_ids=[], pad_id=0, max_new_tokens=8, max_tokens=1000
        )
    assert [completion.tokens for completion in completions] != expected


@pytest.mark.parametrize("scope", ["all", "writes"])
def test_a_window_acts_on_its_layers_only(architecture, scope):
    model, _ = tiny_model(architecture)
    operator = Operator.project(basis_of(2))
    seen = {}

    def run(window):
        handles = []
        with removing(handles), steering(model, Intervention(operator, scope, 1, window=window)):
            for layer, modules in enumerate(write_modules(model)):
                for part, module in enumerate(modules):
                    handles.append(
                        module.register_forward_hook(
                            lambda m, a, output, key=(layer, part): seen.__setitem__(
                                key, first_tensor(output)
                            )
                        )
                    )
            return model(input_ids=IDS, use_cache=False).logits

    whole = run(None)
    assert torch.equal(run((0, N_LAYERS)), whole)
    run((1, 1))
    for (layer, _), written in seen.items():
        component = (written @ basis_of(2).T).abs().max()
        assert (component < 1e-5) == (layer == 1)


# --- from the config to recipes ---------------------------------------------------------------

VALID = {
    "none": {"operator": "none"},
    "dim_addition": {
        "direction": "dim",
        "operator": "add",
        "strength": [-0.5, 2],
        "scope": "source",
    },
    "inlp": {
        "direction": "inlp_faithful",
        "operator": "project",
        "alpha": 2,
        "k": [4, "full"],
        "scope": ["source", "writes"],
    },
    "alter": {
        "direction": "inlp_corrected",
        "operator": "alterrep",
        "side": ["harmless", "harmful"],
    },
    "affine": {
        "direction": "dim",
        "operator": "project",
        "origin": ["harmless"],
        "scope": "source",
    },
    "random_ablation": {
        "direction": "random",
        "operator": "project",
        "scope": "all",
        "draw": [0, 3],
    },
    "leace": {"direction": "leace", "operator": "erase", "family": "concept erasure"},
    "sweep": {"direction": "inlp_faithful", "operator": "project", "alpha": [0, 1.0, 1.5]},
}


def test_lists_expand_to_named_recipes():
    recipes = expand_interventions(VALID, draws=5)
    assert list(recipes) == [
        "none",
        "dim_addition-strength-0.5",
        "dim_addition-strength2",
        "inlp-k4-source",
        "inlp-k4-writes",
        "inlp-kfull-source",
        "inlp-kfull-writes",
        "alter-harmless",
        "alter-harmful",
        "affine-harmless",
        "random_ablation-draw0",
        "random_ablation-draw3",
        "leace",
        "sweep-alpha0",
        "sweep-alpha1",
        "sweep-alpha1.5",
    ]
    assert all(recipe["name"] == name for name, recipe in recipes.items())
    assert json.loads(json.dumps(recipes)) == recipes
    flip = recipes["inlp-kfull-writes"]
    assert (flip["k"], flip["alpha"], flip["scope"]) == ("full", 2.0, "writes")
    assert (flip["family"], flip["origin"], flip["strength"]) == ("inlp_faithful", "zero", None)
    assert recipes["none"]["family"] == "baseline" and recipes["none"]["selection"] is None
    assert flip["selection"] == "all" and recipes["inlp-k4-source"]["selection"] == "source"
    assert recipes["leace"]["family"] == "concept erasure"
    assert recipes["random_ablation-draw3"]["draw"] == 3
    assert recipes["sweep-alpha1"]["k"] == "full" and recipes["affine-harmless"]["k"] == 1


DIM = {"direction": "dim", "operator": "project"}


@pytest.mark.parametrize(
    ("entry", "key", "part"),
    [
        ({}, "x.operator", "missing"),
        ({"operator": "projekt"}, "x.operator", "did you mean 'project'"),
        ({"operator": "project"}, "x.direction", "needs one"),
        (DIM | {"direction": "din"}, "x.direction", "did you mean 'dim'"),
        (DIM | {"scope": "everywhere"}, "x.scope", "source, writes, all or weights"),
        (DIM | {"origin": "left"}, "x.origin", "zero, harmless, midpoint or harmful"),
        (DIM | {"tokens": "first"}, "x.tokens", "all, prompt, last or generated"),
        (DIM | {"length": "harmful"}, "x.length", "only to add"),
        (DIM | {"scope": "weights", "tokens": "last"}, "x.scope", "another scope"),
        (DIM | {"scope": "weights", "origin": "harmless"}, "x.scope", "scope source"),
        (DIM | {"scopes": "all"}, "x.scopes", "scope"),
        (DIM | {"alpha": 2, "scope": "all"}, "x.scope", "alpha 1 only"),
        (DIM | {"strength": 2}, "x.strength", "only to add"),
        (DIM | {"side": "harmful"}, "x.side", "only to alterrep"),
        (DIM | {"operator": "alterrep"}, "x.side", "harmless or harmful"),
        (DIM | {"operator": "alterrep", "side": "left"}, "x.side", "left"),
        (DIM | {"operator": "alterrep", "side": "harmful", "alpha": -1}, "x.alpha", "negative"),
        (DIM | {"operator": "add", "k": 2}, "x.k", "k: 1"),
        (DIM | {"operator": "add", "scope": "writes"}, "x.scope", "source"),
        (DIM | {"operator": "add", "alpha": 1}, "x.alpha", "does not apply"),
        (DIM | {"k": 3}, "x.k", "rank 1"),
        (DIM | {"k": 0}, "x.k", "at least 1"),
        (DIM | {"k": True}, "x.k", "at least 1"),
        (DIM | {"k": "all"}, "x.k", "full"),
        (DIM | {"alpha": "big"}, "x.alpha", "number"),
        (DIM | {"alpha": float("nan")}, "x.alpha", "number"),
        (DIM | {"alpha": []}, "x.alpha", "empty list"),
        (DIM | {"direction": ["dim", "random"]}, "x.direction", "one word"),
        (DIM | {"draw": 1}, "x.draw", "not random"),
        (DIM | {"direction": "random", "draw": 5}, "x.draw", "below 5"),
        (DIM | {"direction": "leace"}, "x.direction", "erase"),
        (DIM | {"operator": "erase"}, "x.direction", "leace"),
        (DIM | {"origin": "midpoint", "scope": "all"}, "x.scope", "source"),
        (DIM | {"selection": "writes"}, "x.selection", "source or all"),
        (DIM | {"above_rank": "ignore"}, "x.above_rank", "error or full"),
        (DIM | {"alpha": [1, 1.0]}, "x", "twice"),
        ("project", "x", "must hold keys"),
    ],
)
def test_mistakes_give_one_line_with_key_and_remedy(entry, key, part):
    with pytest.raises(InputError) as caught:
        expand_interventions({"x": entry}, draws=5)
    message = str(caught.value)
    assert message.startswith(f"interventions.{key}: ") and part in message
    assert "Remedy: " in message and "\n" not in message


def test_names_that_meet_and_names_that_are_no_files_are_refused():
    with pytest.raises(InputError, match="twice"):
        expand_interventions({"x": DIM | {"alpha": [2]}, "x-alpha2": DIM})
    with pytest.raises(InputError, match="file name"):
        expand_interventions({"a/b": DIM})


# --- from a recipe to an intervention ---------------------------------------------------------

CANDIDATE = (-2, 1)


@pytest.fixture(scope="module")
def means():
    return tuple(randn(3, N_LAYERS, WIDTH, seed=seed).double().numpy() for seed in (7, 8))


@pytest.fixture(scope="module")
def dim(means):
    r = torch.from_numpy(means[0] - means[1])[-2, 1]
    return Direction((r / r.norm()).float()[None], norm=r.norm().item())


def build(entry, directions, means, *, dim_norm=2.5, draws=None, **options):
    ((name, recipe),) = expand_interventions({"x": entry}, draws).items()
    candidates = {CANDIDATE: directions}
    return build_intervention(
        name,
        recipe,
        directions=candidates,
        means=means,
        candidate=CANDIDATE,
        dim_norm=dim_norm,
        **options,
    )


@pytest.mark.parametrize("strength", [-2, 0.5, 1])
def test_addition_of_dim_is_exactly_strength_times_r(dim, means, strength):
    entry = {"direction": "dim", "operator": "add", "strength": strength}
    built = build(entry, dim, means, dim_norm=dim.norm)
    r = torch.from_numpy(means[0] - means[1])[-2, 1]
    torch.testing.assert_close(built.operator.shift.double(), strength * r, rtol=1e-6, atol=1e-6)
    assert (built.layer, built.recipe["position"], built.recipe["rank"]) == (1, -2, 1)


@pytest.mark.parametrize("sign", [-1, 1])
def test_first_inlp_direction_is_added_towards_harmful_with_the_length_of_dim(means, sign):
    inlp = Direction(sign * basis_of(4))
    vector = build({"direction": "inlp_faithful", "operator": "add"}, inlp, means).operator.shift
    towards_harmful = torch.from_numpy(means[0] - means[1])[-2, 1].float() @ inlp.basis[0]
    torch.testing.assert_close(vector, 2.5 * towards_harmful.sign() * inlp.basis[0])


def test_random_addition_keeps_the_direction_as_drawn(means):
    for sign in (-1, 1):
        drawn = Direction(sign * basis_of(2))
        built = build({"direction": "random", "operator": "add"}, drawn, means, draws=1)
        torch.testing.assert_close(built.operator.shift, 2.5 * drawn.basis[0])


def test_projection_takes_the_leading_directions_and_the_origin(means):
    inlp, h = Direction(basis_of(6)), randn(5, WIDTH, seed=4)
    harmful, harmless = (torch.from_numpy(mean)[-2, 1].float() for mean in means)
    origins = {"zero": None, "harmless": harmless, "midpoint": (harmful + harmless) / 2}
    for origin, mu in origins.items():
        for k, rank in ((1, 1), (4, 4), ("full", 6)):
            entry = {"direction": "inlp_faithful", "operator": "project", "k": k, "origin": origin}
            built = build(entry, inlp, means, fallback=True)
            expected = Operator.project(inlp.basis[:rank], 1.0, mu)(h)
            torch.testing.assert_close(built.operator(h), expected, rtol=0, atol=1e-5)
            assert (built.recipe["k"], built.recipe["rank"]) == (k, rank)
            assert built.recipe["fallback"] is True


@pytest.mark.parametrize("side", ["harmless", "harmful"])
def test_alterrep_puts_every_input_on_the_named_side(means, side):
    entry = {"direction": "inlp_faithful", "operator": "alterrep", "side": side}
    basis = basis_of(4)
    steered = build(entry, Direction(basis), means).operator(randn(50, WIDTH, seed=4))
    towards_harmful = torch.from_numpy(means[0] - means[1])[-2, 1].float() @ basis.T
    agreement = (steered @ basis.T) * towards_harmful.sign()
    assert ((agreement > 0) == (side == "harmful")).all()


def test_erase_keeps_the_oblique_form(means):
    direction = leace(randn(60, WIDTH) + 1.0, randn(60, WIDTH, seed=1))
    built = build({"direction": "leace", "operator": "erase"}, direction, means)
    h = randn(5, WIDTH, seed=4)
    expected = h - ((h - direction.origin) @ direction.basis.T) @ direction.write
    torch.testing.assert_close(built.operator(h), expected, rtol=0, atol=1e-4)
    assert (built.recipe["k"], built.recipe["rank"], built.recipe["alpha"]) == ("full", 1, 1.0)


def test_none_needs_nothing_and_changes_nothing():
    recipe = expand_interventions({"none": {"operator": "none"}})["none"]
    built = build_intervention("none", recipe)
    model, _ = tiny_model("llama")
    expected = model(input_ids=IDS).logits
    with steering(model, built):
        assert torch.equal(model(input_ids=IDS).logits, expected)


def test_k_above_the_rank_found(means):
    inlp = Direction(basis_of(3))
    entry = {"direction": "inlp_faithful", "operator": "project", "k": 8}
    with pytest.raises(InputError) as caught:
        build(entry, inlp, means)
    for part in ("interventions.x.k: 8", "inlp_faithful", "position -2", "layer 1", "rank 3"):
        assert part in str(caught.value)
    built = build(entry | {"above_rank": "full"}, inlp, means)
    assert (built.recipe["k"], built.recipe["rank"]) == (8, 3)


def test_empty_and_missing_directions_are_errors(means):
    for nothing in (Direction(torch.empty(0, WIDTH)), None):
        with pytest.raises(InputError, match="interventions.x: direction dim.*empty"):
            build(DIM, nothing, means)


def test_origin_harmful_sets_the_projection_to_the_harmful_average(means):
    entry = {"direction": "dim", "operator": "project", "origin": "harmful"}
    direction = Direction(basis_of(1))
    built = build(entry, direction, means)
    h, unit = randn(5, WIDTH, seed=4), basis_of(1)[0]
    average = torch.as_tensor(means[0])[built.recipe["position"]][built.layer].float() @ unit
    got = built.operator(h)
    torch.testing.assert_close(got @ unit, average.expand(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        got - torch.outer(got @ unit, unit), h - torch.outer(h @ unit, unit), rtol=0, atol=1e-5
    )


def test_an_addition_may_be_as_long_as_the_harmful_average(means):
    entry = {"direction": "dim", "operator": "add", "strength": 2, "length": "harmful"}
    built = build(entry, Direction(basis_of(1)), means)
    harmful, harmless = (
        torch.as_tensor(mean)[built.recipe["position"]][built.layer].float() for mean in means
    )
    unit = basis_of(1)[0]
    unit = unit if (harmful - harmless) @ unit > 0 else -unit
    torch.testing.assert_close(
        built.operator.shift, 2 * (harmful @ unit) * unit, rtol=1e-5, atol=1e-5
    )


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, means):
    entry = {
        "direction": "inlp_faithful",
        "operator": "project",
        "alpha": [1.5],
        "origin": "midpoint",
        "k": 2,
    }
    built = build(entry, Direction(basis_of(3)), means)
    path = tmp_path / f"{built.recipe['name']}.json"
    save_intervention(path, built)
    return path, built


def test_saved_interventions_do_the_same_after_loading(saved, means):
    path, built = saved
    loaded = load_intervention(path)
    h = randn(5, WIDTH, seed=4)
    assert torch.equal(loaded.operator(h), built.operator(h))
    assert loaded.recipe == built.recipe == json.loads(path.read_text())
    assert (loaded.scope, loaded.layer) == (built.scope, built.layer)
    assert ",".join(loaded.recipe) == (
        "name,family,direction,operator,scope,selection,k,rank,alpha,strength,length,"
        "origin,side,tokens,draw,position,layer,fallback"
    )
    for other in (Operator.identity(), Operator.add(h[0]), Operator.alterrep(basis_of(2), -1, 2)):
        save_intervention(path, intervention(other))
        assert torch.equal(load_intervention(path).operator(h), other(h))


def test_files_are_reproducible(saved):
    path, built = saved
    before = path.read_bytes(), path.with_suffix(".npz").read_bytes()
    save_intervention(path, built)
    assert before == (path.read_bytes(), path.with_suffix(".npz").read_bytes())


def test_damaged_files_are_errors(saved):
    path, _ = saved
    arrays = dict(np.load(path.with_suffix(".npz")))

    def expect(message):
        with pytest.raises(InputError, match=re.escape(str(path.parent))) as caught:
            load_intervention(path)
        assert message in str(caught.value) and "Remedy" in str(caught.value)

    arrays["read"][0, 0] = np.nan
    np.savez(path.with_suffix(".npz"), **arrays)
    expect("NaN")
    path.with_suffix(".npz").write_bytes(b"nonsense")
    expect("cannot be read")
    path.with_suffix(".npz").unlink()
    expect("no such file")
    with pytest.raises(InputError, match="ends in .json"):
        load_intervention(path.with_suffix(".npz"))
