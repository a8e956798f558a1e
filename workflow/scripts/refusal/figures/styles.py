"""How a model refuses when steered along each kind's direction; what the style judge confuses."""

import pandas as pd
from matplotlib.figure import Figure

from refusal.figures.maps import heat_map, map_per_model
from refusal.figures.style import COLUMN_WIDTH, new_figure, require, styled
from refusal.reading import KIND_NAMES

RANDOM = "random"
STYLES = (*KIND_NAMES, "answered")


@styled
def style_distribution(distribution: pd.DataFrame) -> Figure:
    """Shares of the styles (columns) under each direction (rows), one map per model.

    The random directions are averaged.
    """
    require(len(distribution) > 0, "Steered responses of the kinds of refusal were not measured.")
    random = distribution.direction.str.startswith(RANDOM)
    rows = distribution.assign(direction=distribution.direction.where(~random, RANDOM))

    def grid(model: str) -> pd.DataFrame:
        part = rows[rows.model == model]
        table = part.pivot_table(index="direction", columns="style", values="value", sort=False)
        first = [name for name in KIND_NAMES if name in table.index]
        others = [name for name in table.index if name not in KIND_NAMES]
        return table.loc[[*first, *others]].reindex(columns=list(STYLES))

    models = list(rows.model.unique())
    return map_per_model(models, grid, label="share of responses")


@styled
def style_confusion(confusion: pd.DataFrame) -> Figure:
    """What the style judge says (columns) of unseen wordings of every kind (rows).

    The judge is the same for all models, so one map stands for all.
    """
    require(len(confusion) > 0, "The style judge was not tested.")
    one = confusion[confusion.model == confusion.model.iloc[0]]
    grid = one.pivot(index="style", columns="said", values="value")
    figure = new_figure(COLUMN_WIDTH, 3.1)
    axes = figure.subplots()
    heat_map(axes, grid.loc[list(STYLES), list(STYLES)])
    axes.set_xlabel("said")
    axes.set_ylabel("unseen wordings of")
    return figure
