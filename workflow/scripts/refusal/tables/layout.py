"""What several tables share: cells of the summary, columns, names."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from refusal.latex import MISSING, estimate, number

METHOD_NAMES = {"dim": "DiM", "inlp_faithful": "INLP", "inlp_corrected": "INLP corrected"}
Key = tuple[str, str, str, str, str]


def lookup(summary: pd.DataFrame) -> dict[Key, Any]:
    """Rows of the summary by (model, intervention, dataset, metric, judge)."""
    columns = ["model", "intervention", "dataset", "metric", "judge"]
    keys = zip(*(summary[column] for column in columns), strict=True)
    return dict(zip(keys, summary.itertuples(index=False), strict=True))


def cell(rows: Mapping[Key, Any], *key: str, digits: int = 2, bounds: bool = True) -> str:
    """One estimate of the summary as a table cell; a dash if it was not measured."""
    row = rows.get(key)
    if row is None:
        return MISSING
    return estimate(row.value, row.low, row.high, digits) if bounds else number(row.value, digits)


def share_range(low: float, high: float) -> str:
    """An interval of a share in tiny print without zeros before the point; nothing if unknown."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    low, high = (f"{min(max(x, -1.0), 1.0):.2f}".replace("0.", ".", 1) for x in (low, high))
    return rf"{{\tiny {low.replace('-', '$-$')}--{high.replace('-', '$-$')}}}"


@dataclass(frozen=True)
class Column:
    """A column of the result tables; `judge` None stands for the study's main judge."""

    heading: str
    dataset: str
    metric: str
    judge: str | None = None
    bounds: bool = False  # whether the main table prints the interval


def result_header(columns: Sequence[Column], side: str) -> list[str]:
    """Headings of two lines that share a baseline."""
    stack = rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}%s\end{{tabular}}"
    return ["Intervention", *(stack % column.heading for column in columns)]
