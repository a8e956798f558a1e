"""Where transformed activations land."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from refusal.figures.style import BLACK, GREY, TEXT_WIDTH, legend, new_figure, require, styled
from refusal.reading import any_rank, find, k_order, plain_number, project_recipe, recipes

CLASS_COLOURS = {"harmless": "#3C97D3", "harmful": "#F3B994"}  # pale, so that what moved stands out
MOVED = "#661155"


@dataclass(frozen=True)
class Landing:
    """One transformation of the landing picture."""

    name: str
    intervention: str


def landing_rows(landing: pd.DataFrame, summary: pd.DataFrame) -> list[Landing]:
    """Transformations to show: DiM ablation and reflection, INLP projection and flipping (full)."""
    table = recipes(summary)
    table = table[table.index.isin(set(landing["intervention"]))]
    inlp, dim = any_rank(project_recipe("inlp_faithful", "")), project_recipe("dim", "1")
    wanted = (
        ("DiM ablation", dim | {"alpha": 1.0}),
        ("DiM reflection", dim | {"alpha": 2.0}),
        ("INLP projection", inlp | {"alpha": 1.0}),
        ("INLP flipping", inlp | {"alpha": 2.0}),
    )
    rows = []
    for name, recipe in wanted:
        # At the source layer the landing place is a single application of the operator.
        names = sorted(find(table, **recipe), key=lambda n: -k_order(table.loc[n, "k"] or "0"))
        if names:
            rows.append(Landing(name, names[0]))
    return rows


@dataclass(frozen=True)
class Landed:
    """The prompts of one transformation and model, with both unsteered classes, in one plane."""

    candidate: tuple[int, int]
    harmless: pd.DataFrame
    harmful: pd.DataFrame
    moved: pd.DataFrame


def landed(landing: pd.DataFrame, model: str, row: Landing) -> Landed | None:
    """The transformed harmful prompts and the unsteered ones at the SAME (position, layer).

    Every candidate has its own principal plane and its own t, and the unsteered prompts appear
    once per candidate. None where the model was not measured.
    """
    frame = landing[landing["model"] == model]
    moved = frame[(frame["intervention"] == row.intervention) & (frame["label"] == "harmful")]
    if moved.empty:
        return None
    position, layer = moved["position"].iloc[0], moved["layer"].iloc[0]
    here = frame[(frame["position"] == position) & (frame["layer"] == layer)]
    plain = here[here["operator"].fillna("none") == "none"]
    classes = [plain[plain["label"] == name] for name in ("harmless", "harmful")]
    return Landed((int(position), int(layer)), *classes, moved)


def _centroid(axes: Axes, points: pd.DataFrame, marker: str, colour: str) -> None:
    style = {"markeredgecolor": BLACK, "markeredgewidth": 0.8, "markersize": 6, "zorder": 5}
    axes.plot(points["pc1"].mean(), points["pc2"].mean(), marker, color=colour, **style)


def _scatter(axes: Axes, places: Landed | None, title: str) -> None:
    """PCA picture of one transformation: both unsteered classes and the transformed harmful."""
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    if places is None:
        return
    groups = (
        (places.harmless, CLASS_COLOURS["harmless"], "o"),
        (places.harmful, CLASS_COLOURS["harmful"], "s"),
        (places.moved, MOVED, "D"),
    )
    for points, colour, marker in groups:
        dots = {"s": 3, "linewidths": 0, "marker": marker}
        axes.scatter(points["pc1"], points["pc2"], color=colour, **dots)
    for points, colour, marker in groups:
        _centroid(axes, points, marker, colour)
    position, layer = places.candidate
    axes.set_xlabel(f"PC 1 (position {plain_number(position)}, layer {layer})")
    axes.margins(0.06)


def _ridge(axes: Axes, places: Landed, base: float, edges: np.ndarray) -> None:
    """One line of histograms of t, each to its peak: both unsteered classes and the moved one."""
    for points, colour, fill in (
        (places.harmless, CLASS_COLOURS["harmless"], False),
        (places.harmful, CLASS_COLOURS["harmful"], False),
        (places.moved, MOVED, True),
    ):
        t = points["position_along_dim"].to_numpy(float)
        counts = np.histogram(np.clip(t[np.isfinite(t)], edges[0], edges[-1]), edges)[0]
        inside = np.flatnonzero(counts)
        if len(inside):
            first, last = inside[0], inside[-1] + 1
            heights = base + 0.8 * counts[first:last] / counts.max()
            look = {"fill": fill, "color": colour, "alpha": 0.75 if fill else 1.0, "linewidth": 1.0}
            axes.stairs(heights, edges[first : last + 1], baseline=base, **look)
        if len(inside) and fill:
            style = {"color": BLACK, "linewidth": 1.0, "zorder": 4}
            axes.plot([np.nanmedian(t)] * 2, [base, base + 0.85], **style)


def _ridges(
    axes: Axes, landing: pd.DataFrame, model: str, rows: list[Landing], edges: np.ndarray
) -> None:
    for level, row in enumerate(rows):
        places = landed(landing, model, row)
        if places is not None:
            _ridge(axes, places, -level, edges)
    axes.set_yticks([0.3 - level for level in range(len(rows))], [row.name for row in rows])
    axes.tick_params(axis="y", length=0)
    for centre in (0, 1):
        axes.axvline(centre, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0.1 - len(rows) + 0.8, 0.95), title=model)
    axes.set_xlabel("position $t$ along DiM")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _landing_edges(landing: pd.DataFrame, rows: list[Landing]) -> np.ndarray:
    """Bins of t for what is shown; the farthest 0.1 % on either side fall into the outer bins."""
    shown = landing["intervention"].isin([row.intervention for row in rows])
    shown |= landing["operator"].fillna("none") == "none"
    t = landing.loc[shown & landing["label"].isin(CLASS_COLOURS), "position_along_dim"]
    low, high = np.nanquantile(t.to_numpy(float), [0.001, 0.999])
    bins = 60 if landing["model"].nunique() == 1 else 36
    return np.linspace(min(low, -0.4) - 0.1, max(high, 1.4) + 0.1, bins + 1)


def _landing_handles() -> list[Line2D]:
    style = {"linestyle": "none", "markeredgecolor": BLACK, "markersize": 5}
    return [
        Line2D([], [], marker="o", color=CLASS_COLOURS["harmless"], label="harmless", **style),
        Line2D([], [], marker="s", color=CLASS_COLOURS["harmful"], label="harmful", **style),
        Line2D([], [], marker="D", color=MOVED, label="harmful, transformed", **style),
    ]


@styled
def landing_picture(
    landing: pd.DataFrame, summary: pd.DataFrame, model: str | None = None, most: int = 4
) -> Figure:
    """Where transformed activations of harmful prompts land.

    Top: the first two principal components of one model at the transformation's own layer and
    position; large markers are centroids. Bottom: signed position t along DiM (0: harmless mean,
    1: harmful mean) for up to `most` models; black ticks are medians.
    """
    rows = landing_rows(landing, summary) if len(landing) else []
    require(bool(rows), "The landing places of transformed activations were not measured.")
    models = list(landing["model"].unique())[:most]
    model = model or models[0]
    figure = new_figure(TEXT_WIDTH, 2.4 + 0.42 * len(rows))
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.1, 0.6 + 0.42 * len(rows)))
    shown = [landed(landing, model, row) for row in rows]
    one_plane = len({places.candidate for places in shown if places}) == 1
    panels = np.atleast_1d(top.subplots(1, len(rows), sharex=one_plane, sharey=one_plane))
    for axes, places, row in zip(panels, shown, rows, strict=True):
        _scatter(axes, places, row.name)
    panels[0].set_ylabel(f"PC 2 ({model})")
    edges = _landing_edges(landing, rows)
    ridges = np.atleast_1d(bottom.subplots(1, len(models), sharey=True))
    for axes, name in zip(ridges, models, strict=True):
        _ridges(axes, landing, name, rows, edges)
    legend(figure, _landing_handles())
    return figure
