"""How the models behave without intervention."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from refusal.figures.style import (
    COLUMN_WIDTH,
    DATASET_COLOURS,
    DATASET_MARKERS,
    draw_interval,
    legend,
    new_figure,
    require,
    share_axis,
    styled,
)
from refusal.reading import find, judge_of, models_of, recipes


@styled
def baseline_behaviour(summary: pd.DataFrame, judge: str | None = None) -> Figure:
    """Share of each prompt label refused by every model without intervention, with intervals."""
    judge, names = judge or judge_of(summary), find(recipes(summary), operator="none")
    rows = summary[
        summary["intervention"].isin(names)
        & (summary["metric"] == "refused")
        & (summary["judge"] == judge)
        & summary["model"].isin(models_of(summary))
    ]
    require(len(rows) > 0, "The unsteered models were not scored.")
    models = models_of(rows)
    datasets = [d for d in DATASET_COLOURS if (rows["dataset"] == d).any()]
    figure = new_figure(COLUMN_WIDTH, 0.85 + 0.3 * len(models))
    axes, handles = figure.subplots(), []
    for offset, dataset in zip(np.linspace(-0.24, 0.24, len(datasets)), datasets, strict=True):
        part = rows[rows["dataset"] == dataset].drop_duplicates("model").set_index("model")
        look = {"color": DATASET_COLOURS[dataset], "marker": DATASET_MARKERS[dataset]}
        for y, model in enumerate(models):
            if model in part.index:
                row = part.loc[model]
                draw_interval(axes, row["low"], row["high"], y + offset, look["color"])
                axes.plot(row["value"], y + offset, markersize=4, zorder=4, **look)
        handles.append(Line2D([], [], linewidth=1.1, label=dataset, **look))
    axes.set(ylim=(len(models) - 0.5, -0.5), xlabel=f"share refused, unsteered ({judge})")
    share_axis(axes.xaxis)
    axes.set_yticks(range(len(models)), models)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    legend(figure, handles)
    return figure
