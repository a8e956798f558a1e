"""Selection scores of every candidate (position, layer)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

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
from refusal.reading import MINUS, plain_number

COLUMNS = 4  # models to a line
SCORES = {"bypass": "bypass", "induce": "induce", "kl": "KL"}
LIGHT_BLUES = LinearSegmentedColormap.from_list("light blues", ["#f3f8fc", "#7fb8dc"])
HATCH = {"hatch": "////", "edgecolor": "#a6a6a6", "linewidth": 0}
FRAME = {"edgecolor": VERMILION, "linewidth": 1.5}


def _mark_candidates(axes: Axes, part: pd.DataFrame, rows: pd.Index, columns: pd.Index) -> None:
    """Hatch scored but rejected candidates; frame the selected one (dashed if it is a fallback)."""
    scored = part[list(SCORES)].notna().any(axis=1)
    for candidate, known in zip(part.itertuples(), scored, strict=True):
        x, y = columns.get_loc(candidate.position), rows.get_loc(candidate.layer)
        if known and not candidate.passed:
            axes.add_patch(Rectangle((x, y), 1, 1, fill=False, zorder=1.5, **HATCH))
        if candidate.selected:
            dashes = (0, (3, 1.5)) if candidate.fallback else "-"
            inside = (x + 0.03, y + 0.05)
            style = FRAME | {"linestyle": dashes, "fill": False, "zorder": 5}
            axes.add_patch(Rectangle(inside, 0.94, 0.9, **style))


def _write_values(axes: Axes, grid: pd.DataFrame, digits: int) -> None:
    for (y, x), value in np.ndenumerate(grid.to_numpy(float)):
        if np.isfinite(value):
            text = f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)  # no minus zero
            style = {"ha": "center", "va": "center", "fontsize": 7, "color": BLACK}
            axes.text(x + 0.5, y + 0.5, text, **style, **HALO)


def _score_map(axes: Axes, part: pd.DataFrame, score: str, limits: tuple) -> QuadMesh:
    """Heat map of one score and model: layers upwards, positions to the right."""
    grid = part.pivot_table(score, "layer", "position", dropna=False, sort=True)
    colours = LIGHT_BLUES if score == "induce" else LIGHT_BLUES.reversed()
    look = {"cmap": colours, "vmin": limits[0], "vmax": limits[1], "edgecolors": "white"}
    mesh = axes.pcolormesh(np.ma.masked_invalid(grid.to_numpy(float)), linewidth=0.4, **look)
    # Few enough cells to read numbers in them; larger models show colour alone.
    if grid.shape[0] <= 12 and grid.shape[1] <= 6:
        _write_values(axes, grid, 2 if score == "kl" else 1)
    axes.set_facecolor("0.88")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    every = max(1, -(-len(grid) // 12))  # at most a dozen layers are named
    ticks = range(0, len(grid), every)
    axes.set_yticks([y + 0.5 for y in ticks], [str(grid.index[y]) for y in ticks])
    axes.set_xticks(np.arange(grid.shape[1]) + 0.5, [plain_number(p) for p in grid.columns])
    _mark_candidates(axes, part, grid.index, grid.columns)
    return mesh


def _candidate_handles(rows: pd.DataFrame) -> list[Rectangle]:
    """Legend of the marks that occur."""
    scored = rows[list(SCORES)].notna().any(axis=1)
    rejected = {"facecolor": "#a5cde8"} | HATCH
    dashed = FRAME | {"linestyle": (0, (3, 1.5)), "fill": False}
    marks = (
        (rows["selected"] & ~rows["fallback"], "selected", FRAME | {"fill": False}),
        (rows["selected"] & rows["fallback"], "used although rejected", dashed),
        (scored & ~rows["passed"], "rejected", rejected),
        (~scored, "pruned or zero, not scored", {"facecolor": "0.88"}),
    )
    return [
        Rectangle((0, 0), 1, 1, label=name, **style) for mask, name, style in marks if mask.any()
    ]


def _map_axes(figure: Figure, n_scores: int, models: list[str]) -> list[tuple[np.ndarray, list]]:
    """For every line of models: panels [scores, models] and one colour bar per score."""
    columns = min(len(models), COLUMNS)
    n_lines = -(-len(models) // columns)
    widths = [1.0] * columns + [0.05]
    panels = figure.subplots(n_scores * n_lines, columns + 1, width_ratios=widths, squeeze=False)
    lines = []
    for line, block in enumerate(np.split(panels, n_lines)):
        shown = models[line * columns : (line + 1) * columns]
        for axes, model in zip(block[0], shown, strict=False):
            axes.set_title(model)
        for axes in block[:, len(shown) : -1].flat:
            axes.set_axis_off()
        for axes in block[:-1, : len(shown)].flat:
            axes.tick_params(labelbottom=False)
        for axes in block[-1, : len(shown)]:
            axes.set_xlabel("position")
        lines.append((block[:, : len(shown)], list(block[:, -1])))
    return lines


def _draw_line(
    figure: Figure, panels: np.ndarray, bars: list[Axes], models: list[str], rows: pd.DataFrame
) -> None:
    """All score maps of one line of models; every score has the same colours in all lines."""
    scores = _known_scores(rows)
    for axes_of, bar, score in zip(panels, bars, scores, strict=True):
        # Robust limits: one wild candidate must not hide the differences among the others.
        low, high = np.nanquantile(rows[score].to_numpy(float), [0.02, 0.98])
        for axes, model in zip(axes_of, models, strict=True):
            mesh = _score_map(axes, rows[rows["model"] == model], score, (low, high))
        axes_of[0].set_ylabel(f"{SCORES[score]}\nlayer")
        colour_bar = figure.colorbar(mesh, cax=bar)
        colour_bar.outline.set_visible(False)
        bar.tick_params(length=2, width=0.4)
        bar.yaxis.set_major_locator(MaxNLocator(4))


def _known_scores(rows: pd.DataFrame) -> list[str]:
    return [score for score in SCORES if score in rows and rows[score].notna().any()]


@styled
def candidate_map(selection: pd.DataFrame, method: str = "dim", scope: str = "all") -> Figure:
    """The three selection scores of every (position, layer) and model, four models to a line.

    Darker is better. Hatched: rejected; framed: selected; dashed frame: used although nothing
    passed; grey: layer pruned or zero direction, not scored.
    """
    rows = selection[(selection["method"] == method) & (selection["scope"] == scope)]
    scores = _known_scores(rows)
    require(bool(scores), "No candidate scores were computed.")
    models = list(rows["model"].unique())
    columns = min(len(models), COLUMNS)
    height = (np.clip(0.17 * rows["layer"].nunique(), 0.6, 2.2) + 0.1) * len(scores)
    n_lines = -(-len(models) // columns)
    width = min(TEXT_WIDTH, COLUMN_WIDTH + 1.6 * (columns - 1))
    figure = new_figure(width, 0.8 + height * n_lines + 0.4 * (n_lines - 1))
    for line, (panels, bars) in enumerate(_map_axes(figure, len(scores), models)):
        _draw_line(figure, panels, bars, models[line * columns : (line + 1) * columns], rows)
    legend(figure, _candidate_handles(rows), columns=2 if len(models) == 1 else 4)
    return figure
