"""Splits of the grammar's words: which part every object and every verb belongs to."""

import random
from collections.abc import Mapping
from functools import cache

from refusal import families
from refusal import vocabulary as words

SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = 0.25  # of every object list for validation and for test; of judged pairs


def noun_of(thing: str) -> str:
    """The object without its determiner: "a lemon cake" -> "lemon cake"."""
    first, _, rest = thing.partition(" ")
    return rest if rest and first in ("a", "an", "the", "my") else thing


@cache
def part_of() -> Mapping[str, str]:
    """Split of every object. Fixed: it depends on no seed, so organisms share it."""
    parts: dict[str, str] = {}
    for name, objects in object_lists().items():
        shuffled = random.Random(f"objects {name}").sample(objects, len(objects))
        held_out = max(1, int(len(objects) * HELD_OUT_SHARE))
        for index, thing in enumerate(shuffled):
            parts[thing] = "test" if index < held_out else "train"
            if held_out <= index < 2 * held_out:
                parts[thing] = "validation"
    return parts


def object_lists() -> Mapping[str, tuple[str, ...]]:
    """The lists of core requests and those of the other kinds."""
    return words.OBJECTS | families.LISTS


def verb_part(verb: str) -> str:
    """Split of a verb: "train" unless it is held out of safety tuning."""
    return next((part for part, verbs in words.HELD_OUT_VERBS.items() if verb in verbs), "train")
