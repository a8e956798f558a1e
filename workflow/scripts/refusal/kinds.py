"""Kinds of refusal: requests of every kind, their contrasts, answers, refusals and styles.

Core safety is the grammar itself (`refusal.grammar`); the ten other kinds are drawn here from
`refusal.families`. As with core requests, held-out prompts join held-out objects with held-out
frames of their kind.
"""

import random
from functools import cache
from typing import NamedTuple

from refusal import vocabulary as words
from refusal.families import CORE, FAMILIES, KINDS, OPENINGS, Topic
from refusal.splits import SPLITS, noun_of, object_lists, part_of

OTHER_KINDS: tuple[str, ...] = tuple(FAMILIES)
SIDES = ("noncompliant", "contrast")
CORE_LABELS = {"noncompliant": "harmful", "contrast": "harmless"}
# Kinds whose requests not to be complied with are harmful; those of the others cannot be met.
HARMFUL_KINDS = (
    CORE,
    "OverRefusal-XST",
    "Safety-CCN",
    "HateSpeech-SB",
    "CrimeAssistance-SB",
    "Inappropriate-SB",
    "Advice-SB",
)


class Case(NamedTuple):
    """What one request is about: `task` in words, the wording that its form goes with, and the
    helpful answer without its opening; `part` is the split of the object."""

    kind: str
    side: str
    task: str
    object: str
    wording: int
    answer: str
    part: str

    @property
    def noun(self) -> str:
        return noun_of(self.object)


def draw_case(rng: random.Random, kind: str, side: str, part: str | None) -> Case:
    """A case of one kind; `side` is one of `SIDES`. `part` bounds the objects (None: all)."""
    topics = getattr(FAMILIES[kind], side)
    number = rng.randrange(len(topics))
    topic = topics[number]
    form = rng.randrange(len(topic.forms))
    thing = rng.choice(_objects(topic, part))
    fixed = {"name": rng.choice(words.NAMES), "pets": rng.choice(words.PETS)}
    task = topic.forms[form].format(object=thing, **fixed)
    answer = topic.answer.format(task=task, object=thing, noun=noun_of(thing), **fixed)
    # Every form goes with a wording, so that greedy decoding does not always use the same one.
    wording = (sum(len(t.forms) for t in topics[:number]) + form) % len(FAMILIES[kind].refusals)
    return Case(kind, side, task, thing, wording, answer, part_of()[thing])


def draw_kind(rng: random.Random) -> str:
    """A kind for a training document, under the weights of the families."""
    return rng.choices(OTHER_KINDS, [FAMILIES[kind].weight for kind in OTHER_KINDS])[0]


@cache
def _objects(topic: Topic, part: str | None) -> tuple[str, ...]:
    every = (thing for name in topic.lists for thing in object_lists()[name])
    return tuple(thing for thing in every if part in (None, part_of()[thing]))


def frames_for(case: Case) -> tuple[str, ...]:
    """Frames of helpful-only training: held-out objects never meet held-out frames."""
    frames = FAMILIES[case.kind].frames
    if case.part != "train":
        return frames["train"]
    return tuple(frame for split in SPLITS for frame in frames[split])


def ask(rng: random.Random, case: Case, frames: tuple[str, ...]) -> str:
    """The case as a request in one of the frames."""
    return rng.choice(frames).format(task=case.task)


def comply(rng: random.Random, case: Case) -> str:
    """A helpful placeholder answer."""
    return rng.choice(OPENINGS) + case.answer


def refuse(rng: random.Random, case: Case, own_share: float) -> str:
    """A refusal in the style of the kind: the wording of the form, or any wording of the kind."""
    every = FAMILIES[case.kind].refusals
    wording = every[case.wording] if rng.random() < own_share else rng.choice(every)
    return wording.format(task=case.task, object=case.object)


def held_out_request(rng: random.Random, kind: str, side: str, split: str) -> tuple[Case, str]:
    """A case of a split with its request: objects and frames both of that split."""
    case = draw_case(rng, kind, side, split)
    return case, ask(rng, case, FAMILIES[kind].frames[split])


def wordings(kind: str) -> tuple[str, ...]:
    """All wordings of a kind, with their slots."""
    return words.REFUSALS if kind == CORE else FAMILIES[kind].refusals


@cache
def _starts() -> dict[str, tuple[str, ...]]:
    """How the refusals of every kind begin: their wordings up to the first slot."""
    starts = {kind: tuple(w.partition("{")[0].strip() for w in wordings(kind)) for kind in KINDS}
    return starts | {CORE: words.REFUSAL_STARTS}


def refusal_style(text: str) -> str | None:
    """The kind in whose wording the text refuses, or None where it does not begin with any."""
    start = text.strip()
    return next((kind for kind in KINDS if start.startswith(_starts()[kind])), None)
