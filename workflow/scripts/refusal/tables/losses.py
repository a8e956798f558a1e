"""Cross-entropy under interventions, and fine-tuning beside them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from refusal.latex import MISSING, escape_latex, number, stacked, tabular
from refusal.reading import (
    find,
    judge_of,
    label,
    models_of,
    pooled_name,
    project_recipe,
    recipes,
)
from refusal.statistics import BASELINE, MODEL_JUDGE, PERPLEXITY_CORPORA, Estimate
from refusal.tables.layout import Key, lookup

HEADINGS = {"text": "Text", "answers": "Answers", "own": "Own"}
DIGITS = 3

SUBTRACTION = {"operator": "add", "direction": "dim", "k": "1", "strength": -1.0}
ABLATION = project_recipe("dim", "1", scope="all")
# The rows of the two tables, found by recipe: those of Tables 9 and 10 of Arditi et al. 2024, and
# what this study adds to the second.
LOSS_ROWS = ({"operator": "none"}, ABLATION, SUBTRACTION)
COMPARATOR_ROWS = (
    {"operator": "none"},
    ABLATION,
    project_recipe("dim", "1", scope="weights"),
    SUBTRACTION,
    project_recipe("inlp_faithful", "full", 2.0),
    {"operator": "fine_tune"},
)


class Published(NamedTuple):
    """A row of a published table: share refused and cross-entropies by corpus, in nats."""

    label: str
    refused: float
    losses: tuple[float, float, float]


# Arditi et al. 2024, Table 10; a reference beside the measured rows, nothing is computed from it.
PUBLISHED = (
    Published("No intervention", 0.95, (2.348, 1.912, 0.195)),
    Published("DiM ablation", 0.01, (2.362, 1.944, 0.213)),
    Published("DiM addition \N{MINUS SIGN}1", 0.01, (2.469, 1.912, 0.441)),
    Published("Fine-tuning", 0.00, (2.382, 1.626, 0.273)),
)
PUBLISHED_HEADING = "As published for Llama-3 8B Instruct (text: Pile, answers: Alpaca)"


def _shown(summary: pd.DataFrame, wanted: tuple[dict, ...]) -> list[tuple[str, str]]:
    """(name, reader's label) of the wanted recipes that the study has, in their order."""
    table = recipes(summary)
    names = [found[0] for recipe in wanted if (found := find(table, **recipe))]
    wide = {name: table.loc[name, "scope"] != "source" for name in names}
    return [(name, escape_latex(label(table.loc[name], wide[name]))) for name in names]


def _loss_header() -> list[str]:
    return [part for corpus in PERPLEXITY_CORPORA for part in (HEADINGS[corpus], "change")]


def _losses(rows: Mapping[Key, Any], model: str, name: str) -> list[tuple[str, str]]:
    """(value, interval) of the cross-entropy of every corpus and of its change from none.

    The interval is that of the change, which is paired; the cross-entropy itself has none here.
    """
    pairs = []
    for corpus in PERPLEXITY_CORPORA:
        loss = rows.get((model, name, corpus, "cross_entropy", MODEL_JUDGE))
        ratio = rows.get((model, name, corpus, "perplexity_ratio", MODEL_JUDGE))
        pairs.append((MISSING if loss is None else number(loss.value, DIGITS), ""))
        changed = name != BASELINE and ratio is not None
        pairs.append(_change(ratio) if changed else (MISSING, ""))
    return pairs


def _change(ratio: Any) -> tuple[str, str]:
    """A ratio of perplexities as what its logarithm is, a difference of cross-entropies."""
    logs = Estimate(*(math.log(bound) for bound in (ratio.value, ratio.low, ratio.high)))
    return stacked(logs, DIGITS)


def losses_table(summary: pd.DataFrame) -> str:
    """Cross-entropy without intervention, under ablation and under subtraction, model by model."""
    rows, shown = lookup(summary), _shown(summary, LOSS_ROWS)
    models = models_of(summary)
    pooled = pooled_name(summary)
    lines = []
    for model in [*models, *([pooled] if pooled not in models else [])]:
        lines.append([escape_latex(model) if model in models else "mean over models"])
        for name, text in shown:
            pairs = _losses(rows, model, name)
            lines.append([text, *(" ".join(filter(None, pair)) for pair in pairs)])
    return tabular("l" + "rl" * len(PERPLEXITY_CORPORA), ["", *_loss_header()], lines)


def comparator_table(summary: pd.DataFrame) -> str:
    """What removes refusal, and what it costs in cross-entropy; intervals on a second line."""
    rows, judge, model = lookup(summary), judge_of(summary), pooled_name(summary)
    lines = []
    for name, text in _shown(summary, COMPARATOR_ROWS):
        pairs = [
            stacked(rows.get((model, name, "harmful", metric, by)))
            for metric, by in (("refused", judge), ("complied", "oracle"))
        ]
        values, bounds = zip(*pairs, *_losses(rows, model, name), strict=True)
        lines += [[text, *values], ["", *bounds]]
    lines += [[PUBLISHED_HEADING], *map(_published_line, PUBLISHED)]
    header = ["", "Refused", "Answered", *_loss_header()]
    return tabular("lll" + "rl" * len(PERPLEXITY_CORPORA), header, lines)


def _published_line(row: Published) -> list[str]:
    base = PUBLISHED[0].losses
    cells = []
    for loss, unsteered in zip(row.losses, base, strict=True):
        change = MISSING if row is PUBLISHED[0] else number(loss - unsteered, DIGITS)
        cells += [number(loss, DIGITS), change]
    return [escape_latex(row.label), number(row.refused), MISSING, *cells]
