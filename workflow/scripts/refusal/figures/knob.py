"""The trade-off between refusal and over-refusal when steering along the kinds' directions."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from refusal.figures.style import (
    BLACK,
    BLUE,
    COLUMN_WIDTH,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    TEXT_WIDTH,
    VERMILION,
    legend,
    new_figure,
    require,
    styled,
)

# Directions by the data set that their kind comes from; what is no kind stands apart.
GROUPS = {
    "WGM": ("core safety", BLUE),
    "XST": ("over-refusal contrast", SKY),
    "CCN": ("CoCoNot kinds", ORANGE),
    "SB": ("SORRY-Bench kinds", VERMILION),
    "dim": ("DiM", BLACK),
    "refused_minus_complied": ("refused \N{MINUS SIGN} complied", PURPLE),
    "random": ("random", GREY),
}
ABLATION = "ablation"


def _group(direction: str) -> str:
    """The group of a direction: its data set, or what it is."""
    if direction.startswith("random"):
        return "random"
    return direction if direction in GROUPS else direction.rpartition("-")[2]


def _panel(axes: Axes, curves: pd.DataFrame, chosen: pd.DataFrame) -> None:
    """The curves of one model, from ablation to the strongest addition; chosen strengths marked."""
    wide = curves.pivot(index=["direction", "strength"], columns="metric", values="value")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    for direction, rows in wide.groupby(level="direction", sort=False):
        rows = rows.droplevel("direction")
        added = rows.drop(index=ABLATION, errors="ignore")
        added = added.loc[sorted(added.index, key=float)]
        line = [*rows.loc[rows.index == ABLATION, ["over_refusal", "refusal"]].to_numpy()]
        line += [(0.5, 0.5), *added[["over_refusal", "refusal"]].to_numpy()]
        xs, ys = zip(*line, strict=True)
        _, colour = GROUPS.get(_group(direction), ("", GREEN))
        axes.plot(xs, ys, color=colour, linewidth=0.8, alpha=0.8)
        at = chosen[(chosen.direction == direction) & chosen.satisfied]
        for strength in at.strength.astype(str):
            if strength in added.index:
                point = added.loc[strength]
                axes.plot(point.over_refusal, point.refusal, "o", color=colour, markersize=3)
    axes.plot(0.5, 0.5, "+", color=BLACK, markersize=7)


@styled
def trade_off(curves: pd.DataFrame, chosen: pd.DataFrame) -> Figure:
    """Refusal of harmful against benign prompts under every direction, one panel per model."""
    known = curves[curves.metric == "refusal"].value.notna()
    require(known.any(), "Too few prompts for the trade-off of steering along the kinds.")
    models = list(curves.model.unique())
    columns = min(len(models), 2)
    lines = -(-len(models) // columns)
    figure = new_figure(COLUMN_WIDTH if columns == 1 else TEXT_WIDTH, 0.6 + 2.15 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, model in zip(panels.flat, models, strict=False):
        _panel(axes, curves[curves.model == model], chosen[chosen.model == model])
        axes.set(title=model, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    for axes in panels[-1]:
        axes.set_xlabel("benign refused")
    for axes in panels[:, 0]:
        axes.set_ylabel("harmful refused")
    groups = dict.fromkeys(map(_group, curves.direction.unique()))
    handles = [
        Line2D([], [], color=GROUPS[name][1], label=GROUPS[name][0])
        for name in groups
        if name in GROUPS
    ]
    legend(figure, handles)
    return figure
