"""Features of a sparse autoencoder that several kinds of refusal share."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from refusal.figures.style import (
    BAND,
    BLUE,
    COLUMN_WIDTH,
    TEXT_WIDTH,
    legend,
    new_figure,
    require,
    styled,
)


@styled
def shared_features(sharing: pd.DataFrame) -> Figure:
    """How many features are in the lists of at least m kinds, against shuffled labels."""
    require(len(sharing) > 0, "Sparse features of the kinds of refusal were not measured.")
    models = list(sharing.model.unique())
    columns = min(len(models), 4)
    lines = -(-len(models) // columns)
    figure = new_figure(COLUMN_WIDTH if columns == 1 else TEXT_WIDTH, 0.55 + 1.35 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, model in zip(panels.flat, models, strict=False):
        rows = sharing[sharing.model == model]
        axes.fill_between(rows.lists, rows.low, rows.high, color=BAND, linewidth=0)
        axes.plot(rows.lists, rows.value, marker="o", markersize=3, color=BLUE)
        axes.set(title=model, xlabel="in the lists of at least", xticks=rows.lists[::2])
        axes.set_yscale("symlog", linthresh=1)
        axes.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axes.set_ylim(0, None)
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("features")
    handles = [
        Line2D([], [], color=BLUE, marker="o", markersize=3, label="measured"),
        Patch(color=BAND, label="labels shuffled within each kind"),
    ]
    legend(figure, handles)
    return figure
