"""Refusal under each of the main interventions."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from refusal.figures.style import (
    BAND,
    DATASET_COLOURS,
    DIRECTION_COLOURS,
    PURPLE,
    TEXT_WIDTH,
    draw_interval,
    estimate_handles,
    legend,
    model_points,
    new_figure,
    require,
    share_axis,
    styled,
)
from refusal.reading import (
    estimates,
    judge_of,
    label,
    models_of,
    pooled_name,
    recipes,
    resolve_rows,
)


def _dots(axes: Axes, summary: pd.DataFrame, rows: list, dataset: str, judge: str) -> None:
    """One panel of the main comparison: pooled estimate, models, range of random controls."""
    table, models = recipes(summary), models_of(summary)
    pooled = estimates(summary, "refused", dataset, judge, pooled_name(summary))
    single = {m: estimates(summary, "refused", dataset, judge, m)["value"] for m in models}
    for y, (_, name, controls) in enumerate(rows):
        band = pooled["value"].reindex(controls).dropna()
        if len(band):
            low, high = band.min() - 0.004, band.max() + 0.004
            axes.add_patch(Rectangle((low, y - 0.4), high - low, 0.8, color=BAND, zorder=1))
        model_points(axes, {m: single[m].get(name, np.nan) for m in models}, y)
        if name in pooled.index:
            value, low, high = pooled.loc[name, ["value", "low", "high"]]
            colour = DIRECTION_COLOURS.get(table.loc[name, "direction"], PURPLE)
            draw_interval(axes, low, high, y, colour)
            axes.plot(value, y, "o", color=colour, markersize=4.5, zorder=4)


@styled
def refusal_by_intervention(summary: pd.DataFrame, judge: str | None = None) -> Figure:
    """Share of harmful, harmless and borderline prompts refused under each main intervention.

    Dots: mean over models (or the only model) with its interval; open markers: models; grey bars:
    range over the draws of the random control of the same operator and rank.
    """
    judge = judge or judge_of(summary)
    rows = resolve_rows(summary[summary["metric"] == "refused"])
    require(bool(rows), "No refusal rates of the main interventions were measured.")
    table, datasets = recipes(summary), list(DATASET_COLOURS)
    figure = new_figure(TEXT_WIDTH, 0.75 + 0.22 * len(rows))
    panels = figure.subplots(1, len(datasets), sharey=True)
    for axes, dataset in zip(panels, datasets, strict=True):
        _dots(axes, summary, rows, dataset, judge)
        axes.set(xlabel=f"share refused ({judge})", title=dataset)
        share_axis(axes.xaxis)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    names = [label(table.loc[n], table.loc[n, "scope"] != "source") for _, n, _ in rows]
    panels[0].set_yticks(range(len(rows)), names)
    handles = estimate_handles(models_of(summary), " with interval")
    if any(controls for _, _, controls in rows):
        handles.append(Rectangle((0, 0), 1, 1, color=BAND, label="random control, range of draws"))
    legend(figure, handles)
    return figure
