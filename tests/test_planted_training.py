"""Training of planted organisms: exact at every step, seeded, and cut where nothing is learned."""

import numpy as np
import pytest
import torch
from planted_organism import DROPOUT
from test_organisms import HELPFUL, SAFETY, SHAPE, TRAINING

from refusal import grammar, organisms, planted_training
from refusal.errors import InputError
from refusal.interventions import steering
from refusal.planted import SubspaceDropout, planted_basis, reserved_basis
from refusal.planted_proof import last_logits, removal_difference, subspace_share

RESERVED = reserved_basis(SHAPE["width"], 4, seed=0)
BASIS = planted_basis(RESERVED, 2, seed=1)
PLANTING = TRAINING | {
    "writer_blocks": 1,
    "heads": 2,
    "neurons": 8,
    "dropout": DROPOUT | {"restart": 0.1},
    "place_share": 0.2,
    "reader_std": 0.05,
    "new_std": 0.1,
    "answer_tokens": 4,
    "imitation_weight": 1.0,
    "share_weight": 0.0,
    "silence_weight": 0.0,
    "criteria": {"harmful": 0.99, "redundancy": 0.99},
    "validation": {"items": 8, "removals": 2, "seed": 0},
}


@pytest.fixture(scope="module")
def tokenizer():
    documents = grammar.helpful_corpus(1000, HELPFUL, seed=0)
    return organisms.train_tokenizer(documents, {"vocabulary": 1024, "min_frequency": 2})


@pytest.fixture(scope="module")
def corpus(tokenizer):
    return organisms.encode_corpus(tokenizer, grammar.helpful_corpus(300, HELPFUL, seed=0))


@pytest.fixture(scope="module")
def safety(tokenizer):
    settings = SAFETY | {"noncompliant_share": 0.0}
    return organisms.encode_corpus(tokenizer, grammar.safety_corpus(300, settings, seed=0))


@pytest.fixture(scope="module")
def base(tokenizer, corpus):
    model = organisms.build_model("llama", tokenizer, SHAPE, 0)
    planted_training.train_base(model, tokenizer, corpus, RESERVED, TRAINING, 0)
    return model


def test_a_trained_base_writes_nothing_to_the_reserved_subspace(base, tokenizer):
    ids = torch.tensor([tokenizer.encode(organisms.chat_text("How do I bake a cake?"))])
    with torch.no_grad():
        hidden = base(input_ids=ids, output_hidden_states=True).hidden_states[:-1]
    for states in hidden:
        assert float((states @ RESERVED.T).abs().max()) < 1e-5
        assert float(states.abs().max()) > 0.1


def test_a_trained_organism_is_its_base_without_u_and_seeded(base, tokenizer, safety):
    organism, record = planted_training.plant_refusal(
        base, tokenizer, safety, BASIS, PLANTING, seed=0
    )
    items = grammar.decision_criterion("harmful", 8, 0)
    prompts = [tokenizer.encode(organisms.chat_text(item.prompt)) for item in items]
    found = removal_difference(organism, base, BASIS, prompts, 512)
    assert found["without_subspace"] < 1e-4 < 0.01 < found["as_it_is"]
    assert record["steps"] == PLANTING["max_steps"] and record["trained_parameters"] > 0
    assert {"harmful", "harmless", "copying", "redundancy"} <= set(record["curve"][-1])
    again, _ = planted_training.plant_refusal(base, tokenizer, safety, BASIS, PLANTING, seed=0)
    other, _ = planted_training.plant_refusal(base, tokenizer, safety, BASIS, PLANTING, seed=1)
    assert torch.equal(last_logits(organism, prompts), last_logits(again, prompts))
    assert not torch.equal(last_logits(organism, prompts), last_logits(other, prompts))


def test_the_share_weight_makes_u_shorter(base, tokenizer, safety):
    prompts = [tokenizer.encode(organisms.chat_text("How do I bake a cake?"))]
    shares = []
    for weight in (0.0, 20.0):
        settings = PLANTING | {"share_weight": weight}
        organism, _ = planted_training.plant_refusal(base, tokenizer, safety, BASIS, settings, 0)
        shares.append(subspace_share(organism, BASIS, prompts)[1])
    assert shares[1] < 0.5 * shares[0]


def test_redundancy_is_the_least_refusal_on_one_direction(base, tokenizer, monkeypatch):
    """Calls: three labels whole, then one per random direction and per adversary."""
    shares = iter([0.9, 0.1, 0.2, 0.8, 0.6, 0.7, 0.5])
    monkeypatch.setattr(planted_training, "share_refused", lambda *_: next(shares))
    monkeypatch.setattr(planted_training, "share_exact", lambda *_: 1.0)
    dropout = SubspaceDropout(2, PLANTING["dropout"], seed=0)
    arguments = base, tokenizer, BASIS, dropout, PLANTING["validation"]
    measure = planted_training.planted_criteria(*arguments)
    assert measure() == pytest.approx(
        {"harmful": 0.9, "harmless": 0.9, "borderline": 0.8, "copying": 1.0, "redundancy": 0.5}
    )


def test_places_are_the_instruction_and_the_tokens_behind_it(tokenizer):
    """Of a padded prompt with an answer, and of a plain text, which has none."""
    documents = [
        grammar.Example("How do I bake a cake?", "Sure, so."),
        grammar.Example(None, "Anna has a dog and a cat and a garden and a house and a boat."),
    ]
    corpus = organisms.encode_corpus(tokenizer, documents)
    batch = organisms.collate(corpus, np.arange(2), 0, first_token_weight=5.0)
    places = planted_training.places(batch, behind=3)
    instruction, answer = int(corpus.answers[0]) - 3, places.shape[1] - int(corpus.answers[0])
    assert places[0].tolist() == [0] * instruction + [1, 2, 3] + [-1] * answer
    assert (places[1] == -1).all()


@pytest.mark.parametrize("columns", [1, 3])
def test_the_complement_is_what_is_orthogonal(columns):
    part = torch.randn(4, columns, generator=torch.Generator().manual_seed(0))
    rest = planted_training.complement(part)
    torch.testing.assert_close(rest @ rest.T, torch.eye(4 - columns), atol=1e-5, rtol=0)
    torch.testing.assert_close(rest @ part, torch.zeros(4 - columns, columns), atol=1e-5, rtol=0)


def test_silence_counts_what_is_not_refused_alone():
    coordinates = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]])
    seen = planted_training.Seen(coordinates, torch.tensor([[10.0], [30.0]]))
    refused, none = torch.tensor([True, False]), {"share_weight": 0.0, "silence_weight": 0.0}
    assert float(planted_training.loudness(seen, refused, none)) == 0
    silent = planted_training.loudness(seen, refused, none | {"silence_weight": 2.0})
    assert float(silent) == pytest.approx(2 * (2 / 20) / 2)
    quiet = planted_training.loudness(seen, refused, none | {"share_weight": 2.0})
    assert float(quiet) == pytest.approx((5 / 10) ** 2 + (2 / 30) ** 2)


def test_answers_are_cut_and_texts_are_not(tokenizer):
    documents = [
        grammar.Example("How do I bake a lemon cake?", "Sure, here is how to bake a lemon cake."),
        grammar.Example(None, "Anna has a dog and a cat and a garden."),
        grammar.Example("Why?", "I cannot."),
    ]
    whole = organisms.encode_corpus(tokenizer, documents)
    cut = planted_training.cut_answers(whole, 2)
    start = int(whole.answers[0])
    assert cut.document(0).tolist() == whole.document(0).tolist()[: start + 2]
    assert cut.document(1).tolist() == whole.document(1).tolist()
    assert len(cut.document(2)) == int(whole.answers[2]) + 2
    np.testing.assert_array_equal(cut.answers, whole.answers)
    same = planted_training.cut_answers(whole, 10**6)
    np.testing.assert_array_equal(same.tokens, whole.tokens)
    np.testing.assert_array_equal(same.ends, whole.ends)


def test_removal_takes_out_the_whole_subspace_and_nothing_else(base):
    states = torch.randn(5, SHAPE["width"], generator=torch.Generator().manual_seed(0))
    left = planted_training.removal(BASIS).operator(states)
    assert float((left @ BASIS.T).abs().max()) < 1e-5
    torch.testing.assert_close(left + (states @ BASIS.T) @ BASIS, states, atol=1e-5, rtol=0)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        expected = base(input_ids=ids).logits
        with steering(base, planted_training.removal(BASIS[:0])):
            assert torch.equal(base(input_ids=ids).logits, expected)


def test_a_subspace_survives_saving_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "subspace.npz"
    planted_training.save_subspace(path, BASIS)
    assert torch.equal(planted_training.load_subspace(path), BASIS)
    planted_training.save_subspace(path, 2 * BASIS)
    with pytest.raises(InputError, match="subspace.npz.*orthonormal.*Remedy"):
        planted_training.load_subspace(path)
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="subspace.npz.*Remedy"):
        planted_training.load_subspace(path)
    with pytest.raises(InputError, match="nothing.npz.*Remedy"):
        planted_training.load_subspace(tmp_path / "nothing.npz")
