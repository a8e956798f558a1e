"""Kinds of refusal: cosines of their directions, refusal without each, and their span."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from refusal.figures.maps import map_per_model
from refusal.figures.style import (
    COLUMN_WIDTH,
    DIRECTION_COLOURS,
    GREY,
    TEXT_WIDTH,
    legend,
    new_figure,
    require,
    styled,
)
from refusal.reading import DIRECTION_NAMES

RANDOM = "random"


def kind_order(cosines: pd.DataFrame) -> list[str]:
    """Hierarchical order of the kinds from the mean cosines over models, so that models compare.

    Average linkage of 1 - cosine with optimal leaf order (Bar-Joseph et al. 2001).
    """
    shared = cosines[cosines.variant == "shared"]
    mean = shared.groupby(["a", "b"], sort=False).value.mean().unstack()
    mean = mean[mean.index]
    if len(mean) < 3:
        return list(mean.index)
    distance = np.clip(1 - mean.to_numpy(), 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return [mean.index[leaf] for leaf in leaves_list(tree)]


@styled
def kind_cosines(cosines: pd.DataFrame) -> Figure:
    """Cosines of the directions of all kinds, one map per model.

    Above the diagonal with the shared negative class, below it with each kind's own contrasts.
    """
    require(len(cosines) > 0, "Directions of the kinds of refusal were not measured.")
    order = kind_order(cosines)

    def grid(model: str) -> pd.DataFrame:
        rows = cosines[cosines.model == model]
        shared, own = (
            rows[rows.variant == variant].pivot(index="a", columns="b", values="value")
            for variant in ("shared", "own")
        )
        kinds = [kind for kind in order if kind in shared.index]
        shared, own = shared.loc[kinds, kinds], own.loc[kinds, kinds]
        upper = np.triu(np.ones(shared.shape, dtype=bool), 1)
        joined = shared.where(upper, own.where(upper.T))
        return joined

    models = list(cosines.model.unique())
    return map_per_model(models, grid, label="cosine", signed=True)


@styled
def kind_ablation(ablation: pd.DataFrame, cosines: pd.DataFrame) -> Figure:
    """Share of every kind still refused (columns) after each ablation (rows), one map per model.

    The random directions are averaged.
    """
    rows = ablation[ablation.metric == "refused"]
    require(len(rows) > 0, "Ablation of the kinds of refusal was not measured.")
    order = kind_order(cosines)
    rows = rows.assign(ablated=rows.ablated.where(~rows.ablated.str.startswith(RANDOM), RANDOM))
    rows = rows.assign(ablated=rows.ablated.map(_ablated_name))

    def grid(model: str) -> pd.DataFrame:
        part = rows[rows.model == model]
        table = part.pivot_table(index="ablated", columns="kind", values="value", sort=False)
        names = [name for name in order if name in table.index]
        others = [name for name in table.index if name not in order]
        return table.loc[[*names, *others], [name for name in order if name in table.columns]]

    models = list(rows.model.unique())
    return map_per_model(models, grid, label="share refused")


def _ablated_name(name: str) -> str:
    """Reader's name of a configured intervention; directions keep theirs."""
    method = next((m for m in ("inlp_corrected", "inlp", "leace") if name.startswith(m)), None)
    if name.startswith("dim_"):
        return "DiM (study)"
    if method is None:
        return name
    k = next((part[1:] for part in name.split("-") if part.startswith("k")), "")
    words = {"full": ", all", "1": ", first"}.get(k, f", {k}" if k else "")
    return {"leace": "LEACE", "inlp": "INLP"}.get(method, "INLP (corr.)") + words


@styled
def kind_span(span: pd.DataFrame) -> Figure:
    """How much of the first k directions of other methods the span of the kinds explains."""
    require(len(span) > 0, "The span of the kinds of refusal was not measured.")
    models = list(span.model.unique())
    columns = min(len(models), 4)
    lines = -(-len(models) // columns)
    figure = new_figure(COLUMN_WIDTH if columns == 1 else TEXT_WIDTH, 0.55 + 1.35 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    methods = [name for name in span.subspace.unique() if name != "dim"]
    for axes, model in zip(panels.flat, models, strict=False):
        part = span[span.model == model]
        for method in methods:
            rows = part[part.subspace == method]
            axes.plot(rows.k, rows.explained, marker=".", color=DIRECTION_COLOURS[method])
        dim = part[part.subspace == "dim"]
        axes.plot(dim.k, dim.explained, "D", color=DIRECTION_COLOURS["dim"], markersize=4)
        axes.axhline(part.chance.iloc[0], color=GREY, linestyle=":", linewidth=1)
        axes.set(title=model, ylim=(0, 1.03), xlabel="first directions")
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("explained by the kinds")
    handles = [
        Line2D([], [], color=DIRECTION_COLOURS[name], marker=".", label=DIRECTION_NAMES[name])
        for name in methods
    ]
    handles.append(
        Line2D([], [], color=DIRECTION_COLOURS["dim"], marker="D", linestyle="", label="DiM")
    )
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="chance"))
    legend(figure, handles)
    return figure
