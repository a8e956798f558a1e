"""Ablation over windows of layers: share refused by start and length."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from refusal.figures.candidates import LIGHT_BLUES
from refusal.figures.style import (
    BLACK,
    COLUMN_WIDTH,
    HALO,
    TEXT_WIDTH,
    VERMILION,
    legend,
    new_figure,
    require,
    styled,
)
from refusal.reading import judge_of, short_share

MOST_COLUMNS = 4
MOST_WRITTEN = 12  # layers up to which values are written into the cells
CHOSEN = {"local_window": "-", "best_window": (0, (2, 1.5))}
CHOSEN_NAMES = {
    "local_window": "best window of at most half of the layers",
    "best_window": "best window that leaves out a layer",
}


def _ticks(values: pd.Index) -> tuple[list[float], list[str]]:
    """Centres and names of at most a dozen cells of one axis."""
    every = -(-len(values) // 12)
    shown = range(0, len(values), every)
    return [at + 0.5 for at in shown], [str(values[at]) for at in shown]


def _panel(axes: Axes, rows: pd.DataFrame, model: str) -> QuadMesh:
    """Heat map of one model: start to the right, length upwards."""
    grid = rows[rows["length"] > 0].pivot(index="length", columns="start", values="value")
    look = {"cmap": LIGHT_BLUES.reversed(), "vmin": 0, "vmax": 1, "edgecolors": "white"}
    mesh = axes.pcolormesh(np.ma.masked_invalid(grid.to_numpy(float)), linewidth=0.4, **look)
    if len(grid.columns) <= MOST_WRITTEN:
        style = {"ha": "center", "va": "center", "fontsize": 7, "color": BLACK}
        for (y, x), value in np.ndenumerate(grid.to_numpy(float)):
            if np.isfinite(value):
                axes.text(x + 0.5, y + 0.5, short_share(value), **style, **HALO)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(*_ticks(grid.columns))
    axes.set_yticks(*_ticks(grid.index))
    none = rows.loc[rows["length"] == 0, "value"]
    axes.set_title(model if none.empty else f"{model} (none: {short_share(none.iloc[0])})")
    axes.set_xlabel("first layer")
    return mesh


def _mark(axes: Axes, rows: pd.DataFrame, summary: pd.DataFrame, judge: str) -> None:
    """Frame the windows that validation prompts chose."""
    grid = rows[rows["length"] > 0].pivot(index="length", columns="start", values="value")
    chosen = summary[(summary["judge"] == judge) & (summary["model"] == rows["model"].iloc[0])]
    at = chosen.drop_duplicates("metric").set_index("metric")["value"].dropna()
    for order, (kind, style) in enumerate(CHOSEN.items()):
        if f"{kind}_start" in at and f"{kind}_length" in at:
            x = grid.columns.get_loc(int(at[f"{kind}_start"]))
            y = grid.index.get_loc(int(at[f"{kind}_length"]))
            inset = 0.04 + 0.05 * order  # both are visible where they are the same
            place = ((x + inset, y + inset), 1 - 2 * inset, 1 - 2 * inset)
            axes.add_patch(Rectangle(*place, fill=False, edgecolor=VERMILION, linestyle=style))


@styled
def window_maps(windows: pd.DataFrame, summary: pd.DataFrame, judge: str | None = None) -> Figure:
    """Share of harmful test prompts still refused when a window of layers is ablated, per model.

    Darker: fewer refused. Frames: the windows chosen on validation prompts. The top row is all
    layers; the title has the share without ablation.
    """
    rows = windows[(windows["split"] == "test") & (windows["label"] == "harmful")]
    rows = rows[rows["metric"] == "refused"]
    judge = judge or judge_of(rows)
    rows = rows[rows["judge"] == judge]
    require(len(rows) > 0, "Ablation over windows of layers was not measured.")
    models = list(rows["model"].unique())
    columns = min(len(models), MOST_COLUMNS)
    lines = -(-len(models) // columns)
    figure = new_figure(COLUMN_WIDTH if columns == 1 else TEXT_WIDTH, 0.55 + 1.6 * lines)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes, model in zip(panels.flat, models, strict=False):
        part = rows[rows["model"] == model]
        mesh = _panel(axes, part, model)
        _mark(axes, part, summary, judge)
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("layers ablated")
    bar = figure.colorbar(mesh, ax=panels, aspect=30, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_label(f"harmful refused ({judge})")
    handles = [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor=VERMILION, linestyle=style, label=name)
        for (kind, style), name in zip(CHOSEN.items(), CHOSEN_NAMES.values(), strict=True)
    ]
    legend(figure, handles, columns=2 if columns > 1 else 1)
    return figure
