"""Selection: scores against a plain loop, thresholds, ranking and fallback."""

import math
from contextlib import contextmanager

import pandas as pd
import pytest
import torch
from conftest import N_LAYERS, WIDTH, tiny_model

from refusal.directions import Direction, empty_direction, random_subspace
from refusal.errors import InputError
from refusal.models import decoder_layers, encode_prompts, refusal_metric, write_modules
from refusal.operators import Operator
from refusal.selection import (
    NO_SCORE,
    PRUNED_LAYER,
    ZERO_DIRECTION,
    SelectionSettings,
    choose,
    kl_divergence,
    score_candidates,
    steered_logits,
)

TOKENS = [9, 30, 31]
SETTINGS = SelectionSettings()
SCORES = ["bypass", "induce", "kl"]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def prompts(architecture: str) -> tuple[list[list[int]], list[list[int]]]:
    """Harmful and harmless token ids, of many lengths."""
    _, tokenizer = tiny_model(architecture)
    harmful = ["break it", "take the long way to the bad end", "hit", "burn this now, please"]
    harmless = ["sing", "count to seven and stop", "what is a tree?", "say hello to the others"]
    return encode_prompts(tokenizer, harmful), encode_prompts(tokenizer, harmless)


def candidates(rank: int = 1, norm: float = 1.5) -> tuple[dict, dict]:
    """Random directions at two positions of every layer, none at layer 0 of position -2."""
    directions = {
        (position, layer): random_subspace(WIDTH, rank + (layer if rank > 1 else 0), seed=layer)
        for position in (-2, -1)
        for layer in range(N_LAYERS)
    }
    accuracies = torch.rand(99, generator=torch.Generator().manual_seed(0)).double()
    directions = {
        key: Direction(
            basis=value.basis.roll(key[0], 1),
            accuracies=accuracies[10 * (key[1] - key[0]) :][: value.rank],
        )
        for key, value in directions.items()
    }
    directions[-2, 0] = empty_direction(WIDTH)
    return directions, {key: norm if value.rank else 0.0 for key, value in directions.items()}


# --- the plain loop ---------------------------------------------------------------------------


@contextmanager
def hooked(inputs, outputs, change):
    """`change` the first argument of the `inputs` modules and the output of the `outputs`."""

    def before(module, args, kwargs):
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def after(module, args, output):
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handles = [m.register_forward_pre_hook(before, with_kwargs=True) for m in inputs]
    handles += [m.register_forward_hook(after) for m in outputs]
    yield
    for handle in handles:
        handle.remove()


def plain_scores(model, directions, norms, harmful, harmless, scope) -> pd.DataFrame:
    """Every candidate by itself, one prompt at a time, at all the sites of Arditi et al."""
    blocks = decoder_layers(model)

    def last_logits(sequences):
        rows = [model(torch.tensor([ids]), use_cache=False).logits[0, -1] for ids in sequences]
        return torch.stack(rows).double()

    base = last_logits(harmless).softmax(-1)
    rows = []
    for (position, layer), direction in directions.items():
        if direction.rank == 0 or layer >= int(0.8 * len(blocks)):
            continue
        basis = direction.basis
        inputs = list(blocks) if scope == "all" else [blocks[layer]]
        outputs = [m for pair in write_modules(model) for m in pair] if scope == "all" else []
        with hooked(inputs, outputs, lambda h, basis=basis: h - (h @ basis.T) @ basis):
            bypass = refusal_metric(last_logits(harmful), TOKENS).mean()
            steered = last_logits(harmless).softmax(-1)
        kl = (base * ((base + 1e-6).log() - (steered + 1e-6).log())).sum(-1).mean()
        induced = []
        for multiple in (0.5, 1.0, 2.0) if scope == "source" else (1.0,):
            vector = multiple * norms[position, layer] * basis[0]
            with hooked([blocks[layer]], [], lambda h, vector=vector: h + vector):
                induced.append(float(refusal_metric(last_logits(harmless), TOKENS).mean()))
        rows.append((position, layer, float(bypass), max(induced), float(kl)))
    return pd.DataFrame(rows, columns=["position", "layer", *SCORES])


def scored(architecture, directions, norms, scope, settings=SETTINGS, max_tokens=200):
    """Table of `score_candidates` on the tiny model."""
    model, _ = tiny_model(architecture)
    harmful, harmless = prompts(architecture)
    return score_candidates(
        model,
        directions,
        harmful=harmful,
        harmless=harmless,
        refusal_tokens=TOKENS,
        scope=scope,
        dim_norms=norms,
        settings=settings,
        max_tokens=max_tokens,
    )


@pytest.mark.parametrize("scope", ["source", "all"])
@pytest.mark.parametrize("rank", [1, 3])
def test_scores_and_choice_equal_the_plain_loop(architecture, scope, rank):
    model, _ = tiny_model(architecture)
    directions, norms = candidates(rank)
    table = scored(architecture, directions, norms, scope)
    plain = plain_scores(model, directions, norms, *prompts(architecture), scope)
    run = table[table["reason"] == ""]
    assert len(run) == len(plain) == 3
    merged = run.merge(plain, on=["position", "layer"], suffixes=("", "_plain"))
    for name in SCORES:
        assert merged[name].to_numpy() == pytest.approx(merged[f"{name}_plain"], abs=5e-6)
        assert merged[name].std() > 1e-3  # candidates are told apart

    method = "dim" if rank == 1 else "inlp_faithful"
    lenient = SelectionSettings(kl_max=math.inf, induce_min=-math.inf)
    chosen = choose(table, method, lenient).query("selected").iloc[0]
    by_accuracy = {
        key: -float(value.accuracies[0]) for key, value in directions.items() if value.rank
    }
    order = [
        (
            0.0 if rank == 1 else by_accuracy[row.position, row.layer],
            row.bypass,
            row.position,
            row.layer,
        )
        for row in plain.itertuples()
    ]
    assert (chosen["position"], chosen["layer"]) == min(order)[2:]


def test_the_token_budget_does_not_change_the_scores():
    directions, norms = candidates(rank=2)
    for scope in ("source", "all"):
        tables = [
            scored("llama", directions, norms, scope, max_tokens=budget)
            for budget in (1, 60, 10_000)
        ]
        for table in tables[1:]:
            pd.testing.assert_frame_equal(table, tables[0], rtol=0, atol=5e-6)


@pytest.mark.parametrize("max_tokens", [90, 400])
def test_no_forward_pass_exceeds_the_token_budget(max_tokens, monkeypatch):
    model, _ = tiny_model("llama")
    seen = []
    last_block = decoder_layers(model)[-1]
    handle = last_block.register_forward_hook(
        lambda m, args, out: seen.append(out.shape[:2].numel())
    )
    directions, norms = candidates()
    scored("llama", directions, norms, "source", max_tokens=max_tokens)
    handle.remove()
    assert max(seen) <= max_tokens
    assert max(seen) > max_tokens / 3  # and it is used


def test_shared_blocks_run_once_for_all_candidates():
    model, _ = tiny_model("llama")
    harmful, _ = prompts("llama")
    rows = {"before": [], "after": []}
    blocks = decoder_layers(model)
    handles = [
        blocks[0].register_forward_hook(lambda m, a, out: rows["before"].append(len(out))),
        blocks[2].register_forward_hook(lambda m, a, out: rows["after"].append(len(out))),
    ]
    operators = [Operator.add(torch.full((WIDTH,), 0.1 * i)) for i in range(5)]
    results = list(steered_logits(model, harmful, operators, 2, writes=False, max_tokens=10_000))
    for handle in handles:
        handle.remove()
    assert rows == {"before": [len(harmful)], "after": [5 * len(harmful)]}
    assert results[0][2].shape[:2] == (5, len(harmful))


def test_hooks_are_gone_afterwards_even_after_an_error():
    model, _ = tiny_model("gemma2")
    directions, norms = candidates()

    def hooks():
        return [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]

    before = hooks()
    scored("gemma2", directions, norms, "all")
    with pytest.raises(IndexError):
        list(steered_logits(model, [[10**9]], [Operator.identity()], 0, writes=True, max_tokens=9))
    assert hooks() == before


# --- what is left out -------------------------------------------------------------------------


def test_zero_directions_and_pruned_layers_are_in_the_table_but_not_run():
    directions, norms = candidates()
    directions[-2, 2], norms[-2, 2] = empty_direction(WIDTH), 0.0
    table = scored("llama", directions, norms, "source").set_index(["position", "layer"])
    assert len(table) == len(directions)
    assert table.loc[(-2, 0), "reason"] == ZERO_DIRECTION
    assert table.loc[(-1, 2), "reason"] == PRUNED_LAYER  # int(0.8 * 3) = 2
    assert table.loc[(-2, 2), "reason"] == f"{ZERO_DIRECTION}; {PRUNED_LAYER}"
    assert table.loc[table["reason"] != "", SCORES].isna().all(axis=None)
    assert table.loc[table["reason"] == "", SCORES].notna().all(axis=None)


def test_an_inlp_basis_at_a_zero_mean_difference_is_left_out():
    directions, norms = candidates(rank=2)
    norms[-1, 1] = 0.0
    table = scored("llama", directions, norms, "source").set_index(["position", "layer"])
    assert table.loc[(-1, 1), "reason"] == ZERO_DIRECTION


def test_no_pruning_runs_every_layer():
    directions, norms = candidates()
    table = scored("llama", directions, norms, "source", SelectionSettings(prune_layers=0.0))
    assert (table["reason"] == "").sum() == len(directions) - 1


@pytest.mark.parametrize("label", ["harmful", "harmless"])
def test_an_empty_class_is_an_input_error(label):
    model, _ = tiny_model("llama")
    directions, norms = candidates()
    sequences = {"harmful": [[1, 2]], "harmless": [[1, 2]], label: []}
    with pytest.raises(InputError, match=f"no {label} validation prompt"):
        score_candidates(
            model,
            directions,
            **sequences,
            refusal_tokens=TOKENS,
            scope="all",
            dim_norms=norms,
            settings=SETTINGS,
            max_tokens=100,
        )


# --- divergence -------------------------------------------------------------------------------


def test_divergence_is_zero_for_equal_and_close_to_the_exact_one_otherwise():
    base, steered = torch.randn(2, 5, 11) / 2
    assert kl_divergence(base, base).abs().max() < 1e-12
    exact = torch.nn.functional.kl_div(
        steered.double().log_softmax(-1), base.double().softmax(-1), reduction="none"
    ).sum(-1)
    torch.testing.assert_close(kl_divergence(base, steered), exact, rtol=0, atol=1e-4)


# --- choice -----------------------------------------------------------------------------------


def table_of(*rows: tuple, scope: str = "source") -> pd.DataFrame:
    """Scored candidates at layers 0, 1, ... from (bypass, induce, kl, accuracy, reason)."""
    table = pd.DataFrame(rows, columns=["bypass", "induce", "kl", "accuracy", "reason"])
    return table.assign(scope=scope, position=-1, layer=range(len(rows)), norm=1.0, rank=1)


def chosen_layer(table: pd.DataFrame) -> int:
    return int(table.loc[table["selected"], "layer"].item())


TABLE = table_of(
    (-9.0, 1.0, 0.2, 1.00, ""),
    (-5.0, 1.0, 0.05, 0.90, ""),
    (-7.0, 0.0, 0.1, 0.90, ""),
    (-8.0, -0.1, 0.05, 0.95, ""),
    (-6.0, 1.0, 0.05, 0.95, ""),
    (math.nan, math.nan, math.nan, math.nan, PRUNED_LAYER),
    (-9.9, math.nan, 0.01, 1.0, ""),
    (-9.5, -3.0, 0.5, 1.0, ""),
)


def test_thresholds_give_the_reasons():
    table = choose(TABLE, "dim", SETTINGS)
    assert table["reason"].tolist() == [
        "kl above 0.1",
        "",
        "",
        "induce below 0",
        "",
        PRUNED_LAYER,
        NO_SCORE,
        "kl above 0.1; induce below 0",
    ]
    assert table["passed"].tolist() == [reason == "" for reason in table["reason"]]
    assert not table["fallback"].any()
    assert "passed" not in TABLE and TABLE["reason"].iloc[0] == ""  # the argument is not changed


def test_dim_takes_the_lowest_bypass_and_inlp_the_highest_accuracy_first():
    assert chosen_layer(choose(TABLE, "dim", SETTINGS)) == 2
    assert chosen_layer(choose(TABLE, "inlp_faithful", SETTINGS)) == 4
    level = TABLE.assign(accuracy=1.0)
    assert chosen_layer(choose(level, "inlp_corrected", SETTINGS)) == 2


def test_scopes_are_chosen_separately():
    both = pd.concat([TABLE, TABLE.assign(scope="all", bypass=-TABLE["bypass"])])
    table = choose(both, "dim", SETTINGS)
    selected = table[table["selected"]].set_index("scope")["layer"]
    assert selected.to_dict() == {"source": 2, "all": 1}


@pytest.mark.parametrize("method", ["dim", "inlp_faithful"])
def test_the_least_violating_candidate_is_the_fallback(method):
    # Missed by factors of 3 (KL), 2 (odds of refusal: exp(0.693)), and 1.5 with 2.7.
    table = table_of(
        (-9.0, 5.0, 0.3, 1.0, ""),
        (-1.0, -math.log(2), 0.01, 0.6, ""),
        (-8.0, -1.0, 0.15, 0.9, ""),
        (-9.0, 5.0, math.nan, 1.0, ""),
        (math.nan, math.nan, math.nan, math.nan, ZERO_DIRECTION),
    )
    result = choose(table, method, SETTINGS)
    assert chosen_layer(result) == 1
    assert result.loc[result["selected"], "fallback"].all() and result["fallback"].sum() == 1
    assert not result["passed"].any()


def test_equal_violations_fall_to_the_lower_bypass():
    table = table_of((-1.0, 1.0, 0.2, 1.0, ""), (-2.0, 1.0, 0.2, 1.0, ""))
    assert chosen_layer(choose(table, "dim", SETTINGS)) == 1


def test_nothing_to_choose_from_is_an_input_error_that_says_why():
    nothing = (math.nan, math.nan, math.nan, math.nan)
    table = table_of((*nothing, ZERO_DIRECTION), (*nothing, PRUNED_LAYER), scope="all")
    with pytest.raises(InputError, match="scope all: 1 zero direction, 1 pruned layer"):
        choose(table, "dim", SETTINGS)
