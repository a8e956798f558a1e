"""What models answer to requests of every kind of refusal, and the groups that answers make.

Harmful-refused, harmful-complied, benign-refused and benign-complied are the four cells of the
controlled test of Joad et al. 2026 (arXiv 2602.02132, section 3.2).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from refusal.errors import InputError
from refusal.grammar import is_refusal
from refusal.kind_directions import Group
from refusal.kinds import HARMFUL_KINDS, SIDES, refusal_style
from refusal.scores import contains_all_words, contains_refusal
from refusal.statistics import wilson_interval

RESPONSE_COLUMNS = ["id", "label", "kind", "split", "completion", "tokens", "stop_reason"]
RESPONSE_COLUMNS += ["refused", "complied", "style"]
CELLS = ("harmful-refused", "harmful-complied", "benign-refused", "benign-complied")


def require_kinds(prompts: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """The prompts of the kinds of refusal.

    Raises:
        InputError: there are none, or some kind lacks training or test prompts.
    """
    chosen = prompts[prompts.label.isin(SIDES)]
    remedy = f"Add rows with these labels, or set experiments.{experiment}: false."
    for split in ("train", "validation", "test"):
        for side in SIDES:
            if chosen[(chosen.split == split) & (chosen.label == side)].empty:
                raise InputError(f"prompts: no {side} prompt with split {split!r}. {remedy}")
    return chosen


def judge_name(grammar: bool) -> str:
    """Who says whether a completion refuses: the grammar itself, or the published rule."""
    return "oracle" if grammar else "substring"


def judged(prompts: pd.DataFrame, completions: pd.DataFrame, grammar: bool) -> pd.DataFrame:
    """Completions with what they did (columns: `RESPONSE_COLUMNS`), in the order of completions.

    `refused`: by the grammar's wordings of any kind, or the substring rule; `complied`: not refused
    and holding the keywords, NaN without keywords; `style`: kind of the wording, else None.
    """
    columns = ["id", "label", "kind", "split", "keywords"]
    table = completions.merge(prompts[columns], on="id", how="left", validate="many_to_one")
    rule = is_refusal if grammar else contains_refusal
    table["refused"] = [float(rule(text)) for text in table.completion]
    table["complied"] = [
        _complied(text, keywords, refused)
        for text, keywords, refused in zip(
            table.completion, table.keywords, table.refused, strict=True
        )
    ]
    styles = [refusal_style(text) if grammar else None for text in table.completion]
    table["style"] = pd.Series(styles, index=table.index, dtype=object)
    extra = [c for c in completions.columns if c not in RESPONSE_COLUMNS]
    return table[extra + RESPONSE_COLUMNS]


def _complied(text: str, keywords: object, refused: float) -> float:
    if keywords is None or np.ndim(keywords) == 0 or not len(keywords):
        return np.nan
    return float(not refused and contains_all_words(text, list(keywords)))


def cells(responses: pd.DataFrame) -> pd.Series:
    """The cell of every prompt by its label and what the unsteered model did; None if in none.

    Harmful are the noncompliant prompts of the harmful kinds; benign are their contrasts and
    borderline prompts.
    """
    harmful_kind = responses.kind.isin(HARMFUL_KINDS)
    harmful = (responses.label == "noncompliant") & harmful_kind
    benign = ((responses.label == "contrast") & harmful_kind) | (responses.label == "borderline")
    side = np.select([harmful, benign], ["harmful", "benign"], "")
    did = np.where(responses.refused == 1, "refused", "complied")
    names = [f"{s}-{d}" if s else None for s, d in zip(side, did, strict=True)]
    return pd.Series(names, index=responses.index, dtype=object)


def behaviour_frame(responses: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Behaviour of the unsteered model on test prompts, per kind and label, Wilson intervals.

    Returns:
        kind, label, metric (refused; right_style, of noncompliant prompts whose style is known),
        value, low, high, n.
    """
    test = responses[responses.split == "test"]
    frames = [_rates(test.assign(value=test.refused), "refused", confidence)]
    asked = test[test.label == "noncompliant"]
    if asked["style"].notna().any():
        own = asked.assign(value=(asked["style"] == asked.kind).astype(float))
        frames.append(_rates(own, "right_style", confidence))
    return pd.concat(frames, ignore_index=True)


def _rates(rows: pd.DataFrame, metric: str, confidence: float) -> pd.DataFrame:
    found = rows.groupby(["kind", "label"], sort=False)["value"].agg(["sum", "count"]).reset_index()
    low, high = wilson_interval(found["sum"], found["count"], confidence)
    found = found.assign(metric=metric, value=found["sum"] / found["count"], low=low, high=high)
    found = found.rename(columns={"count": "n"})
    return found[["kind", "label", "metric", "value", "low", "high", "n"]]


def grouped(rows: pd.DataFrame, values: np.ndarray) -> Mapping[Group, np.ndarray]:
    """Rows of `values` [n, ...] by (kind, side) of the prompts in `rows`, in their order."""
    place = rows.reset_index(drop=True).groupby(["kind", "label"], sort=False).indices
    return {group: values[index] for group, index in place.items()}
