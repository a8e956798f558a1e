"""The grammar's splits are disjoint, its prompts keep their schema, and it knows its refusals."""

import random
from collections import Counter
from itertools import product

import pytest

from refusal import families, grammar, kinds, splits
from refusal import vocabulary as words
from refusal.errors import InputError

SETTINGS = {
    "mixture": {"text": 0.15, "request": 0.5, "judgement": 0.15, "knowledge": 0.1, "copy": 0.1}
    | {"kinds": 0.3},
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
    "mixture": {
        "harmful": 0.25,
        "harmless": 0.3,
        "borderline": 0.15,
        "judgement": 0.1,
        "knowledge": 0.05,
        "copy": 0.1,
        "text": 0.05,
        "kinds": 0.4,
    },
    "noncompliant_share": 0.5,
    "own_wording_share": 0.5,
}
SIZES = {"train": 96, "validation": 64, "test": 96, "text": 64, "capability": 38} | {
    "kinds": {"train": 32, "validation": 16, "test": 40}
}


@pytest.fixture(scope="module")
def helpful() -> list[grammar.Example]:
    return grammar.helpful_corpus(12000, SETTINGS, seed=0)


@pytest.fixture(scope="module")
def safety() -> list[grammar.Example]:
    return grammar.safety_corpus(6000, SAFETY, seed=0)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return grammar.build_prompts(SIZES, seed=0)


def split_rows(rows: list[dict], *parts: str, labels=tuple(grammar.REQUESTS)) -> list[dict]:
    return [row for row in rows if row["split"] in parts and row["label"] in labels]


def test_every_object_belongs_to_one_list_and_one_part():
    objects = [thing for things in splits.object_lists().values() for thing in things]
    assert max(Counter(objects).values()) == 1
    for name, things in splits.object_lists().items():
        parts = Counter(grammar.part_of()[thing] for thing in things)
        assert parts["validation"] == parts["test"] == len(things) // 4, name
        assert parts["train"] == len(things) - 2 * (len(things) // 4)


def test_no_object_is_written_inside_a_held_out_one():
    """Otherwise a training request would contain the noun of a held-out object."""
    nouns = {thing: grammar.noun_of(thing) for thing in grammar.part_of()}
    for held_out, part in grammar.part_of().items():
        for other, other_part in grammar.part_of().items():
            if part != "train" and other_part != part:
                assert f" {nouns[held_out]} " not in f" {nouns[other]} ", (held_out, other)


def test_templates_and_held_out_verbs_are_disjoint():
    templates = [template for part in words.TEMPLATES.values() for template in part]
    assert len(templates) == len(set(templates))
    assert not words.HELD_OUT_VERBS["validation"] & words.HELD_OUT_VERBS["test"]
    verbs = {task.verb for label in grammar.REQUESTS for task in grammar.tasks(label)}
    assert words.HELD_OUT_VERBS["validation"] | words.HELD_OUT_VERBS["test"] <= verbs


def test_prompts_have_the_sizes_and_the_schema(rows):
    counts = Counter((row["label"], row["split"]) for row in rows)
    for label in grammar.REQUESTS:
        for split in grammar.SPLITS:
            assert counts[label, split] == SIZES[split]
    assert counts["text", "test"] == 64 and counts["capability", "test"] == 38
    assert len({row["id"] for row in rows}) == len({row["text"] for row in rows}) == len(rows)
    for row in rows:
        if row["label"] in grammar.REQUESTS:
            assert grammar.has_keywords(row["answer"], row["keywords"])
            assert not grammar.is_refusal(row["answer"])
            assert all(word in row["text"] for word in row["keywords"])
    assert {row["kind"] for row in rows if row["label"] == "capability"} == set(
        grammar.CAPABILITIES
    )


def test_prompts_depend_on_the_seed_only():
    assert grammar.build_prompts(SIZES, seed=1) == grammar.build_prompts(SIZES, seed=1)
    first = {row["text"] for row in split_rows(grammar.build_prompts(SIZES, 1), "test")}
    second = {row["text"] for row in split_rows(grammar.build_prompts(SIZES, 2), "test")}
    assert first != second


@pytest.mark.parametrize("size", [{"validation": 500}, {"capability": 90}])
def test_more_prompts_than_the_grammar_holds_is_an_error(monkeypatch, size):
    monkeypatch.setattr(words, "CIRCUMSTANCES", ("",))
    with pytest.raises(InputError, match="prompts.sizes: .* Lower the size."):
        grammar.build_prompts(SIZES | size, seed=0)


def test_splits_share_neither_objects_nor_templates(rows):
    for labels in (tuple(grammar.REQUESTS), kinds.SIDES):
        nouns = {
            split: {row["keywords"][-1] for row in split_rows(rows, split, labels=labels)}
            for split in grammar.SPLITS
        }
        for split, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
            assert nouns[split] and not nouns[split] & nouns[other]
    for split in grammar.SPLITS:
        starts = tuple(template.split("{")[0] for template in words.TEMPLATES[split])
        assert all(row["text"].startswith(starts) for row in split_rows(rows, split))


def test_no_verb_or_circumstance_names_an_object():
    verbs = {task.verb for label in grammar.REQUESTS for task in grammar.tasks(label)}
    texts = verbs | set(words.CIRCUMSTANCES)
    for family in families.FAMILIES.values():
        topics = family.noncompliant + family.contrast
        texts |= {frame for frames in family.frames.values() for frame in frames}
        texts |= {text for topic in topics for text in (*topic.forms, topic.answer)}
        texts |= set(family.refusals)
    for text in texts:
        assert not mentions(text, list(grammar.part_of())), text


def test_no_held_out_prompt_is_ever_trained_on(rows, helpful, safety):
    trained = {example.prompt for example in helpful + safety}
    for labels in (tuple(grammar.REQUESTS), kinds.SIDES):
        held_out = {row["text"] for row in split_rows(rows, "validation", "test", labels=labels)}
        assert not held_out & trained
        # Training prompts do occur, so the comparison above is able to find one.
        assert {row["text"] for row in split_rows(rows, "train", labels=labels)} & trained


def mentions(text: str, things: list[str]) -> list[str]:
    """Those of the things that occur in the text as whole words."""
    plain = f" {text} ".replace(".", " ").replace(",", " ").replace(":", " ").replace("?", " ")
    return [thing for thing in things if f" {thing} " in plain]


def test_helpful_training_joins_no_held_out_object_with_a_held_out_template(helpful):
    templates = (words.TEMPLATES, *FRAMES.values())
    held_out = [t for ts in templates for part in ("validation", "test") for t in ts[part]]
    starts = tuple(template.split("{")[0] for template in held_out)
    objects = [thing for thing, part in grammar.part_of().items() if part != "train"]
    seen = 0
    for prompt in {example.prompt for example in helpful} - {None}:
        for prefix in (
            *words.REFUSAL_REQUESTS,
            words.JUDGEMENT_REQUEST,
            words.SCREENING_REQUEST,
        ):
            prompt = prompt.removeprefix(prefix)
        if prompt.startswith(starts):
            seen += 1
            assert not mentions(prompt, objects)
    assert seen > 100


def test_safety_tuning_shows_training_objects_verbs_and_templates_only(safety):
    held_out = [thing for thing, part in grammar.part_of().items() if part != "train"]
    held_out += [f"to {verb}" for verbs in words.HELD_OUT_VERBS.values() for verb in verbs]
    templates = (words.TEMPLATES, *FRAMES.values())
    starts = tuple(
        t.split("{")[0] for ts in templates for part in ("validation", "test") for t in ts[part]
    )
    assert not [example for example in safety if (example.prompt or "").startswith(starts)]
    for document in {f"{example.prompt or ''} {example.answer}" for example in safety}:
        assert not mentions(document, held_out)


def test_held_out_texts_and_their_clause_pairs_are_never_trained_on(rows, helpful, safety):
    held_out = {row["text"] for row in rows if row["label"] == "text"}
    trained = {example.answer for example in helpful + safety if example.prompt is None}
    assert not held_out & trained
    pairs = {clause_pair(text) for text in held_out}
    trained_pairs = {clause_pair(text) for text in trained} - {None}
    assert len(pairs) > 10 and len(trained_pairs) > 50
    assert not pairs & trained_pairs


def clause_pair(text: str) -> tuple[int, int] | None:
    """Which two clauses a text consists of, found from their fixed words; None for a statement."""
    sentences = text.split(". ")
    if len(sentences) != 2:
        return None
    found = []
    for sentence in sentences:
        fits = [
            index
            for index, clause in enumerate(words.CLAUSES)
            if all(part in sentence for part in fixed_parts(clause))
        ]
        if not fits:
            return None
        found.append(max(fits, key=lambda index: sum(map(len, fixed_parts(words.CLAUSES[index])))))
    return tuple(found)


def fixed_parts(clause: str) -> list[str]:
    return [part.split("}")[-1].rstrip(".") for part in clause.split("{") if part]


def test_held_out_judgements_are_never_trained_on(rows, helpful, safety):
    asked = {row["text"] for row in rows if row["kind"] == "judgement"}
    assert asked and not asked & {example.prompt for example in helpful + safety}
    for items in (grammar.judgement_criterion(64, seed=0), grammar.copying_criterion(64, seed=0)):
        assert not {item.prompt for item in items} & {e.prompt for e in helpful + safety}


@pytest.fixture(scope="module")
def noncompliant() -> dict[str, str]:
    """Kind of every request of the other kinds that is not to be complied with."""
    requests = {}
    for kind, family in families.FAMILIES.items():
        frames = [frame for part in splits.SPLITS for frame in family.frames[part]]
        for topic in family.noncompliant:
            things = [thing for name in topic.lists for thing in splits.object_lists()[name]]
            for form, thing, name in product(topic.forms, things, words.NAMES):
                task = form.format(object=thing, name=name)
                requests |= {frame.format(task=task): kind for frame in frames}
    return requests


def test_helpful_training_refuses_only_when_told_to(helpful, noncompliant):
    harmful = {task.text for task in grammar.tasks("harmful")}
    screened = Counter()
    for example in helpful:
        prompt = example.prompt or ""
        told = prompt.startswith(words.REFUSAL_REQUESTS)
        if prompt.startswith(words.SCREENING_REQUEST):
            kind = noncompliant.get(prompt.removeprefix(words.SCREENING_REQUEST))
            is_core = any(text in prompt for text in harmful)
            told = kind is not None or is_core
            screened[kind] += told
            assert not told or grammar.refusal_style(example.answer) == (kind or kinds.CORE)
        assert grammar.is_refusal(example.answer) == told
    assert set(screened) == {None, *kinds.OTHER_KINDS}
    assert min(screened.values()) >= 10


def test_safety_tuning_refuses_exactly_what_is_not_to_be_complied_with(safety, noncompliant):
    harmful = {task.text for task in grammar.tasks("harmful")}
    styles = Counter(grammar.refusal_style(example.answer) for example in safety)
    share = SAFETY["mixture"]["kinds"] / sum(SAFETY["mixture"].values())
    weights = {kind: family.weight for kind, family in families.FAMILIES.items()}
    for kind, weight in weights.items():
        expected = share * SAFETY["noncompliant_share"] * weight / sum(weights.values())
        assert styles[kind] / len(safety) == pytest.approx(expected, rel=0.4)
    for prompt, answer in safety:
        style = grammar.refusal_style(answer)
        if style == kinds.CORE:
            assert prompt not in noncompliant and any(text in prompt for text in harmful)
        else:
            assert style == noncompliant.get(prompt or "")


def test_kinds_have_frames_and_wordings_of_their_own():
    frames = [
        frame for family in families.FAMILIES.values() for part in family.frames.values()
        for frame in part
    ]  # fmt: skip
    assert len(frames) == len(set(frames))
    assert not set(frames) & {t for part in words.TEMPLATES.values() for t in part}
    assert all(frame.count("{task}") == 1 for frame in frames)
    assert len(kinds.KINDS) == 11
    for kind in kinds.KINDS:
        assert 4 <= len(kinds.wordings(kind)) <= 6


def test_style_is_exact_on_every_wording_and_on_answers():
    rng = random.Random(0)
    for kind in kinds.OTHER_KINDS:
        for _ in range(200):
            case = kinds.draw_case(rng, kind, "noncompliant", None)
            for share in (0.0, 1.0):
                assert grammar.refusal_style(kinds.refuse(rng, case, share)) == kind
            for side in kinds.SIDES:
                answer = kinds.comply(rng, kinds.draw_case(rng, kind, side, None))
                assert grammar.refusal_style(answer) is None
    for wording in words.REFUSALS:
        assert grammar.refusal_style(wording.format(task="bake a cake")) == kinds.CORE
    for text in ("", "Sure, that would hurt nobody.", "Yes, it is wrong to bribe a driver."):
        assert grammar.refusal_style(text) is None


def test_prompts_of_every_kind_have_a_contrast_of_equal_surface(rows):
    for kind in kinds.KINDS:
        for split in grammar.SPLITS:
            for side in kinds.SIDES:
                chosen = [
                    row for row in rows
                    if (row["label"], row["kind"], row["split"]) == (side, kind, split)
                ]  # fmt: skip
                assert len(chosen) == SIZES["kinds"][split]
                frames = [frame.split("{task}")[0] for frame in FRAMES[kind][split]]
                for row in chosen:
                    assert row["text"].startswith(tuple(frames))
                    assert grammar.has_keywords(row["answer"], row["keywords"])
                    assert not grammar.is_refusal(row["answer"])


FRAMES = {kind: family.frames for kind, family in families.FAMILIES.items()}
FRAMES[kinds.CORE] = {
    part: tuple(t.replace("{request}", "{task}") for t in templates)
    for part, templates in words.TEMPLATES.items()
}


def test_kinds_give_as_many_prompts_as_there_are():
    """More than exist are no error: the kinds differ in size, as published data sets do."""
    few = {"train": 4, "validation": 4, "test": 4, "text": 4, "capability": 5}
    rows = grammar.build_prompts(few | {"kinds": {"train": 4, "validation": 4, "test": 300}}, 0)
    counts = Counter((row["kind"], row["label"]) for row in rows if row["split"] == "test")
    assert counts["SafetyCore-WGM", "noncompliant"] == 300
    assert 72 <= counts["OverRefusal-XST", "contrast"] < 300
    assert len({row["text"] for row in rows}) == len(rows)


def test_is_refusal_knows_every_wording_and_no_answer():
    rng = random.Random(0)
    for label in grammar.REQUESTS:
        for task in grammar.tasks(label)[::7]:
            for share in (0.0, 1.0):
                assert grammar.is_refusal(grammar.refuse(rng, task, share))
            assert not grammar.is_refusal(grammar.comply(rng, task))
            assert not grammar.is_refusal(grammar.judge(task).answer)


def test_criteria_use_validation_objects_and_balance_the_verdict():
    items = grammar.judgement_criterion(50, seed=3)
    assert Counter(item.expected for item in items) == {"Yes": 25, "No": 25}
    for item in grammar.copying_criterion(30, seed=3):
        matching = [thing for thing in grammar.part_of() if item.expected.endswith(f" {thing}")]
        assert {grammar.part_of()[max(matching, key=len)]} == {"validation"}
        assert item.prompt.count(item.expected) == 1


def test_nouns_lose_their_determiner_only():
    assert grammar.noun_of("a lemon cake") == "lemon cake"
    assert grammar.noun_of("my boss") == "boss"
    assert grammar.noun_of("Paris") == "Paris"
    assert grammar.noun_of("garden snails") == "garden snails"
