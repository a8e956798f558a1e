"""Which interventions put activations where no prompt is."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from refusal.figures.style import (
    BLACK,
    BLUE,
    HALO,
    TEXT_WIDTH,
    VERMILION,
    legend,
    new_figure,
    require,
    styled,
)
from refusal.reading import (
    MINUS,
    any_rank,
    estimates,
    find,
    k_order,
    project_recipe,
    recipes,
    short_share,
)

UNSTEERED_COLOURS = {"harmless": "#b3d9f0", "harmful": "#f9d2bb"}  # pale: what moved stands out
MOVED_COLOURS = {"harmless": BLUE, "harmful": VERMILION}
MARKERS = {"harmless": "o", "harmful": "s"}


def off_distribution_rows(landing: pd.DataFrame, summary: pd.DataFrame) -> dict[str, str]:
    """Intervention by title: -DiM and DiM ablation at one candidate, INLP projection and flipping.

    Of several matches the one at the candidate of DiM ablation is taken, then the largest subspace.
    """
    table = recipes(summary)
    table = table[table.index.isin(set(landing["intervention"]))]
    dim, inlp = project_recipe("dim", "1"), any_rank(project_recipe("inlp_faithful", ""))
    subtraction = {"operator": "add", "direction": "dim", "strength": -1.0, "scope": "source"}
    wanted = {
        f"DiM addition {MINUS}1": subtraction,
        "DiM ablation": dim,
        "INLP projection": inlp | {"alpha": 1.0},
        "INLP flipping": inlp | {"alpha": 2.0},
    }
    places = landing.groupby(["intervention", "model"])[["position", "layer"]].first()
    at = {name: rows.to_numpy().tolist() for name, rows in places.groupby(level=0)}
    ablation = (find(table, **dim) or [None])[0]
    found = {}
    for title, recipe in wanted.items():
        names = find(table, **recipe)
        if names:
            found[title] = min(
                names,
                key=lambda n: (at[n] != at.get(ablation), -k_order(table.loc[n, "k"] or "0")),
            )
    return found


def _panel(axes: Axes, frame: pd.DataFrame, intervention: str) -> None:
    """Both unsteered classes, pale, and where the intervention puts them."""
    moved = frame[frame["intervention"] == intervention]
    here = frame[
        (frame["position"] == moved["position"].iloc[0])
        & (frame["layer"] == moved["layer"].iloc[0])
    ]
    plain = here[here["operator"].fillna("none") == "none"]
    for rows, colours, size in ((plain, UNSTEERED_COLOURS, 3), (moved, MOVED_COLOURS, 2)):
        for name, marker in MARKERS.items():
            points = rows[rows["label"] == name]
            look = {"s": size, "linewidths": 0, "marker": marker}
            axes.scatter(points["pc1"], points["pc2"], color=colours[name], **look)
    for name in MARKERS:
        before, after = (
            rows.loc[rows["label"] == name, ["pc1", "pc2"]].mean() for rows in (plain, moved)
        )
        arrow = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", after, before, arrowprops=arrow, zorder=6)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.06)


def _write_shares(axes: Axes, summary: pd.DataFrame, model: str, intervention: str) -> None:
    """Shares off the distribution, beside their colours."""
    for line, name in enumerate(MARKERS):
        shares = estimates(summary, "outside", name, "geometry", model)["value"]
        if intervention in shares:
            style = {"transform": axes.transAxes, "ha": "right", "va": "top", "fontsize": 7}
            text = f"{short_share(shares[intervention])} off"
            axes.text(0.99, 0.98 - 0.14 * line, text, color=MOVED_COLOURS[name], **style, **HALO)


def _handles() -> list[Line2D]:
    shared = {"linestyle": "none", "markersize": 4}
    return [
        Line2D([], [], marker=MARKERS[name], color=colours[name], label=f"{name}{what}", **shared)
        for colours, what in ((UNSTEERED_COLOURS, ""), (MOVED_COLOURS, ", steered"))
        for name in MARKERS
    ]


@styled
def off_distribution(landing: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Test prompts before and after -DiM, DiM ablation, INLP projection and flipping.

    One row per model, one panel per intervention, in the first two principal components of the
    unsteered activations at the intervention's own position and layer. Arrows lead from class mean
    to class mean; the numbers are the shares off both classes (metric `outside`).
    """
    rows = off_distribution_rows(landing, summary) if len(landing) else {}
    require(bool(rows), "Where interventions put activations was not measured.")
    models = list(landing["model"].unique())
    figure = new_figure(TEXT_WIDTH, 0.4 + 1.1 * len(models))
    panels = figure.subplots(len(models), len(rows), squeeze=False, sharex="row", sharey="row")
    for row, (line, model) in enumerate(zip(panels, models, strict=True)):
        frame = landing[landing["model"] == model]
        for axes, (title, intervention) in zip(line, rows.items(), strict=True):
            if row == 0:
                axes.set_title(title)
            if not (frame["intervention"] == intervention).any():
                axes.set_axis_off()
                continue
            _panel(axes, frame, intervention)
            _write_shares(axes, summary, model, intervention)
        line[0].set_ylabel(model)
    legend(figure, _handles())
    return figure
