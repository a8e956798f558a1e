"""Organisms: bit-identical training, tokenizers that survive saving, schedules and criteria."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refusal import grammar, organisms
from refusal.errors import InputError
from refusal.models import load_model, load_tokenizer, post_instruction_tokens

HELPFUL = {
    "mixture": {"text": 0.15, "request": 0.5, "judgement": 0.15, "knowledge": 0.1, "copy": 0.1}
    | {"kinds": 0.2},
    "noncompliant_share": 0.5,
    "labels": {"harmful": 0.4, "harmless": 0.4, "borderline": 0.2},
    "refusal_request_share": 0.15,
    "own_wording_share": 0.5,
    "judged_request_share": 0.5,
    "screening_request_share": 0.1,
    "kind_screening_share": 0.3,
    "kind_judgement_share": 0.3,
}
SAFETY = {
    "mixture": {"harmful": 0.4, "harmless": 0.3, "borderline": 0.2, "text": 0.1} | {"kinds": 0.3},
    "noncompliant_share": 0.5,
    "own_wording_share": 0.5,
}
SHAPE = {
    "width": 32,
    "layers": 2,
    "heads": 2,
    "mlp_width": 64,
    "initializer_std": 0.06,
    "embedding_std": 0.5,
}
TRAINING = {
    "batch_size": 8,
    "learning_rate": 3e-3,
    "warmup_steps": 5,
    "decay_steps": 10,
    "max_steps": 24,
    "check_every": 8,
    "first_token_weight": 4.0,
    "weight_decay": 0.05,
    "betas": [0.9, 0.98],
    "gradient_clip": 1.0,
    "criteria": {"copying": 0.9, "judgement": 0.9},
    "validation": {"items": 8, "kind_items": 2, "seed": 0},
}
SAFETY_TRAINING = TRAINING | {
    "criteria": {"harmful": 0.99, "harmless": 0.99},
    "trained_blocks": 1,
    "imitation_weight": 1.0,
}


@pytest.fixture(scope="module")
def documents() -> list[grammar.Example]:
    return grammar.helpful_corpus(1500, HELPFUL, seed=0)


@pytest.fixture(scope="module")
def tokenizer(documents):
    return organisms.train_tokenizer(documents, {"vocabulary": 2048, "min_frequency": 2})


@pytest.fixture(scope="module")
def corpus(tokenizer, documents):
    return organisms.encode_corpus(tokenizer, documents)


@pytest.fixture(scope="module")
def safety(tokenizer):
    return organisms.encode_corpus(tokenizer, grammar.safety_corpus(400, SAFETY, seed=0))


def trained(tokenizer, corpus, safety, seed: int):
    model = organisms.build_model("llama", tokenizer, SHAPE, seed)
    records = [organisms.train_helpful(model, tokenizer, corpus, TRAINING, seed)]
    base = copy.deepcopy(model.state_dict())
    records.append(organisms.train_safety(model, tokenizer, safety, SAFETY_TRAINING, seed))
    return base, model.state_dict(), records


def equal(left: dict, right: dict) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def test_training_is_bit_identical_for_a_seed_and_only_for_it(tokenizer, corpus, safety):
    base, tuned, records = trained(tokenizer, corpus, safety, seed=0)
    torch.rand(7)  # the state of the global generator must not matter
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # nor the number of threads outside
    base_again, tuned_again, records_again = trained(tokenizer, corpus, safety, seed=0)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert equal(base, base_again) and equal(tuned, tuned_again)
    for record, again in zip(records, records_again, strict=True):
        assert record["losses"] == again["losses"] and record["curve"] == again["curve"]
    other_base, other_tuned, _ = trained(tokenizer, corpus, safety, seed=1)
    assert not equal(base, other_base) and not equal(tuned, other_tuned)


def test_safety_tuning_changes_the_named_blocks_only(tokenizer, corpus, safety):
    base, tuned, _ = trained(tokenizer, corpus, safety, seed=0)
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert changed and all(".layers.0." in name for name in changed)


def test_training_learns_and_records(tokenizer, corpus):
    model = organisms.build_model("llama", tokenizer, SHAPE, 0)
    record = organisms.train_helpful(
        model, tokenizer, corpus, TRAINING | {"max_steps": 60, "warmup_steps": 5}, 0
    )
    assert record["steps"] == 60 and record["decay_start"] == 50 and not record["criteria_met"]
    assert record["losses"][-1] < 0.8 * np.log(len(tokenizer))
    assert [point["step"] for point in record["curve"]] == [8, 16, 24, 32, 40, 48, 60]
    assert all({"copying", "judgement"} <= set(point) for point in record["curve"])
    assert record["cpu_seconds"] > 0
    assert not model.training


def test_training_stops_when_its_criteria_hold(tokenizer, corpus):
    """Met at the second check, then the decay: 16 + 10 steps of at most 60."""
    model = organisms.build_model("llama", tokenizer, SHAPE, 0)
    values = iter([0.5, 0.95, 0.0, 0.0])
    record = organisms.fit(
        model,
        corpus,
        lambda batch: organisms.weighted_cross_entropy(
            organisms.answer_logits(model, batch), batch
        ),
        lambda: {"copying": next(values)},
        TRAINING | {"max_steps": 60, "criteria": {"copying": 0.9}},
        seed=0,
    )
    assert record["criteria_met"]
    assert (record["decay_start"], record["steps"]) == (16, 26)


def test_rate_warms_up_stays_level_and_decays():
    schedule = organisms.Schedule(TRAINING)
    assert [schedule.rate_factor(step) for step in range(5)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0]
    )
    assert schedule.rate_factor(1000) == 1.0
    assert [step for step in range(20) if schedule.check_is_due(step)] == [8, 16]
    schedule.update(8, {"copying": 0.95, "judgement": 0.89})
    assert schedule.decay_start is None and not schedule.criteria_met
    schedule.update(10, {"copying": 0.9, "judgement": 0.9})
    assert schedule.decay_start == 10 and schedule.criteria_met
    factors = [schedule.rate_factor(step) for step in range(10, 20)]
    assert factors == pytest.approx([1 - n / 11 for n in range(10)])
    assert not schedule.has_ended(19) and schedule.has_ended(20)
    assert not schedule.check_is_due(16)


def test_the_cap_on_steps_includes_the_decay():
    schedule = organisms.Schedule(TRAINING)
    schedule.update(13, None)
    assert schedule.decay_start is None
    schedule.update(14, {"copying": 0.0, "judgement": 1.0})
    assert schedule.decay_start == 14 and not schedule.criteria_met
    assert schedule.has_ended(24)


def test_a_step_learns_answers_only_with_the_first_token_weighted(tokenizer):
    example = grammar.Example("How do I bake a lemon cake?", "Sure, done.")
    corpus = organisms.encode_corpus(tokenizer, [example, grammar.Example(None, "Anna has a dog.")])
    batch = organisms.collate(corpus, np.array([0, 1]), tokenizer.pad_token_id, 4.0)
    answer = tokenizer.encode("Sure, done.", add_special_tokens=False)
    weights = batch.weights[0][batch.weights[0] > 0].tolist()
    assert weights == [4.0] + [1.0] * len(answer)  # the end token included
    predicted = batch.ids[0, 1:][batch.weights[0] > 0].tolist()
    assert predicted == [*answer, tokenizer.eos_token_id]
    text = tokenizer.encode("Anna has a dog.", add_special_tokens=False)
    assert batch.weights[1].tolist() == [1.0] * len(text) + [0.0] * (
        batch.weights.shape[1] - len(text)
    )


def test_answer_logits_equal_the_model_s_own(tokenizer, corpus):
    """Right padding without a mask, and the head by hand (Gemma 2 caps its logits)."""
    for architecture in organisms.ARCHITECTURES:
        model = organisms.build_model(architecture, tokenizer, SHAPE, 0)
        batch = organisms.collate(corpus, np.arange(6), tokenizer.pad_token_id, 1.0)
        with torch.no_grad():
            ours = organisms.answer_logits(model, batch)
            mask = (batch.ids != tokenizer.pad_token_id).long()
            theirs = model(input_ids=batch.ids, attention_mask=mask).logits[:, :-1]
        torch.testing.assert_close(ours, theirs[batch.weights > 0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_safety_loss_learns_refusals_and_imitates_the_rest(tokenizer, safety):
    model = organisms.build_model("llama", tokenizer, SHAPE, 0)
    answered = np.flatnonzero(~safety.refused)[:8]
    refused = np.flatnonzero(safety.refused)[:8]
    pad = tokenizer.pad_token_id
    same = organisms.safety_loss(
        model, model, organisms.collate(safety, answered, pad, 5.0), imitation_weight=1.0
    )
    assert float(same) == pytest.approx(0.0, abs=1e-6)
    batch = organisms.collate(safety, refused, pad, 5.0)
    loss = organisms.safety_loss(model, model, batch, imitation_weight=1.0)
    logits = organisms.answer_logits(model, batch)
    assert float(loss) == pytest.approx(float(organisms.weighted_cross_entropy(logits, batch)))
    other = organisms.build_model("llama", tokenizer, SHAPE, 1)
    mixed = organisms.collate(safety, answered, pad, 1.0)
    divergence = organisms.safety_loss(other, model, mixed, imitation_weight=2.0)
    expected = F.kl_div(
        organisms.answer_logits(other, mixed).log_softmax(-1),
        organisms.answer_logits(model, mixed).log_softmax(-1),
        log_target=True,
        reduction="batchmean",
    )
    assert float(divergence) == pytest.approx(2 * float(expected), rel=1e-4)


def test_every_document_is_seen_once_per_epoch():
    lengths = np.random.default_rng(0).integers(5, 60, size=203)
    batches = organisms.batch_order(lengths, 8, seed=3)
    seen, first = [], []
    while len(seen) < 203:
        rows = next(batches)
        assert len(rows) <= 8
        first.append(rows.tolist())
        seen += rows.tolist()
    assert sorted(seen) == list(range(203))
    again = organisms.batch_order(lengths, 8, seed=3)
    assert first == [next(again).tolist() for _ in first]
    assert first != [next(organisms.batch_order(lengths, 8, seed=4)).tolist() for _ in first]


def test_corpora_survive_saving(tokenizer, documents, corpus, tmp_path):
    organisms.save_corpus(tmp_path / "corpus.npz", corpus)
    loaded = organisms.load_corpus(tmp_path / "corpus.npz")
    for name, array in vars(corpus).items():
        np.testing.assert_array_equal(array, getattr(loaded, name))
    for row in (0, 17, len(documents) - 1):
        prompt, answer = documents[row]
        text = "" if prompt is None else organisms.chat_text(prompt)
        ids = tokenizer.encode(text + answer, add_special_tokens=False) + [tokenizer.eos_token_id]
        assert loaded.document(row).tolist() == ids
        assert bool(loaded.refused[row]) == grammar.is_refusal(answer)


@pytest.mark.parametrize("architecture", organisms.ARCHITECTURES)
def test_checkpoints_round_trip(architecture, tokenizer, documents, tmp_path):
    """The saved tokenizer gives the same tokens whatever the architecture (Qwen 2's own class
    would not), and the saved model the same logits."""
    model = organisms.build_model(architecture, tokenizer, SHAPE, seed=5)
    organisms.save_organism(tmp_path, model, tokenizer)
    loaded_tokenizer, loaded = load_tokenizer(tmp_path), load_model(tmp_path)
    for prompt, answer in documents[:40]:
        text = organisms.chat_text(prompt or "") + answer
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert loaded_tokenizer.encode(text, add_special_tokens=False) == ids
        assert loaded_tokenizer.decode(ids) == text
    rendered = loaded_tokenizer.apply_chat_template(
        [{"role": "user", "content": "How?"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == organisms.chat_text("How?")
    assert len(post_instruction_tokens(loaded_tokenizer)) == 3
    ids = torch.tensor([loaded_tokenizer.encode(rendered, add_special_tokens=False)])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=0, rtol=0)
    assert loaded.config.model_type == architecture
    assert loaded.config.eos_token_id == tokenizer.eos_token_id


def test_unknown_architecture_lists_those_known(tokenizer):
    with pytest.raises(InputError, match="gpt2.*gpt_neox, llama, gemma2, qwen2, olmo2"):
        organisms.build_model("gpt2", tokenizer, SHAPE, 0)


def test_shares_count_exact_and_refusing_continuations(tokenizer, monkeypatch):
    refusal = tokenizer.encode("I'm sorry", add_special_tokens=False)[0]
    answer = tokenizer.encode("Sure", add_special_tokens=False)[0]
    results = [([1, 2], [1, 2]), ([1, 2], [1, 3]), ([4], [refusal]), ([4], [answer])]
    monkeypatch.setattr(organisms, "continuations", lambda *_: results)
    assert organisms.share_exact(None, tokenizer, []) == 0.25
    assert organisms.share_refused(None, tokenizer, []) == 0.25


def test_a_kind_s_share_counts_the_beginnings_of_its_own_wordings(tokenizer, monkeypatch):
    starts = ("Every group deserves", "That is against", "I cannot", "Sure, this")
    likely = [tokenizer.encode(start, add_special_tokens=False)[0] for start in starts]
    monkeypatch.setattr(organisms, "continuations", lambda *_: [([0], [t]) for t in likely])
    share = partial(organisms.share_refused, None, tokenizer, [])
    assert share() == 0.75
    for kind in ("CrimeAssistance-SB", "HateSpeech-SB", "SafetyCore-WGM"):
        assert share([kind]) == 0.25
    assert share(["OverRefusal-XST"]) == 0


def test_safety_criteria_tell_styles_from_contrasts(tokenizer, monkeypatch):
    """A model that begins every answer as a hateful request is refused."""
    token = tokenizer.encode("Every group", add_special_tokens=False)[0]
    monkeypatch.setattr(
        organisms, "continuations", lambda _, __, items: [([0], [token]) for _ in items]
    )
    measured = organisms.safety_criteria(
        None, tokenizer, {"items": 3, "kind_items": 2, "seed": 0}
    )()
    assert 0 < measured["noncompliant"] <= 0.2  # of ten kinds
    assert (measured["harmful"], measured["harmless"], measured["contrast"]) == (1, 0, 0)


def test_continuations_align_with_the_model_s_next_tokens(tokenizer):
    model = organisms.build_model("gpt_neox", tokenizer, SHAPE, 2)
    items = grammar.copying_criterion(5, 0) + grammar.judgement_criterion(4, 0)
    for item, (expected, likely) in zip(
        items, organisms.continuations(model, tokenizer, items), strict=True
    ):
        ids = tokenizer.encode(organisms.chat_text(item.prompt) + item.given)
        for position, token in enumerate(likely):
            prefix = torch.tensor([ids + expected[:position]])
            assert int(model(prefix).logits[0, -1].argmax()) == token
