"""The direction before safety tuning, by layer."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from refusal.figures.style import (
    BAND,
    BLACK,
    COLUMN_WIDTH,
    DATASET_COLOURS,
    GREEN,
    GREY,
    PURPLE,
    TEXT_WIDTH,
    legend,
    new_figure,
    require,
    share_axis,
    styled,
)

CHECKPOINTS = {"tuned": "-", "base": (0, (3, 1.5))}
CHECKPOINT_COLOURS = {"tuned": PURPLE, "base": GREEN}
MOST_COLUMNS = 4


def _line(axes: Axes, rows: pd.DataFrame, colour: str, style: object) -> None:
    """Values by layer with the band of their interval."""
    rows = rows.sort_values("layer")
    look = {"color": colour, "linestyle": style, "marker": "o", "markersize": 2.2}
    axes.plot(rows["layer"], rows["value"], **look)
    axes.fill_between(rows["layer"], rows["low"], rows["high"], color=colour, alpha=0.2, lw=0)


def _cosines(axes: Axes, frame: pd.DataFrame) -> None:
    rows = frame[frame["quantity"] == "cosine"]
    for (checkpoint, name), part in rows.groupby(["checkpoint", "label"], sort=False):
        _line(axes, part, DATASET_COLOURS[name], CHECKPOINTS[checkpoint])
    axes.axhline(0, color=GREY, linewidth=0.5, zorder=0)


def _differences(axes: Axes, frame: pd.DataFrame) -> None:
    """The cosine of the two differences in means over its two levels of chance."""
    known = frame[frame["value"].notna()].sort_values("layer")
    for quantity, colour, order in (("relabelled", BAND, -2), ("chance", "#a8a8a8", -1)):
        rows = known[known["quantity"] == quantity]
        rows = rows[rows["layer"].isin(known.loc[known["quantity"] == "dim_cosine", "layer"])]
        band = {"color": colour, "zorder": order, "linewidth": 3 if len(rows) == 1 else 0}
        axes.fill_between(rows["layer"], rows["low"], rows["high"], **band)
    _line(axes, known[known["quantity"] == "dim_cosine"], BLACK, "-")
    axes.set(ylim=(-1.05, 1.05), yticks=[-1, -0.5, 0, 0.5, 1])


def _separations(axes: Axes, frame: pd.DataFrame) -> None:
    for checkpoint, colour in CHECKPOINT_COLOURS.items():
        rows = frame[(frame["quantity"] == "separation") & (frame["checkpoint"] == checkpoint)]
        _line(axes, rows, colour, CHECKPOINTS[checkpoint])
    axes.axhline(0.5, color=GREY, linewidth=0.5, zorder=0)
    share_axis(axes.yaxis)


ROWS = (
    ("cosine with $\\hat{r}$", _cosines),
    ("cosine of DiM,\nbase and tuned", _differences),
    ("separation\n(AUC)", _separations),
)


def _handles() -> list:
    return [
        Line2D([], [], color=DATASET_COLOURS["harmful"], label="harmful"),
        Line2D([], [], color=DATASET_COLOURS["harmless"], label="harmless"),
        Line2D([], [], color=PURPLE, label="tuned"),
        Line2D([], [], color=GREEN, linestyle=CHECKPOINTS["base"], label="base (dashed)"),
        Patch(color="#a8a8a8", label="random directions"),
        Patch(color=BAND, label="relabelled prompts"),
    ]


@styled
def before_tuning(cosines: pd.DataFrame) -> Figure:
    """The tuned model's direction in the tuned and in the base checkpoint, by layer.

    Per model, from the top: cosine of test activations with the direction; cosine of the base's own
    difference in means with the tuned one, over where random directions and relabelled prompts lie;
    separation of harmful from harmless prompts along the direction. Bands are intervals.
    """
    require(len(cosines) > 0, "The checkpoint before safety tuning was not measured.")
    models = list(cosines["model"].unique())
    columns = min(len(models), MOST_COLUMNS)
    blocks = [models[i : i + columns] for i in range(0, len(models), columns)]
    width = COLUMN_WIDTH if columns == 1 else TEXT_WIDTH
    figure = new_figure(width, 0.5 + 3.4 * len(blocks))
    panels = figure.subplots(len(ROWS) * len(blocks), columns, squeeze=False, sharey="row")
    for block, names in enumerate(blocks):
        for row, (title, draw) in enumerate(ROWS):
            line = panels[block * len(ROWS) + row]
            for axes, model in zip(line, names, strict=False):
                frame = cosines[cosines["model"] == model]
                draw(axes, frame)
                # One axis for all rows, though layer 0 has no difference in means.
                axes.set_xlim(-0.2, frame["layer"].max() + 0.2)
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                if row == 0:
                    axes.set_title(model)
                axes.set_xlabel("layer" if row == len(ROWS) - 1 else "")
            for axes in line[len(names) :]:
                axes.set_axis_off()
            line[0].set_ylabel(title)
    legend(figure, _handles(), columns=6 if columns > 1 else 3)
    return figure
