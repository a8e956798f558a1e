"""Projection of unsteered prompts on DiM."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from refusal.figures.style import (
    BLACK,
    COLUMN_WIDTH,
    DATASET_COLOURS,
    TEXT_WIDTH,
    legend,
    new_figure,
    require,
    styled,
)

PROJECTION_STYLES = {
    "harmful": {"fill": True, "alpha": 0.45},
    "harmless": {"fill": True, "alpha": 0.45},
    "borderline": {"fill": False, "linewidth": 1.2},
}


def _projection_panel(axes: Axes, frame: pd.DataFrame, model: str) -> None:
    """Histograms of one model in shared bins; zero is marked, since its side is the claim."""
    values = frame["projection"].to_numpy(float)
    values = values[np.isfinite(values)]
    edges = np.histogram_bin_edges(np.append(values, 0.0), bins=32)
    for name, style in PROJECTION_STYLES.items():
        part = frame.loc[frame["label"] == name, "projection"].dropna()
        if len(part):
            counts = np.histogram(part, edges)[0]
            axes.stairs(counts, edges, color=DATASET_COLOURS[name], **style)
            if style["fill"]:
                axes.stairs(counts, edges, color=DATASET_COLOURS[name], linewidth=0.8)
    axes.axvline(0, color=BLACK, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_title(model)


@styled
def projection_histograms(projections: pd.DataFrame) -> Figure:
    """Projection of unsteered test prompts on DiM's unit vector, per prompt label and model.

    At DiM's selected candidate; dashed line: zero. Both classes on one side of it means that
    removing the component moves every prompt the same way.
    """
    frame = projections[projections["projection"].notna()] if len(projections) else projections
    require(len(frame) > 0, "The projections onto DiM were not measured.")
    models = list(frame["model"].unique())
    columns = min(len(models), 4)
    lines = -(-len(models) // columns)
    width = COLUMN_WIDTH if columns == 1 else TEXT_WIDTH
    figure = new_figure(width, 0.45 + 1.35 * lines)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes, model in zip(panels.flat, models, strict=False):
        _projection_panel(axes, frame[frame["model"] == model], model)
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("prompts")
    figure.supxlabel(r"projection on $\hat{r}$ (DiM)", fontsize=mpl.rcParams["axes.labelsize"])
    handles = [
        Patch(label=name, **({"color": DATASET_COLOURS[name]} | style))
        for name, style in PROJECTION_STYLES.items()
        if (frame["label"] == name).any()
    ]
    legend(figure, handles)
    return figure
