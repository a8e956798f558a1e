"""Numbers of the experiments on kinds of refusal as rows of the study's summary."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from refusal.statistics import Estimate, summary_rows

TOO_FEW = "too few prompts"


class Scalar(NamedTuple):
    """One number: what, said by whom, with its interval and the number of units behind it."""

    metric: str
    judge: str
    estimate: Estimate
    n: int
    dataset: str = "kinds"


def kind_summary(
    study: str, model: str, recipe: Mapping[str, object], scalars: list[Scalar]
) -> pd.DataFrame:
    """Rows of the summary schema under the intervention "none", whose recipe is given."""
    rows = [
        {
            "intervention": "none",
            "dataset": scalar.dataset,
            "metric": scalar.metric,
            "judge": scalar.judge,
            **scalar.estimate._asdict(),
            "n": scalar.n,
            "reason": None if np.isfinite(scalar.estimate.value) else TOO_FEW,
        }
        for scalar in scalars
    ]
    return summary_rows(study, model, {"none": recipe}, pd.DataFrame(rows))


def scalars(judge: str, found: Mapping[str, tuple[Estimate, int]]) -> list[Scalar]:
    """Numbers by metric as rows of one judge."""
    return [Scalar(metric, judge, *values) for metric, values in found.items()]


def without_interval(value: float) -> Estimate:
    """A number that is no estimate from prompts."""
    return Estimate(float(value), np.nan, np.nan)
