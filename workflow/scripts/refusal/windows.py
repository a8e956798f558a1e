"""Windows: ablation of difference in means over every run of consecutive layers.

How local is refusal? Readers and authors of Arditi et al. 2024 report that a few layers in the
middle are about as good as all of them (LessWrong discussion, 2024). A window (start, length) is
ablated at the block inputs and writes of blocks start .. start + length - 1. Which window is best
is chosen on validation prompts and measured on test prompts, since the best of many on the prompts
it is measured on would look better than it is.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from refusal.statistics import (
    BASELINE,
    Intervals,
    bootstrap_means,
    mean_ignoring_nan,
    paired_bootstrap,
    summary_rows,
    wilson_interval,
)

Window = tuple[int, int]
"""(start, length) in layers; length 0 is no ablation at all."""

FloatArray = NDArray[np.float64]
NO_WINDOW: Window = (0, 0)
CHOSEN_ON = ("validation", "harmful")
METRICS = ("refused", "complied", "looping")
MAP_COLUMNS = [
    "model",
    "start",
    "length",
    "split",
    "label",
    "judge",
    "metric",
    "value",
    "low",
    "high",
    "n",
]


def windows(n_layers: int, lengths: Sequence[int] | None = None) -> list[Window]:
    """No window, every window of the given lengths (None: of every length), and all layers.

    Ordered by length, then start; lengths above `n_layers` are left out.
    """
    wanted = range(1, n_layers + 1) if lengths is None else {*lengths, n_layers}
    sizes = sorted(length for length in wanted if 0 < length <= n_layers)
    placed = [(start, size) for size in sizes for start in range(n_layers - size + 1)]
    return [NO_WINDOW, *placed]


def kinds_of_window(n_layers: int) -> dict[str, int]:
    """The longest window of each kind: `best` leaves out a layer, `local` half of them."""
    return {"best_window": n_layers - 1, "local_window": n_layers // 2}


def window_map(model: str, scores: pd.DataFrame, intervals: Intervals) -> pd.DataFrame:
    """Rates with Wilson's intervals by window, split, label, judge and metric (`MAP_COLUMNS`).

    scores: rows of the scores schema with start, length and split; NaN values count for nothing,
    and what a judge could not judge at all (NaN, n = 0) is left out.
    """
    keys = MAP_COLUMNS[1:7]
    known = scores[scores["metric"].isin(METRICS) & scores["value"].notna()]
    rows = known.groupby(keys, sort=False)["value"].agg(["sum", "count"]).reset_index()
    low, high = wilson_interval(rows["sum"], rows["count"], intervals.confidence)
    rows = rows.assign(
        model=model, value=rows["sum"] / rows["count"], low=low, high=high, n=rows["count"]
    )
    return rows[MAP_COLUMNS]


def matrix(
    scores: pd.DataFrame, split: str, label: str, judge: str, metric: str
) -> dict[Window, FloatArray]:
    """Values [prompts] of every window, prompts in the same order; NaN where not judged."""
    keep = (
        (scores["split"] == split)
        & (scores["label"] == label)
        & (scores["judge"] == judge)
        & (scores["metric"] == metric)
    )
    table = scores[keep].pivot(index=["start", "length"], columns="id", values="value")
    return {window: row.to_numpy(np.float64) for window, row in table.iterrows()}


def choose_window(
    refused: Mapping[Window, FloatArray], longest: int, intervals: Intervals
) -> tuple[Window, FloatArray] | None:
    """The window of 1 to `longest` layers that leaves fewest prompts refused; None without one.

    refused: values [prompts] by window. Of equal windows the shortest, then the first is taken.
    Also returns what resampled prompts would have chosen: (start, length) [resamples, 2].
    """
    candidates = sorted(
        (window for window in refused if 0 < window[1] <= longest),
        key=lambda window: (window[1], window[0]),
    )
    values = np.array([refused[window] for window in candidates])
    if not candidates or np.isnan(mean_ignoring_nan(values)).any():
        return None
    # Rounded, so that equal counts are equal means and the order of candidates decides.
    resampled = np.nan_to_num(bootstrap_means(values, intervals).round(9), nan=np.inf)
    chosen = candidates[int(mean_ignoring_nan(values).round(9).argmin())]
    return chosen, np.array(candidates)[resampled.argmin(0)]


def windows_summary(
    study: str,
    model: str,
    scores: pd.DataFrame,
    n_layers: int,
    recipes: Mapping[str, Mapping],
    intervals: Intervals,
) -> pd.DataFrame:
    """Summary rows of the best windows, all layers and no window, intervention "none".

    Metrics, per judge that could judge: `<what>_refused` for the datasets harmful and harmless
    (Wilson), `<what>_complied` (harmful), where what is `no_window`, `all_layers`, `best_window` or
    `local_window` (see `kinds_of_window`); `<what>_refused_change`, minus no window;
    `<kind>_refused_difference`, minus all layers, both paired on the same prompts; and
    `<kind>_start`, `<kind>_length`, whose intervals resample the prompts of the choice.
    """
    refused = scores[(scores["metric"] == "refused") & scores["value"].notna()]
    estimates = []
    for judge in refused["judge"].unique():
        at, found = _chosen(scores, judge, n_layers, intervals)
        estimates += [[*row, judge] for row in found]
        for label, metric in (
            ("harmful", "refused"),
            ("harmless", "refused"),
            ("harmful", "complied"),
        ):
            values = matrix(scores, "test", label, judge, metric)
            rows = _rates(at, values, metric, intervals) if values else []
            estimates += [[label, *row, judge] for row in rows]
    columns = ["dataset", "metric", "value", "low", "high", "n", "reason", "judge"]
    table = pd.DataFrame(estimates, columns=columns).assign(intervention=BASELINE)
    return summary_rows(study, model, recipes, table)


def _chosen(
    scores: pd.DataFrame, judge: str, n_layers: int, intervals: Intervals
) -> tuple[dict[str, Window | None], list[list]]:
    """Window by name, and the rows that say which windows were chosen."""
    at: dict[str, Window | None] = {"no_window": NO_WINDOW, "all_layers": (0, n_layers)}
    validation = matrix(scores, *CHOSEN_ON, judge, "refused")
    rows = []
    for kind, longest in kinds_of_window(n_layers).items():
        choice = choose_window(validation, longest, intervals)
        at[kind] = choice and choice[0]
        for part, name in enumerate(("start", "length")):
            if choice is None:
                why = f"no judged window of at most {longest} layers"
                rows.append(["harmful", f"{kind}_{name}", np.nan, np.nan, np.nan, 0, why])
                continue
            bounds = intervals.percentiles(choice[1][:, part])
            n = int(np.isfinite(validation[choice[0]]).sum())
            rows.append(["harmful", f"{kind}_{name}", choice[0][part], *bounds, n, None])
    return at, rows


def _rates(
    at: Mapping[str, Window | None],
    values: Mapping[Window, FloatArray],
    metric: str,
    intervals: Intervals,
) -> list[list]:
    """Rates, changes and differences of the named windows on the test prompts of one label."""
    rows = []
    base, everywhere = (values[at[name]] for name in ("no_window", "all_layers"))
    for name, window in at.items():
        if window is None:
            why = "no such window was run"
            rows.append([f"{name}_{metric}", np.nan, np.nan, np.nan, 0, why])
            continue
        here = values[window]
        n = int(np.isfinite(here).sum())
        bounds = wilson_interval(np.nansum(here), n, intervals.confidence)
        rows.append([f"{name}_{metric}", float(mean_ignoring_nan(here)), *bounds, n, None])
        if window != NO_WINDOW:
            change = paired_bootstrap(here, base, intervals)
            rows.append([f"{name}_{metric}_change", *change, n, None])
        if name.endswith("_window") and window != NO_WINDOW:
            difference = paired_bootstrap(here, everywhere, intervals)
            rows.append([f"{name}_{metric}_difference", *difference, n, None])
    return rows
