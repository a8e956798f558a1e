"""Accuracy of INLP's classifiers by step, and how much of DiM their directions hold."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from refusal.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    TEXT_WIDTH,
    VERMILION,
    legend,
    new_figure,
    panel_letter,
    require,
    scale_ticks,
    share_axis,
    styled,
)

CHANCE = 0.5
MODEL_LINES = tuple(
    {"color": colour, "linestyle": dashes}
    for dashes, colour in zip(
        ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))) * 2,
        (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, BLUE, VERMILION, GREEN),
        strict=True,
    )
)
OTHER_CANDIDATES = {"color": "0.8", "linewidth": 0.6}
CHANCE_LINE = {"color": BLACK, "linewidth": 0.7, "linestyle": (0, (1, 2))}


def _selected_candidates(selection: pd.DataFrame | None) -> dict[tuple[str, str], tuple[int, int]]:
    """(model, method) -> (position, layer) of the locally selected candidate."""
    if selection is None or selection.empty:
        return {}
    rows = selection[selection["selected"].astype(bool)].sort_values("scope", ascending=False)
    rows = rows.drop_duplicates(["model", "method"])
    keys = zip(rows["model"], rows["method"], strict=True)
    return dict(zip(keys, zip(rows["position"], rows["layer"], strict=True), strict=True))


def _step_lines(axes: Axes, frame: pd.DataFrame, column: str, chosen: dict, looks: dict) -> None:
    """Thin lines for every candidate, bold ones for the selected candidate of each model."""
    for (model, method, position, layer), part in frame.groupby(
        ["model", "method", "position", "layer"], sort=False
    ):
        part = part.sort_values("index")
        if chosen.get((model, method)) == (position, layer):
            axes.plot(part["index"], part[column], **looks[model], zorder=3)
        else:
            axes.plot(part["index"], part[column], **OTHER_CANDIDATES, zorder=1)
    scale_ticks(axes, frame["index"].max())
    axes.set_xlabel("INLP step")


@styled
def inlp_accuracy(cosines: pd.DataFrame, selection: pd.DataFrame | None = None) -> Figure:
    """Accuracy of each INLP classifier by step, and the share of DiM inside the first directions.

    (a) published rules, (b) corrected variant, (c) cumulative share of DiM's squared length in the
    span of the first directions (published rules). Grey: all candidates; colour: selected ones.
    """
    names = {"inlp_faithful": "faithful", "inlp_corrected": "corrected"}
    frame = cosines[cosines["method"].isin(names)] if len(cosines) else cosines
    require(len(frame) > 0, "No INLP directions were computed.")
    chosen = _selected_candidates(selection)
    looks = dict(zip(frame["model"].unique(), MODEL_LINES * 9, strict=False))
    methods = [name for name in names if (frame["method"] == name).any()]
    figure = new_figure(TEXT_WIDTH, 2.2)
    panels = figure.subplots(1, len(methods) + 1)
    for axes, letter, method in zip(panels, "ab", methods, strict=False):
        _step_lines(axes, frame[frame["method"] == method], "accuracy", chosen, looks)
        axes.axhline(CHANCE, **CHANCE_LINE)
        axes.set(ylim=(0.35, 1.03), ylabel="accuracy (development)")
        panel_letter(axes, letter, f"classifiers, {names[method]}")
    first = frame[frame["method"] == methods[0]]
    _step_lines(panels[-1], first, "energy_share", chosen, looks)
    panels[-1].set_ylabel("cumulative share")
    share_axis(panels[-1].yaxis)
    panel_letter(panels[-1], "abc"[len(methods)], f"share of DiM in the span, {names[methods[0]]}")
    handles = [Line2D([], [], **look, label=model) for model, look in looks.items() if chosen]
    handles.append(Line2D([], [], **OTHER_CANDIDATES, label="other candidates"))
    legend(figure, [*handles, Line2D([], [], **CHANCE_LINE, label="chance")], length=2.4)
    return figure
