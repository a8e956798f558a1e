"""Numbers of the text: every value that the paper may quote, under a name.

They become LaTeX macros; a name that is not here is an error when the paper is made.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from refusal.figures import pooled_name
from refusal.latex import interval, number


def collect_numbers(frames: Mapping[str, Any]) -> dict[str, str]:
    """Return LaTeX by name.

    Names: `<intervention>/<dataset>/<metric>/<judge>` (mean over models, or the only model),
    `<name>/interval`, `claim/<claim>/<condition>` and `count/<thing>`.

    Args:
        frames: cards (list), claims (dict), summary, selection.
    """
    summary = frames["summary"]
    numbers = _summary_numbers(summary[summary.model == pooled_name(summary)])
    numbers |= _claim_numbers(frames["claims"])
    return numbers | _counts(frames)


def _summary_numbers(rows: pd.DataFrame) -> dict[str, str]:
    numbers = {}
    for row in rows.itertuples():
        name = f"{row.intervention}/{row.dataset}/{row.metric}/{row.judge}"
        numbers[name] = number(row.value)
        numbers[f"{name}/interval"] = interval(row.low, row.high)
    return numbers


def _claim_numbers(claims: Mapping[str, Mapping]) -> dict[str, str]:
    numbers = {}
    for name, claim in claims.items():
        for index, condition in enumerate(claim["overall"]["conditions"]):
            key = f"claim/{name}/{index}"
            numbers[key] = number(condition["value"])
            numbers[f"{key}/interval"] = interval(condition["low"], condition["high"])
    return numbers


def _counts(frames: Mapping[str, Any]) -> dict[str, str]:
    cards, summary, claims = frames["cards"], frames["summary"], frames["claims"]
    verdicts = [claim["overall"]["verdict"] for claim in claims.values()]
    names = [name for name in pd.unique(summary.intervention) if not name.endswith("-draw*")]
    chosen = frames["selection"][frames["selection"].selected]
    counts = {
        "models": len(cards),
        "architectures": len({card["architecture"] for card in cards}),
        "interventions": len(names),
        "claims": len(claims),
        "selected": len(chosen),
        "fallbacks": int(chosen.fallback.sum()),
        **{f"claims {verdict}": verdicts.count(verdict) for verdict in set(verdicts)},
    }
    return {f"count/{name}": rf"\num{{{count}}}" for name, count in counts.items()}
