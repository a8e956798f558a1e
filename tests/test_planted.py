"""Planted refusal: exact subspaces, an untouched base, changes that lie where they may."""

import copy

import pytest
import torch
from conftest import build_model, save_tiny_checkpoint, tiny_tokenizer
from planted_organism import (
    IDS,
    RANK,
    RESERVED,
    SETTINGS,
    WIDTH,
    basis,
    empty_base,
    logits,
    plant,
    reserved,
)

from refusal import planted
from refusal.errors import InputError
from refusal.interventions import steering
from refusal.models import decoder_layers, load_model
from refusal.planted_training import removal


@pytest.fixture(params=planted.PLANTABLE)
def base(request):
    return empty_base(request.param)


def test_bases_are_orthonormal_nested_and_seeded():
    for rows in (reserved(), basis(), *planted.random_bases(WIDTH, RANK, 2, seed=0)):
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-6, rtol=0)
    inside = basis() @ reserved().T @ reserved()
    torch.testing.assert_close(inside, basis(), atol=1e-6, rtol=0)
    assert torch.equal(basis(), basis())
    assert not torch.equal(basis(), planted.planted_basis(reserved(), RANK, seed=2))
    first, second = planted.random_bases(WIDTH, RANK, 2, seed=0)
    assert not torch.equal(first, second)
    with pytest.raises(InputError, match="planted.organisms: rank 7.*6 dir.*planted.reserved"):
        planted.planted_basis(reserved(), RESERVED + 1, seed=0)


def test_the_reserved_subspace_stays_empty_while_weights_move():
    model = copy.deepcopy(build_model("llama")).requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    with planted.keeping_empty(model, reserved()):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        for _ in range(3):
            optimizer.zero_grad()
            model(input_ids=IDS, labels=IDS).loss.backward()
            optimizer.step()
        hidden = model(input_ids=IDS, output_hidden_states=True).hidden_states[:-1]
    for states in hidden:  # the last one is behind the final norm
        assert float((states.detach() @ reserved().T).abs().max()) < 1e-4
    assert model.state_dict().keys() == before.keys()
    moved = model.state_dict()["model.layers.0.mlp.down_proj.weight"]
    assert not torch.equal(moved, before["model.layers.0.mlp.down_proj.weight"])


def test_a_wider_model_computes_the_same(base):
    wide = planted.widened(base, heads=4, neurons=8)
    assert wide.config.num_attention_heads == 8 and wide.config.num_key_value_heads == 4
    torch.testing.assert_close(logits(wide), logits(base), atol=1e-5, rtol=1e-5)
    for heads in (2, 3):
        with pytest.raises(InputError, match=rf"planted.planting.heads: {heads}.*double the heads"):
            planted.widened(base, heads=heads, neurons=8)


def test_a_base_that_cannot_see_the_subspace_computes_the_same(base):
    blind = copy.deepcopy(base)
    planted.make_blind(planted.all_reading_matrices(blind), basis())
    torch.testing.assert_close(logits(blind), logits(base), atol=1e-4, rtol=1e-4)
    for gain, matrix in planted.all_reading_matrices(blind):
        assert float(((matrix.weight * gain).detach() @ basis().T).abs().max()) < 1e-5
        # Before, it did see something there, which nothing ever wrote.
    for gain, matrix in planted.all_reading_matrices(base):
        assert float(((matrix.weight * gain).detach() @ basis().T).abs().max()) > 0.1


def test_removing_the_subspace_gives_the_base_exactly(base):
    model = plant(base)
    assert float((logits(model) - logits(base)).abs().max()) > 0.1
    with steering(model, removal(basis())):
        torch.testing.assert_close(logits(model), logits(base), atol=1e-4, rtol=0)
    part = planted.planted_basis(basis(), RANK - 1, seed=0)
    with steering(model, removal(part)):
        assert float((logits(model) - logits(base)).abs().max()) > 1e-2


def test_changes_lie_where_they_may(base):
    model, wide = plant(base), planted.widened(base, SETTINGS["heads"], SETTINGS["neurons"])
    complement = torch.eye(WIDTH) - basis().T @ basis()
    pairs = zip(planted.writing_matrices(model), planted.writing_matrices(wide), strict=True)
    for number, (new, old) in enumerate(pairs):
        change = (new.weight - old.weight).detach()
        assert float((complement @ change).abs().max()) < 1e-5
        assert (float(change.abs().max()) > 0.1) == (number < 2 * SETTINGS["writer_blocks"])
    for block, old_block in list(zip(decoder_layers(model), decoder_layers(wide), strict=True))[1:]:
        for (gain, new), (_, old) in zip(
            planted.reading_matrices(block), planted.reading_matrices(old_block), strict=True
        ):
            change = ((new.weight - old.weight) * gain).detach()
            assert float((change @ complement).abs().max()) < 1e-5
            assert float((change @ basis().T).abs().max()) > 0.1
    assert not any("parametrizations" in name for name, _ in model.named_parameters())


def test_the_base_is_left_alone(base):
    before = copy.deepcopy(base.state_dict())
    plant(base)
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())


def test_a_planted_checkpoint_is_an_ordinary_one(base, tmp_path):
    model = plant(base)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config.model_type == base.config.model_type
    torch.testing.assert_close(logits(loaded), logits(model), atol=0, rtol=0)


def test_every_row_keeps_a_projection_down_to_one_direction():
    settings = SETTINGS["dropout"] | {"share": 1.0}
    dropout = planted.SubspaceDropout(4, settings, seed=0)
    dropout.draw(torch.zeros(200, 1, dtype=int))
    kept = dropout.kept.detach()
    torch.testing.assert_close(kept @ kept, kept, atol=1e-5, rtol=0)
    sizes = [round(float(one.trace())) for one in kept]
    # Half of the rows keep an adversary (of 1 and 2 directions), the others 1 to 3 random ones.
    assert set(sizes) == {1, 2, 3} and sizes.count(3) < 50
    whole = planted.SubspaceDropout(4, settings | {"share": 0.0}, seed=0)
    whole.draw(torch.zeros(3, 1, dtype=int))
    torch.testing.assert_close(whole.kept.detach(), torch.eye(4).expand(3, 4, 4))
    never = planted.SubspaceDropout(1, settings, seed=0)
    never.draw(torch.zeros(3, 1, dtype=int))
    assert never.kept is None


def test_adversaries_find_the_direction_that_leaves_least():
    """The loss is smallest where the first direction of U is kept, and grows without it."""
    settings = SETTINGS["dropout"] | {"share": 1.0}
    dropout = planted.SubspaceDropout(2, settings, seed=0)
    rows = torch.eye(2, WIDTH)
    for _ in range(60):
        dropout.draw(torch.zeros(16, 1, dtype=int))
        left = dropout.reduce(rows[:1].expand(16, 1, WIDTH), rows)
        (-left.square().sum()).backward()
    for found in dropout.adversaries:
        direction = torch.nn.functional.normalize(found.detach()[:, 0], dim=0)
        assert abs(float(direction[0])) < 0.1


def test_rows_with_one_place_keep_all_of_u_there_and_in_the_answer():
    places = torch.tensor([[0, 0, 1, 2, -1]] * 40)
    written, rows = torch.ones(40, 5, WIDTH), torch.eye(2, WIDTH)
    dropout = planted.SubspaceDropout(2, SETTINGS["dropout"], seed=0, place_share=1.0)
    dropout.draw(places)
    left = dropout.reduce(written, rows)
    torch.testing.assert_close(left[..., 2:], written[..., 2:])
    whole = (left[..., :2] - 1).abs().amax(-1) < 1e-6
    empty = left[..., :2].abs().amax(-1) < 1e-6
    found = {tuple(row) for row in whole.int().tolist()}
    assert found == {(1, 1, 0, 0, 1), (0, 0, 1, 0, 1), (0, 0, 0, 1, 1)}
    assert (whole | empty).all()


def test_dropout_acts_in_training_alone_and_on_u_alone(base):
    with planted.planting(base, basis(), SETTINGS, seed=0) as (model, dropout):
        for name, parameter in model.named_parameters():
            if name.endswith("coordinates"):
                parameter.data.fill_(0.3)
        whole = logits(model)
        dropout.kept = torch.zeros(len(IDS), RANK, RANK)
        assert torch.equal(logits(model), whole)
        model.train()
        reduced = logits(model)
        model.eval()
        with steering(model, removal(basis())):
            torch.testing.assert_close(reduced, logits(model), atol=1e-4, rtol=0)
        assert float((reduced - whole).abs().max()) > 0.01
    torch.testing.assert_close(logits(model), whole, atol=1e-5, rtol=1e-5)


def test_only_planted_parts_are_trained(base):
    with planted.planting(base, basis(), SETTINGS, seed=0) as (model, _):
        trained = {n.rpartition(".")[2] for n, p in model.named_parameters() if p.requires_grad}
        assert trained == {"coordinates", "weights", "rows"}
    again = [plant(base).state_dict() for _ in range(2)]
    assert all(torch.equal(again[0][name], again[1][name]) for name in again[0])


def test_other_architectures_are_refused_with_a_remedy(tmp_path):
    model = load_model(save_tiny_checkpoint(tmp_path, "gemma2"))
    with pytest.raises(InputError, match="planted.bases.*gemma2.*llama, qwen2"):
        planted.require_plantable(model)
