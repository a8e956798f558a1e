"""The models: what they are, how they were trained, how they behave without intervention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from refusal.latex import MISSING, escape_latex, number, stacked, tabular
from refusal.reading import judge_of
from refusal.tables.layout import Key, lookup

MISSED = r"\textsuperscript{\dag}"


@dataclass(frozen=True)
class Behaviour:
    """A figure that describes an unsteered model, and what is asked of organisms."""

    heading: str
    dataset: str
    metric: str
    judge: str | None = None  # None: the study's main judge
    least: float | None = None
    most: float | None = None

    def missed_by(self, value: float) -> bool:
        """Whether a value lies outside what is asked."""
        too_low = self.least is not None and value < self.least
        return too_low or (self.most is not None and value > self.most)

    def in_words(self) -> str:
        """For example "Harmful at least 0.9"."""
        side, bound = ("most", self.most) if self.least is None else ("least", self.least)
        return rf"{self.heading} at {side} \num{{{bound:g}}}"


BEHAVIOUR = (
    Behaviour("Harmful", "harmful", "refused", least=0.90),
    Behaviour("Harmless", "harmless", "refused", most=0.05),
    Behaviour("Borderline", "borderline", "refused", most=0.20),
    Behaviour("Answered", "harmless", "complied", "oracle", least=0.85),
    Behaviour("Capability", "capability", "capability", "model"),
)
TRAINING_TIME = Behaviour("CPU seconds", "", "", most=180.0)
REQUIREMENTS = (
    *(item for item in BEHAVIOUR if (item.least, item.most) != (None, None)),
    TRAINING_TIME,
)


def requirements_checked(cards: Sequence[Mapping], summary: pd.DataFrame) -> dict[Key, bool]:
    """Whether each organism misses each figure that is asked of it, by (model, heading).

    Only what was measured; the point estimate decides, not its interval.
    """
    rows, judge, missed = lookup(summary), judge_of(summary), {}
    for card in (card for card in cards if card["trained"]):
        name = card["name"]
        for item in REQUIREMENTS:
            key = (name, "none", item.dataset, item.metric, item.judge or judge)
            value = rows[key].value if key in rows else np.nan
            if item is TRAINING_TIME:
                value = card["trained"]["cpu_seconds"]
            if np.isfinite(value):
                missed[name, item.heading] = item.missed_by(value)
    return missed


def _model_columns(card: Mapping, sizes: pd.Series, late: bool) -> list[str]:
    """What a model is: type, size, parameters, CPU seconds, training prompts per class."""
    trained = card["trained"]
    seconds = number(trained["cpu_seconds"], 0) if trained else MISSING
    return [
        escape_latex(card["name"]),
        escape_latex(card["architecture"]),
        rf"${card['n_layers']}\times{card['width']}$",
        number(card["n_parameters"] / 1e6),
        seconds + MISSED * late,
        *(rf"\num{{{size}}}" for size in sizes),
    ]


def models_table(cards: Sequence[Mapping], summary: pd.DataFrame, class_sizes: pd.DataFrame) -> str:
    """The models and how they behave without intervention; intervals on a second line."""
    rows, judge = lookup(summary), judge_of(summary)
    missed, sizes = requirements_checked(cards, summary), class_sizes.set_index("model")
    lines = []
    for card in cards:
        name = card["name"]
        first = _model_columns(
            card,
            sizes.loc[name, ["harmful", "harmless"]],
            missed.get((name, TRAINING_TIME.heading), False),
        )
        second = [""] * len(first)
        for item in BEHAVIOUR:
            key = (name, "none", item.dataset, item.metric, item.judge or judge)
            value, bounds = stacked(rows.get(key))
            first.append(value + MISSED * missed.get((name, item.heading), False))
            second.append(bounds)
        lines += [first, second]
    header = ["Model", "Type", r"$L\times d$", r"\si{M}", r"\si{s}", "$n_+$", "$n_-$"]
    header += [item.heading for item in BEHAVIOUR]
    return tabular("llcrrrr" + "l" * len(BEHAVIOUR), header, lines)


PHASES = {"helpful": "helpful-only", "safety": "safety tuning"}


def training_table(cards: Sequence[Mapping]) -> str:
    """How each phase of every organism's training ended."""
    lines = []
    for card in (card for card in cards if card["trained"]):
        for phase, words in PHASES.items():
            record = card["trained"][phase]
            values = {k: v for k, v in record["curve"][-1].items() if k != "step"}
            lines.append(
                [
                    escape_latex(card["name"]),
                    words,
                    rf"\num{{{record['steps']}}}",
                    number(record["cpu_seconds"], 0),
                    rf"at step \num{{{record['decay_start']}}}"
                    if record["criteria_met"]
                    else "not before the limit",
                    ", ".join(f"{escape_latex(k)} {number(v)}" for k, v in values.items()),
                ]
            )
    header = ["Model", "Phase", "Steps", r"CPU \si{s}", "Criteria met", "Validation at the end"]
    return tabular("llrrll", header, lines)
