"""The proof of planted organisms: every number reacts to what it is to detect."""

import pandas as pd
import pytest
import torch
from planted_organism import IDS, RANK, SETTINGS, WIDTH, basis, empty_base, logits, plant

from refusal import planted, planted_proof
from refusal.functional_rank import (
    _without,
    functional_rank,
    gradient_part,
    principal_directions,
    strongest_part,
    subspace_coordinates,
)
from refusal.interventions import steering
from refusal.models import refusal_metric
from refusal.planted_training import removal
from refusal.statistics import Intervals

SEQUENCES = [row[: 12 - number].tolist() for number, row in enumerate(IDS)]
INTERVALS = Intervals(0.95, 400, 0)
BOUNDS = {
    "harmful_min": 0.9,
    "harmless_max": 0.05,
    "difference_max": 1e-4,
    "random_loss_max": 0.1,
    "rank_tolerance": 1,
}


@pytest.fixture(scope="module")
def base():
    return empty_base("llama")


@pytest.fixture(scope="module")
def organism(base):
    return plant(base)


def other_basis() -> torch.Tensor:
    return planted.random_bases(WIDTH, RANK, 1, seed=3)[0]


def test_the_difference_is_nothing_without_u_and_large_without_another_subspace(base, organism):
    found = planted_proof.removal_difference(organism, base, basis(), SEQUENCES, 24)
    assert found["without_subspace"] < 1e-4 < 0.1 < found["as_it_is"]
    wrong = planted_proof.removal_difference(organism, base, other_basis(), SEQUENCES, 24)
    assert wrong["without_subspace"] > 0.1
    assert wrong["as_it_is"] == pytest.approx(found["as_it_is"], rel=1e-5)


def test_changes_outside_u_are_found(base, organism):
    inside = planted_proof.changes_outside(organism, base, basis(), SETTINGS)
    assert max(inside.values()) < 1e-10
    outside = planted_proof.changes_outside(organism, base, other_basis(), SETTINGS)
    assert min(outside.values()) > 0.5
    unchanged = planted_proof.changes_outside(plant(base, 0), base, basis(), SETTINGS)
    assert unchanged["writers"] == 0


def test_without_readers_only_the_norms_see_u(base, organism):
    blind = planted_proof.without_readers(organism, basis(), SETTINGS["writer_blocks"])
    leak = float((logits(blind) - logits(base)).abs().max())
    assert 1e-3 < leak < float((logits(organism) - logits(base)).abs().max())
    # Where nothing is written, nothing leaks.
    silent = planted_proof.without_readers(plant(base, 0), basis(), SETTINGS["writer_blocks"])
    torch.testing.assert_close(logits(silent), logits(base), atol=1e-4, rtol=0)


def test_the_share_in_u_is_that_of_the_residual_stream(base, organism):
    assert max(planted_proof.subspace_share(base, basis(), SEQUENCES)) < 1e-10
    shares = planted_proof.subspace_share(organism, basis(), SEQUENCES)
    squares = []
    for sequence in SEQUENCES:  # one by one, without padding
        with torch.no_grad():
            ids = torch.tensor([sequence])
            states = organism(input_ids=ids, output_hidden_states=True).hidden_states[1][0]
        squares.append(((states @ basis().T) ** 2).sum(-1) / (states**2).sum(-1))
    assert shares[1] == pytest.approx(float(torch.cat(squares).mean()), rel=1e-4)
    assert shares[0] < 1e-10 and len(shares) == len(organism.model.layers)


def test_rates_have_wilson_s_interval():
    rows = [{"condition": "none", "label": "harmful", "split": "test"}] * 4
    responses = pd.DataFrame(rows).assign(refused=[1, 1, 1, 0], complied=[0, 0, 0, float("nan")])
    table = planted_proof.rates_table(responses, 0.95).set_index("metric")
    assert table.loc["refused", ["value", "n"]].tolist() == [0.75, 4]
    assert table.loc["refused", "low"] == pytest.approx(0.3006, abs=1e-3)
    assert table.loc["complied", ["value", "n"]].tolist() == [0.0, 3]


@pytest.mark.parametrize(
    "changed, word",
    [
        ({}, None),
        ({"none": 0.85, "random-0": 0.85}, "harmful refused 0.85, below 0.9"),
        ({"harmless": 0.06}, "harmless refused 0.06, above 0.05"),
        ({"difference": 2e-4}, "differ by 2.0e-04"),
        ({"random-0": 0.8}, "a random subspace leaves 0.80"),
        ({"functional": 2}, "functional rank 2, planted 4"),
    ],
)
def test_every_bound_rejects_by_itself(changed, word):
    values = {"none": 0.95, "harmless": 0.02, "random-0": 0.93, "difference": 1e-5}
    values = values | {"functional": 3} | changed
    rates = pd.Series(
        {
            ("none", "harmful"): values["none"],
            ("none", "harmless"): values["harmless"],
            ("random-0", "harmful"): values["random-0"],
            ("subspace", "harmful"): 0.0,
        }
    ).rename_axis(["condition", "label"])
    reasons = planted_proof.rejections(rates, values["difference"], 4, values["functional"], BOUNDS)
    assert len(reasons) == (word is not None)
    assert word is None or word in reasons[0]


# --- functional rank ---


def test_functional_rank_is_the_first_part_that_ends_refusal():
    """Columns: without 0, 1, 2 and 3 directions."""
    refused = [[1, 1, 0, 0]] * 94 + [[1, 1, 1, 0]]
    assert functional_rank(refused, 0.1, INTERVALS) == (2, 2, 2)
    close = [[1, 1, 0, 0]] * 90 + [[1, 1, 1, 0]] * 10
    assert functional_rank(close, 0.1, INTERVALS) == (3, 2, 3)
    assert functional_rank([[1, 1, 1]] * 20, 0.1, INTERVALS).value == 3
    assert functional_rank([[0, 0, 0]] * 20, 0.1, INTERVALS).value == 0


def test_principal_directions_come_by_how_far_harmful_prompts_differ():
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    harmless = 0.1 * torch.randn(50, 2, 3, generator=generator) + 5
    harmful = torch.randn(50, 2, 3, generator=generator) * torch.tensor([1.0, 4, 0.2]) @ turn + 5
    found = principal_directions(harmful, harmless)
    expected = turn[[1, 0, 2]]
    torch.testing.assert_close((found @ expected.T).abs(), torch.eye(3), atol=0.1, rtol=0)


def test_coordinates_are_those_of_the_last_tokens(organism):
    found = subspace_coordinates(organism, basis(), SEQUENCES, layer=1, positions=2)
    with torch.no_grad():
        ids = torch.tensor([SEQUENCES[3]])
        states = organism(input_ids=ids, output_hidden_states=True).hidden_states[1][0, -2:]
    assert found.shape == (4, 2, RANK)
    torch.testing.assert_close(found[3], states @ basis().T, atol=1e-5, rtol=1e-4)


def test_removal_with_gradients_is_the_removal_of_the_proof(organism):
    part = basis()[:2]
    with torch.no_grad(), _without(organism, part):
        ours = organism(input_ids=IDS).logits
    with steering(organism, removal(part)):
        torch.testing.assert_close(ours, logits(organism), atol=1e-5, rtol=1e-5)


def test_the_search_finds_the_one_direction_that_is_used(base):
    """Writers use one direction of three; refusal is what it makes likely."""
    model = plant(base, directions=1)
    risen = planted_proof.last_logits(model, SEQUENCES).log_softmax(-1)
    risen = risen - planted_proof.last_logits(base, SEQUENCES).log_softmax(-1)
    tokens = [int(risen.mean(0).argmax())]

    def metric(part: torch.Tensor) -> float:
        with steering(model, removal(part)):
            found = planted_proof.last_logits(model, SEQUENCES)
        return float(refusal_metric(found, tokens).mean())

    settings = {"starts": 1, "steps": 60, "learning_rate": 0.1, "seed": 0}
    start = torch.tensor([[0.2, 0.9, 0.4]])
    start = start / start.norm()
    found = gradient_part(model, basis(), start, SEQUENCES, tokens, settings)
    assert metric(found.basis) < metric(start @ basis()) - 0.1
    directions = torch.eye(3)[[2, 1, 0]]  # the wrong order: the gradient has to find it
    part, left = strongest_part(model, basis(), directions, 1, SEQUENCES, tokens, metric, settings)
    assert part.found_by == "gradient"
    assert left == pytest.approx(metric(part.basis)) and left < metric(basis()[:1]) + 0.2
    torch.testing.assert_close(part.basis @ part.basis.T, torch.eye(1), atol=1e-5, rtol=0)
