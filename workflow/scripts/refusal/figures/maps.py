"""Heat maps with numbers in their cells, one panel per model."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from refusal.figures.style import BLACK, COLUMN_WIDTH, HALO, TEXT_WIDTH, new_figure
from refusal.reading import KIND_DIRECTION_NAMES, short_share

# From white to a blue light enough for black numbers, and the same with orange below zero.
SHARES = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#7fb8dc"])
SIGNED = LinearSegmentedColormap.from_list("signed", ["#f0b678", "#ffffff", "#7fb8dc"])
TEXT_SIZE = 7
ROW_HEIGHT = 0.128  # inches, for one line of text of that size


def heat_map(axes: Axes, grid: pd.DataFrame, *, signed: bool = False, xs: bool = True) -> QuadMesh:
    """Draw shares (or, signed, cosines) with numbers; rows downwards, column names below."""
    look = {"cmap": SIGNED if signed else SHARES, "vmin": -1 if signed else 0, "vmax": 1}
    values = grid.to_numpy(float)
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), edgecolors="white", linewidth=0.3, **look)
    style = {"ha": "center", "va": "center", "fontsize": TEXT_SIZE, "color": BLACK}
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            axes.text(x + 0.5, y + 0.52, _number(value), **style, **HALO)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=TEXT_SIZE)
    names = [KIND_DIRECTION_NAMES.get(name, name) for name in grid.columns]
    axes.set_xticks(np.arange(len(names)) + 0.5, names if xs else [""] * len(names))
    axes.tick_params(axis="x", rotation=90)
    rows = [KIND_DIRECTION_NAMES.get(name, name) for name in grid.index]
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.set_facecolor("0.9")
    return mesh


def _number(value: float) -> str:
    """Two digits without the zero; 1 and 0 plainly."""
    text = short_share(abs(value))
    sign = "\N{MINUS SIGN}" if value < 0 and float(f"{value:.2f}") != 0 else ""
    return sign + {"1.00": "1", ".00": "0"}.get(text, text)


def map_per_model(
    models: Sequence[str],
    grid_of: Callable[[str], pd.DataFrame],
    *,
    label: str,
    signed: bool = False,
) -> Figure:
    """One heat map per model, two to a line, column names below the last line only."""
    columns = min(len(models), 2)
    lines = -(-len(models) // columns)
    grids = [grid_of(model) for model in models]
    height = max(len(grid) for grid in grids) * ROW_HEIGHT + 0.25
    width = COLUMN_WIDTH if columns == 1 else TEXT_WIDTH
    figure = new_figure(width, 0.8 + height * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=False)
    for index, (axes, grid) in enumerate(zip(panels.flat, grids, strict=False)):
        last = index + columns >= len(models)
        mesh = heat_map(axes, grid, signed=signed, xs=last)
        axes.set_title(models[index])
        if index % columns:
            axes.set_yticklabels([])
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    bar = figure.colorbar(mesh, ax=panels, aspect=40, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_label(label)
    return figure
