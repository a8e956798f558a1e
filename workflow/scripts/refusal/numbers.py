"""Numbers of the text: every value that the paper may quote, under a name.

They become LaTeX macros; a name that is not here is an error when the paper is made.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from refusal.discussion import offset_correlation, offset_table
from refusal.latex import interval, number, printed
from refusal.reading import judge_of, pooled_name
from refusal.statistics import MEAN, draw_group
from refusal.tables.kinds import kind_requirements
from refusal.tables.models import PHASES, requirements_checked
from refusal.tables.selection import candidate_counts


def collect_numbers(frames: Mapping[str, Any]) -> dict[str, str]:
    """Return LaTeX by name.

    Names: `<intervention>/<dataset>/<metric>/<judge>` (mean over models, or the only model),
    `<name>/interval`, `claim/<claim>/<condition>`, `agreement/<judge>/<judge>/<dataset>`
    (on refusal),
    `offset/correlation` (over models, where there are enough), `style judge/accuracy` and
    `style judge/answered` (over wordings), `count/<thing>` (left out where it
    is zero, so that a sentence can ask) and `range/<thing>`
    (over models: one value, or lowest to highest).

    Args:
        frames: cards (list), claims (dict), summary, agreement, selection.
    """
    summary = frames["summary"]
    numbers = _summary_numbers(summary[summary.model == pooled_name(summary)])
    numbers |= claim_numbers(frames["claims"])
    numbers |= _agreement_numbers(frames["agreement"])
    numbers |= _offset_numbers(summary) | _style_judge_numbers(summary)
    return numbers | _counts(frames) | _ranges(frames)


def _summary_numbers(rows: pd.DataFrame) -> dict[str, str]:
    numbers = {}
    for row in rows.itertuples():
        name = f"{row.intervention}/{row.dataset}/{row.metric}/{row.judge}"
        numbers[name], numbers[f"{name}/interval"] = printed(
            row.metric, row.value, row.low, row.high
        )
    return numbers


def claim_numbers(claims: Mapping[str, Mapping]) -> dict[str, str]:
    """Return the values of all conditions of claims as LaTeX: `claim/<claim>/<condition>`."""
    numbers = {}
    for name, claim in claims.items():
        for index, condition in enumerate(claim["overall"]["conditions"]):
            key = f"claim/{name}/{index}"
            parts = (condition[part] for part in ("metric", "value", "low", "high"))
            numbers[key], numbers[f"{key}/interval"] = printed(*parts)
    return numbers


def _agreement_numbers(agreement: pd.DataFrame) -> dict[str, str]:
    numbers = {}
    of_refusal = agreement[(agreement.model == "all") & (agreement.metric == "refused")]
    for row in of_refusal[of_refusal.kappa.notna()].itertuples():
        name = f"agreement/{row.judge_a}/{row.judge_b}/{row.dataset}"
        numbers[name] = number(row.kappa)
        numbers[f"{name}/interval"] = interval(row.low, row.high)
    return numbers


def _offset_numbers(summary: pd.DataFrame) -> dict[str, str]:
    """The correlation of the harmless offset with the effect of ablation; nothing if undefined."""
    value, low, high = offset_correlation(offset_table(summary, judge_of(summary)))
    if pd.isna(value):
        return {}
    return {
        "offset/correlation": number(value),
        "offset/correlation/interval": interval(low, high),
    }


def _style_judge_numbers(summary: pd.DataFrame) -> dict[str, str]:
    """Of the style judge, the same for all models: its interval over wordings, not over models."""
    numbers = {}
    for metric in ("accuracy", "answered"):
        rows = summary[summary.metric == f"style_judge_{metric}"]
        for row in rows[rows.model != MEAN].head(1).itertuples():
            numbers[f"style judge/{metric}"] = number(row.value)
            numbers[f"style judge/{metric}/interval"] = interval(row.low, row.high)
    return numbers


def _counts(frames: Mapping[str, Any]) -> dict[str, str]:
    cards, summary, claims = frames["cards"], frames["summary"], frames["claims"]
    verdicts = [claim["overall"]["verdict"] for claim in claims.values()]
    names = [name for name in pd.unique(summary.intervention) if not name.endswith("-draw*")]
    chosen = frames["selection"][frames["selection"].selected]
    requirements = requirements_checked(cards, summary)
    phases = [card["trained"][phase] for card in cards if card["trained"] for phase in PHASES]
    asked = _kind_requirements(frames)
    counts = {
        "kind requirements": len(asked),
        "kind requirements missed": int(asked.missed.sum()),
        "models": len(cards),
        "organisms": sum(bool(card["trained"]) for card in cards),
        "architectures": len({card["architecture"] for card in cards}),
        "interventions": len(names),
        "random draws": sum(draw_group(name) is not None for name in names),
        "claims": len(claims),
        "selected": len(chosen),
        "selected inlp": int(chosen.method.str.startswith("inlp").sum()),
        "fallbacks": int(chosen.fallback.sum()),
        "requirements": len(requirements),
        "requirements missed": sum(requirements.values()),
        "phases": len(phases),
        "phases in time": sum(phase["criteria_met"] for phase in phases),
        **{f"claims {verdict}": verdicts.count(verdict) for verdict in set(verdicts)},
    }
    return {f"count/{name}": rf"\num{{{count}}}" for name, count in counts.items() if count}


def _kind_requirements(frames: Mapping[str, Any]) -> pd.DataFrame:
    """What is asked of organisms per kind of refusal; nothing where that was not measured."""
    trained = [card["name"] for card in frames["cards"] if card["trained"]]
    if "kinds_behaviour" not in frames:
        return pd.DataFrame({"missed": []})
    checked = kind_requirements(frames["kinds_behaviour"])
    return checked[checked.model.isin(trained)]


def _ranges(frames: Mapping[str, Any]) -> dict[str, str]:
    trained = [card for card in frames["cards"] if card["trained"]]
    candidates = candidate_counts(frames["selection"])
    ranges = {name: _span(candidates[name]) for name in candidates}
    if trained:
        ranges["vocabulary"] = _span(card["vocabulary"] for card in trained)
        ranges["training seconds"] = _span(round(c["trained"]["cpu_seconds"]) for c in trained)
    return {f"range/{name}": value for name, value in ranges.items()}


def _span(values: Iterable[int]) -> str:
    """One number where all are equal, else the lowest and the highest."""
    values = sorted(set(values))
    ends = values if len(values) == 1 else (values[0], values[-1])
    return " to ".join(rf"\num{{{int(value)}}}" for value in ends)
