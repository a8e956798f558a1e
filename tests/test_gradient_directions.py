"""Gradient directions: the losses against plain loops, the geometry of cones, and the descent."""

import numpy as np
import pytest
import torch
from conftest import WIDTH, tiny_model
from planted_organism import basis as planted_basis
from planted_organism import empty_base, plant

from refusal.errors import InputError
from refusal.gradient_directions import (
    Addition,
    GradientSettings,
    Targets,
    ablating,
    adding,
    cone_directions,
    direction_loss,
    gradient_directions,
    orthonormal_rows,
)
from refusal.interventions import Intervention, steering
from refusal.operators import Operator

PAIRS = [([5, 9, 11], [20, 21]), ([7, 30, 8], [22, 23]), ([12, 40, 13], [24, 25])]
TARGETS = Targets(PAIRS, PAIRS[::-1], PAIRS[1:])
IDS = torch.tensor([prompt + completion for prompt, completion in PAIRS])
ADDITION = Addition(layer=1, length=3.0)


def unit_rows(rows: int, seed: int = 0) -> torch.Tensor:
    draw = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))
    return orthonormal_rows(draw)


def logits(model, ids=IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_rows_are_orthonormal_and_the_first_keeps_its_direction():
    free = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(4))
    rows = orthonormal_rows(free)
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows[0], free[0] / free[0].norm(), atol=1e-6, rtol=0)
    assert float(rows[1] @ free[1]) > 0


def test_a_cone_holds_its_basis_in_turn_and_combinations_without_negative_weights():
    basis = unit_rows(3)
    drawn = cone_directions(basis, 12, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(12))
    torch.testing.assert_close(drawn[::2], basis.repeat(2, 1), atol=1e-6, rtol=0)
    coordinates = drawn @ basis.T
    assert float(coordinates.min()) > -1e-6
    torch.testing.assert_close(coordinates @ basis, drawn, atol=1e-6, rtol=0)
    alone = cone_directions(basis[:1], 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(alone, basis[:1].repeat(5, 1), atol=1e-6, rtol=0)


def test_every_row_of_a_batch_is_steered_as_by_an_intervention_of_its_own():
    model, _ = tiny_model("llama")
    rows = unit_rows(3)
    with torch.no_grad(), ablating(model, rows):
        ablated = model(input_ids=IDS).logits
    with torch.no_grad(), adding(model, 3 * rows, 1):
        added = model(input_ids=IDS).logits
    for row in range(3):
        with steering(model, Intervention(Operator.project(rows[row : row + 1]), "writes")):
            torch.testing.assert_close(ablated[row], logits(model)[row], atol=1e-4, rtol=0)
        with steering(model, Intervention(Operator.add(3 * rows[row]), "source", 1)):
            torch.testing.assert_close(added[row], logits(model)[row], atol=1e-4, rtol=0)
    assert float((ablated - logits(model)).abs().max()) > 1e-2


def test_the_loss_is_that_of_plain_loops():
    """One direction, prompt by prompt in float64 from the logits of `steering`."""
    model, _ = tiny_model("llama")
    basis = unit_rows(1)
    removal = Intervention(Operator.project(basis), "writes")
    addition = Intervention(Operator.add(3 * basis[0]), "source", 1)

    def token_logits(pair, steered):
        prompt, completion = pair
        with steering(model, steered):
            found = logits(model, torch.tensor([prompt + completion]))[0].double()
        return found[len(prompt) - 1 : -1].log_softmax(-1)

    def surprise(pairs, steered):
        return np.mean([-token_logits(p, steered)[t, p[1][t]] for p in pairs for t in range(2)])

    nothing = Intervention(Operator.identity(), "all")
    divergences = []
    for pair in TARGETS.retained:
        base, changed = token_logits(pair, nothing), token_logits(pair, removal)
        divergences += (base.exp() * (base - changed)).sum(-1).tolist()
    expected = (
        2 * surprise(TARGETS.answers, removal)
        + 3 * surprise(TARGETS.refusals, addition)
        + 5 * np.mean(divergences)
    )
    settings = GradientSettings(ablation_weight=2, addition_weight=3, retain_weight=5)
    found = direction_loss(
        model, basis, TARGETS, ADDITION, settings, torch.Generator().manual_seed(0)
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_the_descent_lowers_the_loss_towards_that_of_the_planted_direction():
    """What the organism does beyond its base goes through one direction: so does the answer."""
    base = empty_base("llama")
    organism, prompts = plant(base, directions=1), IDS.repeat(4, 2)[:, :8].clone()
    prompts[:, 0] = torch.arange(12)  # twelve prompts, all of them different
    answers = logits(base, prompts)[:, -1].argmax(-1).tolist()
    wanted = [(row.tolist(), [answer]) for row, answer in zip(prompts, answers, strict=True)]
    settings = GradientSettings(
        steps=12, check_every=12, batch_size=12, learning_rates=(0.1,), addition_weight=0
    )
    asked = Targets(wanted, wanted, wanted)

    def loss(basis):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return float(direction_loss(organism, basis, asked, ADDITION, settings, generator))

    found = gradient_directions(organism, 1, asked, asked, ADDITION, settings).basis
    assert loss(planted_basis()[:1]) < loss(unit_rows(1)) - 0.1
    assert loss(found) < loss(unit_rows(1)) - 0.1


def test_the_basis_of_a_cone_is_orthonormal_and_chosen_by_validation():
    model, _ = tiny_model("llama")
    settings = GradientSettings(steps=2, check_every=1, batch_size=2, learning_rates=(0.01, 0.3))
    found = gradient_directions(model, 2, TARGETS, TARGETS, ADDITION, settings).basis
    torch.testing.assert_close(found @ found.T, torch.eye(2), atol=1e-5, rtol=0)
    again = gradient_directions(model, 2, TARGETS, TARGETS, ADDITION, settings).basis
    assert torch.equal(found, again)

    def loss(basis):
        generator = torch.Generator().manual_seed(settings.seed)
        with torch.no_grad():
            return float(direction_loss(model, basis, TARGETS, ADDITION, settings, generator))

    for rate in settings.learning_rates:
        one = GradientSettings(steps=2, check_every=1, batch_size=2, learning_rates=(rate,))
        other = gradient_directions(model, 2, TARGETS, TARGETS, ADDITION, one)
        assert loss(found) <= loss(other.basis) + 1e-6


def test_parameters_get_no_gradient_and_hooks_are_gone():
    model, _ = tiny_model("llama")
    before = logits(model)
    settings = GradientSettings(steps=1, check_every=1, batch_size=2, learning_rates=(0.01,))
    gradient_directions(model, 1, TARGETS, TARGETS, ADDITION, settings)
    assert torch.equal(before, logits(model))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_nothing_to_ask_for_is_one_clear_line():
    model, _ = tiny_model("llama")
    with pytest.raises(InputError, match="prompts.sizes"):
        gradient_directions(
            model, 1, Targets([], PAIRS, PAIRS), TARGETS, ADDITION, GradientSettings()
        )
