"""The completions of a model under every intervention, as an index of distinct texts.

Greedy completions repeat themselves a lot under interventions that do little, so each text is
written once. What a real model says to prompts that are not harmless is left out unless the
configuration asks for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

# Index of a text that is not shown, and the verdict of a judge that gave none.
REDACTED = -1
NO_VERDICT = "-"
NO_SECRET = "harmless"


@dataclass(frozen=True)
class Shown:
    """Which completions are shown.

    Attributes:
        prompts: the prompts, one row each: id, label, text.
        redacted: whether those to prompts that are not harmless are left out.
        characters: length at which a completion is cut.
    """

    prompts: pd.DataFrame
    redacted: bool
    characters: int


def completion_index(
    generations: Mapping[str, pd.DataFrame], scores: Mapping[str, pd.DataFrame], shown: Shown
) -> dict[str, Any]:
    """Distinct texts, and by intervention the text and the verdicts of every prompt.

    Args:
        generations: id and completion by intervention (refusal.generations).
        scores: id, judge, metric and value by intervention (refusal.scores).

    Returns:
        `texts`; and by intervention `text` (place in `texts`; -1: redacted; null: none) and
        `refused` (by judge one character per prompt: 1, 0, or - where it gave no verdict).
    """
    places: dict[str, int] = {}
    rows = {}
    ids, labels = list(shown.prompts["id"]), list(shown.prompts["label"])
    for name, generated in generations.items():
        said = dict(zip(generated["id"], generated["completion"], strict=True))
        pairs = zip(map(said.get, ids), labels, strict=True)
        text = [_place(completion, label, places, shown) for completion, label in pairs]
        rows[name] = {"text": text, "refused": _verdicts(scores[name], ids)}
    return {"texts": list(places), "interventions": rows}


def _place(completion: object, label: str, places: dict[str, int], shown: Shown) -> int | None:
    """Place of a completion among the distinct texts; it is added if it is new."""
    if not isinstance(completion, str):
        return None
    if shown.redacted and label != NO_SECRET:
        return REDACTED
    cut = len(completion) > shown.characters
    text = completion[: shown.characters] + " […]" if cut else completion
    return places.setdefault(text, len(places))


def _verdicts(scores: pd.DataFrame, ids: list[str]) -> dict[str, str]:
    """By judge that says whether a completion refuses, its verdicts in the order of `ids`."""
    refused = scores[(scores["metric"] == "refused") & scores["value"].notna()]
    found: dict[str, dict[str, str]] = {}
    for judge, name, value in refused[["judge", "id", "value"]].itertuples(index=False):
        found.setdefault(judge, {})[name] = str(int(value))
    return {
        judge: "".join(said.get(name, NO_VERDICT) for name in ids) for judge, said in found.items()
    }
