"""What the LessWrong discussion asks: the harmless offset, and which tokens to steer."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from refusal.discussion import LEAST_MODELS, offset_correlation, offset_table
from refusal.figures.style import (
    BLACK,
    BLUE,
    COLUMN_WIDTH,
    DATASET_COLOURS,
    GREY,
    HALO,
    MODEL_MARKERS,
    TEXT_WIDTH,
    draw_interval,
    estimate_handles,
    legend,
    model_points,
    new_figure,
    require,
    share_axis,
    styled,
)
from refusal.reading import (
    MINUS,
    estimates,
    find,
    judge_of,
    models_of,
    pooled_name,
    project_recipe,
    recipes,
)

TOKENS = {
    "all": "all tokens",
    "prompt": "prompt",
    "last": "last prompt token",
    "generated": "generated",
}
OPERATORS = {
    "DiM ablation": project_recipe("dim", "1", scope="all"),
    f"DiM addition {MINUS}1": {"operator": "add", "direction": "dim", "strength": -1.0},
    "DiM addition +1": {"operator": "add", "direction": "dim", "strength": 1.0},
    "INLP flipping": project_recipe("inlp_faithful", "full", 2.0),
}


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


@styled
def offset(summary: pd.DataFrame, judge: str | None = None) -> Figure:
    """How much ablation helps against where harmless prompts project, one marker per model.

    Bars are intervals over prompts; the title has the correlation over models with the interval of
    Fisher's z, or says why there is none.
    """
    judge = judge or judge_of(summary)
    table = offset_table(summary, judge)
    require(len(table) > 0, "The projections or the ablation of DiM were not measured.")
    figure = new_figure(COLUMN_WIDTH, 2.4)
    axes = figure.subplots()
    for row, marker in zip(table.itertuples(), MODEL_MARKERS * len(table), strict=False):
        x, y = row.offset, row.reduction
        draw_interval(axes, row.offset_low, row.offset_high, y, GREY)
        draw_interval(axes, row.reduction_low, row.reduction_high, x, GREY, vertical=True)
        axes.plot(x, y, marker, color=BLUE, markersize=5, zorder=4)
        place = {"textcoords": "offset points", "xytext": (5, 4), "fontsize": 7}
        axes.annotate(row.model, (x, y), **place, **HALO)
    for line in (axes.axvline, axes.axhline):
        line(0, color=GREY, linewidth=0.5, linestyle=(0, (4, 3)), zorder=0)
    r, low, high = offset_correlation(table)
    if np.isfinite(r):
        bounds = f"[{_signed(low)}, {_signed(high)}]"
        axes.set_title(f"correlation {_signed(r)} {bounds}, {len(table)} models")
    elif len(table) < LEAST_MODELS:
        axes.set_title(f"no correlation from fewer than {LEAST_MODELS} models")
    else:
        axes.set_title("no correlation: the models do not differ")
    axes.set_xlabel("harmless over harmful projection onto DiM")
    axes.set_ylabel(f"fewer harmful refused\nunder DiM ablation ({judge})")
    axes.margins(0.12)
    return figure


def token_rows(summary: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(operator, tokens, intervention) of every operator that steered some of the tokens only."""
    table = recipes(summary)
    found = []
    for title, recipe in OPERATORS.items():
        here = [(tokens, find(table, **recipe, tokens=tokens)) for tokens in TOKENS]
        rows = [(title, tokens, names[0]) for tokens, names in here if names]
        if any(tokens != "all" for _, tokens, _ in rows):
            found += rows
    return found


def _token_panel(
    axes: Axes, summary: pd.DataFrame, places: dict[str, float], dataset: str, judge: str
) -> None:
    """Pooled shares with intervals and single models at the heights of `places`."""
    models = models_of(summary)
    pooled = estimates(summary, "refused", dataset, judge, pooled_name(summary))
    single = {m: estimates(summary, "refused", dataset, judge, m)["value"] for m in models}
    colour = DATASET_COLOURS[dataset]
    for name, y in places.items():
        model_points(axes, {m: single[m].get(name, np.nan) for m in models}, y)
        if name in pooled.index:
            value, low, high = pooled.loc[name]
            draw_interval(axes, low, high, y, colour)
            axes.plot(value, y, "o", color=colour, markersize=4.5, zorder=4)
    if "none" in pooled.index:
        style = {"color": BLACK, "linewidth": 0.8, "linestyle": (0, (4, 2)), "zorder": 0}
        axes.axvline(pooled.loc["none", "value"], **style)
    axes.set(xlabel=f"share refused ({judge})", title=dataset)
    share_axis(axes.xaxis)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


@styled
def tokens(summary: pd.DataFrame, judge: str | None = None) -> Figure:
    """Share refused when all tokens, the prompt, its last token or the answer is steered.

    Dots: mean over models (or the only model) with its interval; open markers: models; dashed: no
    intervention.
    """
    judge = judge or judge_of(summary)
    rows = token_rows(summary[summary["metric"] == "refused"])
    require(bool(rows), "No intervention on some of the tokens only was measured.")
    titles = list(dict.fromkeys(title for title, _, _ in rows))
    # A line of its own for the name of every operator.
    heights, labels, y = {}, [], 0
    for title in titles:
        labels.append((y, title))
        for _, kind, name in (row for row in rows if row[0] == title):
            y += 1
            heights[name] = y
            labels.append((y, TOKENS[kind]))
        y += 1.3
    figure = new_figure(TEXT_WIDTH, 0.75 + 0.17 * y)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, dataset in zip(panels, ("harmful", "harmless"), strict=True):
        _token_panel(axes, summary, heights, dataset, judge)
    panels[0].set_ylim(y - 0.7, -0.6)
    ticks = panels[0].set_yticks([at for at, _ in labels], [text for _, text in labels])
    for tick, (_, text) in zip(ticks, labels, strict=True):
        tick.label1.set_fontweight("bold" if text in titles else "normal")
    none = Line2D([], [], color=BLACK, linewidth=0.8, linestyle=(0, (4, 2)), label="none")
    legend(figure, [*estimate_handles(models_of(summary), " with interval"), none])
    return figure
