"""Refusal induced by patched attention heads."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from refusal.figures.style import (
    COLUMN_WIDTH,
    GREY,
    HALO,
    TEXT_WIDTH,
    VERMILION,
    legend,
    new_figure,
    require,
    share_axis,
    styled,
)

COLUMNS = 4
NAMED = 4  # heads that are named at their point of the curve, as long as it rises
FLAT = 0.9
RANKED = {"color": VERMILION, "linewidth": 1.4, "marker": "o", "markersize": 2.6}
DRAW = {"color": "0.75", "linewidth": 0.6}
MEAN_DRAW = {"color": GREY, "linewidth": 1.4}
METRIC = "first_token_refused"


@styled
def patched_heads(curve: pd.DataFrame) -> Figure:
    """Share of harmless prompts refused, by the number of heads patched from harmful prompts.

    Ranked order with its Wilson interval as a band; random orders, each and their mean.
    """
    frame = curve[curve["metric"] == METRIC] if len(curve) else curve
    require(len(frame) > 0, "No attention heads were patched.")
    models = list(frame["model"].unique())
    columns = min(len(models), COLUMNS)
    lines = -(-len(models) // columns)
    width = COLUMN_WIDTH if columns == 1 else TEXT_WIDTH
    figure = new_figure(width, 0.45 + 1.5 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, model in zip(panels.flat, models, strict=False):
        _curve_panel(axes, frame[frame["model"] == model])
        axes.set_title(model)
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("harmless refused")
    handles = [
        Line2D([], [], **RANKED, label="ranked by effect on validation prompts"),
        Line2D([], [], **DRAW, label="random orders"),
        Line2D([], [], **MEAN_DRAW, label="their mean"),
    ]
    legend(figure, handles, length=1.8)
    return figure


def _curve_panel(axes: Axes, frame: pd.DataFrame) -> None:
    for _, draw in frame[frame["order"] == "random"].groupby("draw"):
        axes.plot(draw["n_heads"], draw["value"], **DRAW, zorder=1)
    mean = frame[frame["order"] == "random"].groupby("n_heads")["value"].mean()
    axes.plot(mean.index, mean, **MEAN_DRAW, zorder=2)
    ranked = frame[frame["order"] == "ranked"].sort_values("n_heads")
    axes.fill_between(
        ranked["n_heads"], ranked["low"], ranked["high"], color=VERMILION, alpha=0.2, linewidth=0
    )
    axes.plot(ranked["n_heads"], ranked["value"], **RANKED, zorder=3)
    named = ranked["n_heads"].between(1, NAMED) & (ranked["value"] < FLAT)
    for row in ranked[named].itertuples():
        axes.annotate(
            row.head,
            (row.n_heads, row.value),
            xytext=(4, -1),
            textcoords="offset points",
            fontsize=7,
            va="center",
            **HALO,
        )
    share_axis(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("patched heads")
