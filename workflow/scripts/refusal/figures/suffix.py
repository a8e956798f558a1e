"""What an adversarial suffix does to the direction, to the heads that write it, to attention."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from refusal.figures.style import (
    BAND,
    BLACK,
    BLUE,
    COLUMN_WIDTH,
    GREY,
    PURPLE,
    TEXT_WIDTH,
    VERMILION,
    draw_interval,
    legend,
    new_figure,
    require,
    share_axis,
    styled,
)

# Condition -> its look and its name; in the order of the legend.
CONDITIONS = {
    "harmful": ({"color": VERMILION, "marker": "s"}, "harmful"),
    "harmful+random_suffix": ({"color": GREY, "marker": "^"}, "harmful + random suffix"),
    "harmful+suffix": ({"color": PURPLE, "marker": "D"}, "harmful + adversarial suffix"),
    "harmless": ({"color": BLUE, "marker": "o"}, "harmless"),
}
COLUMNS = 4
SUFFIXED = ("harmful+random_suffix", "harmful+suffix")
DIRECTION_LAYER = {"color": BLACK, "linewidth": 0.7, "linestyle": (0, (4, 2))}
PEAK_LAYER = {"color": BLACK, "linewidth": 0.7, "linestyle": (0, (1, 1.5))}


def _handles(conditions: Sequence[str], line: str = "-") -> list[Line2D]:
    return [
        Line2D([], [], **look, markersize=3, linestyle=line, linewidth=1.1, label=name)
        for condition, (look, name) in CONDITIONS.items()
        if condition in conditions
    ]


@styled
def suffix_cosines(cosines: pd.DataFrame) -> Figure:
    """Cosine of the last token's residual stream with DiM by layer, in four conditions.

    After Arditi et al. 2024, figure 5: means and standard deviations over prompts. The last point
    is the stream after the last block.
    """
    require(len(cosines) > 0, "No adversarial suffix was analysed.")
    models = list(cosines["model"].unique())
    columns = min(len(models), COLUMNS)
    lines = -(-len(models) // columns)
    width = COLUMN_WIDTH if columns == 1 else TEXT_WIDTH
    figure = new_figure(width, 0.55 + 1.55 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, model in zip(panels.flat, models, strict=False):
        _cosine_panel(axes, cosines[cosines["model"] == model])
        axes.set_title(model)
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel(r"cosine with $\hat{r}$ (DiM)")
    marks = [
        Line2D([], [], **DIRECTION_LAYER, label="layer of the direction"),
        Line2D([], [], **PEAK_LAYER, label="peak on validation"),
    ]
    handles = [*_handles(cosines["condition"].unique()), *marks]
    legend(figure, handles, columns=3 if columns > 1 else 2, length=1.8)
    return figure


def _cosine_panel(axes: Axes, frame: pd.DataFrame) -> None:
    for condition, (look, _) in CONDITIONS.items():
        part = frame[frame["condition"] == condition].sort_values("layer")
        mean, sd = part["mean"].to_numpy(float), part["sd"].to_numpy(float)
        axes.fill_between(
            part["layer"], mean - sd, mean + sd, color=look["color"], alpha=0.15, linewidth=0
        )
        axes.plot(part["layer"], mean, **look, markersize=2.5, linewidth=1.1)
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.axvline(frame["direction_layer"].iloc[0], **DIRECTION_LAYER, zorder=0)
    axes.axvline(frame["peak_layer"].iloc[0], **PEAK_LAYER, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("layer")


@styled
def suffix_heads(heads: pd.DataFrame, attention: pd.DataFrame) -> Figure:
    """The heads that write most along DiM: what they write, and where they attend.

    After Arditi et al. 2024, figure 6. Per model, from above: attribution, attention of the last
    token on the instruction, and on the suffix; means over prompts with their intervals.
    """
    require(len(heads) > 0 and len(attention) > 0, "No adversarial suffix was analysed.")
    models = list(heads["model"].unique())
    columns = min(len(models), COLUMNS)
    lines = -(-len(models) // columns)
    width = COLUMN_WIDTH if columns == 1 else TEXT_WIDTH
    figure = new_figure(width, 0.5 + 3.3 * lines)
    panels = figure.subplots(3 * lines, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for index, model in enumerate(models):
        line, column = divmod(index, columns)
        stack = panels[3 * line : 3 * line + 3, column]
        _model_panels(stack, *(f[f["model"] == model] for f in (heads, attention)))
        stack[0].set_title(model)
        if column == 0:
            names = ("write along\n" r"$\hat{r}$ (DiM)", "attention on\ninstruction")
            for axes, name in zip(stack, (*names, "attention on\nsuffix"), strict=True):
                axes.set_ylabel(name)
    handles = _handles(heads["condition"].unique(), line="none")
    legend(figure, handles, columns=4 if columns > 1 else 2)
    return figure


def _model_panels(stack: Sequence[Axes], heads: pd.DataFrame, attention: pd.DataFrame) -> None:
    """The three panels of one model, from above."""
    region = {name: attention[attention["region"] == name] for name in ("instruction", "suffix")}
    parts = (heads, region["instruction"], region["suffix"])
    for axes, part, shown in zip(stack, parts, (CONDITIONS, CONDITIONS, SUFFIXED), strict=True):
        axes.set_axis_on()
        _head_panel(axes, part[part["condition"].isin(list(shown))])
    for axes in stack[1:]:
        share_axis(axes.yaxis)
    stack[0].axhline(0, color=GREY, linewidth=0.6, zorder=0)
    stack[-1].set_xlabel("head (layer.head)")


def _head_panel(axes: Axes, frame: pd.DataFrame) -> None:
    """One group of dots per head, one dot per condition, side by side."""
    shown = [name for name in CONDITIONS if (frame["condition"] == name).any()]
    offsets = np.linspace(-0.27, 0.27, len(shown)) if len(shown) > 1 else [0.0]
    for condition, offset in zip(shown, offsets, strict=True):
        look, _ = CONDITIONS[condition]
        for row in frame[frame["condition"] == condition].itertuples():
            draw_interval(axes, row.low, row.high, row.rank + offset, look["color"], vertical=True)
            axes.plot(row.rank + offset, row.mean, **look, markersize=2.4, linestyle="none")
    for border in range(1, int(frame["rank"].max())):
        axes.axvline(border + 0.5, color=BAND, linewidth=0.5, zorder=0)
    names = frame.drop_duplicates("rank").sort_values("rank")
    labels = [f"{row.layer}.{row.head}" for row in names.itertuples()]
    axes.set_xticks(names["rank"], labels, rotation=90)
    axes.set_xlim(0.4, names["rank"].max() + 0.6)
    axes.tick_params(axis="x", length=0)
