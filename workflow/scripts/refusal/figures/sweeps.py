"""Refusal and its cost against the number of directions k and against alpha."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from refusal.figures.style import (
    BLACK,
    BLUE,
    DIRECTION_COLOURS,
    HALO,
    PURPLE,
    TEXT_WIDTH,
    cost_axis,
    draw_interval,
    legend,
    new_figure,
    panel_letter,
    require,
    share_axis,
    styled,
)
from refusal.reading import (
    DIRECTION_NAMES,
    any_rank,
    estimates,
    find,
    judge_of,
    k_order,
    pooled_name,
    project_recipe,
    recipes,
)


@dataclass(frozen=True)
class Sweep:
    """One line of a sweep: its interventions per x value, how it looks and what it is called."""

    name: str
    points: dict
    colour: str
    dashes: str = "-"
    marker: str = "o"
    filled: bool = True
    control: bool = False

    @property
    def style(self) -> dict:
        return {
            "color": self.colour,
            "linestyle": self.dashes,
            "marker": self.marker,
            "markersize": 3.5,
            "markerfacecolor": self.colour if self.filled else "white",
            "markeredgewidth": 0.8,
        }

    def handle(self) -> Line2D:
        return Line2D([], [], **self.style, label=self.name)


def _k_lines(table: pd.DataFrame) -> list[Sweep]:
    """Projection and flipping against k for each direction, at the source layer."""
    lines = []
    for direction, projection, flipping, filled in (
        ("inlp_faithful", "o", "s", True),
        ("inlp_corrected", "o", "s", False),
        ("random", "^", "v", True),
    ):
        for alpha, name, marker in ((1.0, "projection", projection), (2.0, "flipping", flipping)):
            rows = table.loc[find(table, **any_rank(project_recipe(direction, "", alpha)))]
            ks = sorted(set(rows["k"]), key=k_order)
            if ks:
                points = {k: list(rows.index[rows["k"] == k]) for k in ks}
                look = (DIRECTION_COLOURS[direction], "-" if alpha == 1 else "--", marker, filled)
                title = f"{DIRECTION_NAMES[direction]} {name}"
                lines.append(Sweep(title, points, *look, control=direction == "random"))
    return lines


def _series(values: pd.DataFrame, line: Sweep) -> pd.DataFrame:
    """Estimate per x value of a line; the draws of a control give their mean and their range."""
    rows = {}
    for x, names in line.points.items():
        chosen = values.reindex(names).dropna(subset="value")
        if line.control and len(chosen) > 1:
            spread = chosen["value"]
            rows[x] = (spread.mean(), spread.min(), spread.max())
        elif len(chosen):
            rows[x] = tuple(chosen.iloc[0][["value", "low", "high"]])
    columns = ["value", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype(float)


def _sweep_panel(axes: Axes, values: pd.DataFrame, lines: list[Sweep], place: dict) -> None:
    """Every line with its intervals; lines are shifted sideways so that bars do not overlap."""
    for offset, line in zip(np.linspace(-0.2, 0.2, len(lines)), lines, strict=True):
        series = _series(values, line)
        if series.empty:
            continue
        xs = np.array([place[x] for x in series.index]) + offset * place["step"]
        axes.plot(xs, series["value"], **line.style, zorder=4)
        for x, (_, low, high) in zip(xs, series.to_numpy(), strict=True):
            draw_interval(axes, low, high, x, line.colour, vertical=True)


def _pick(values: pd.DataFrame, table: pd.DataFrame, recipe: dict) -> float:
    names = [name for name in find(table, **recipe) if name in values.index]
    return float(values.loc[names[0], "value"]) if names else np.nan


def _reference(axes: Axes, value: float, style: dict) -> None:
    if np.isfinite(value):
        axes.axhline(value, **{k: style[k] for k in ("color", "linestyle", "linewidth")}, zorder=1)


REFERENCES = {
    "DiM ablation (all)": {
        "color": BLUE,
        "linestyle": (0, (5, 2, 1, 2)),
        "linewidth": 1.0,
        "marker": "*",
        "markersize": 6,
    },
    "No intervention": {
        "color": BLACK,
        "linestyle": ":",
        "linewidth": 1.0,
        "marker": "P",
        "markersize": 4,
    },
}


def _fractions(axes: Axes, points: np.ndarray) -> np.ndarray:
    """Places of data points in fractions of the panel, which the layout engine does not change."""
    return axes.transAxes.inverted().transform(axes.transData.transform(points))


def _label_ranks(axes: Axes, line: Sweep, path: pd.DataFrame, taken: list) -> None:
    """Write the smallest, the full and a middle rank beside their points, where there is room.

    `taken` holds the places of all points and earlier labels, and is extended.
    """
    sides = [np.array(side) for side in ((-1, -1), (1, 1), (-1, 1), (1, -1))]
    for k in [k for k in ("1", "full", "8") if k in path.index]:
        here = _fractions(axes, path.loc[[k]].to_numpy())[0]
        for side in sides if line.marker == "s" else sides[1:]:
            place = here + side * (0.05, 0.055)
            inside = place.min() > 0.05 and place.max() < 0.97
            if inside and all(np.hypot(*(place - other)) > 0.06 for other in taken):
                taken.append(place)
                text = {"fontsize": 7, "color": line.colour, "ha": "center", "va": "center"}
                axes.text(*place, k, transform=axes.transAxes, **text, **HALO)
                break


def _trade_off(
    axes: Axes, refusal: pd.DataFrame, cost: pd.DataFrame, lines: list[Sweep], references: list
) -> None:
    """Refusal against cost along k; ranks are written beside the lines of the published INLP."""
    paths = []
    for line in lines:
        path = pd.concat([_series(cost, line)["value"], _series(refusal, line)["value"]], axis=1)
        path = path.dropna().set_axis(["cost", "refusal"], axis=1)
        paths.append(path)
        axes.plot(path["cost"], path["refusal"], **line.style, zorder=3)
    for (x, y), style in zip(references, REFERENCES.values(), strict=True):
        axes.plot(x, y, **style | {"linestyle": "none"}, zorder=5)
    cost_axis(axes.xaxis, pd.concat(paths)["cost"].to_numpy())
    share_axis(axes.yaxis)
    axes.margins(x=0.1)
    points = np.concatenate([pd.concat(paths).to_numpy(), np.array(references)])
    taken = list(_fractions(axes, points[np.isfinite(points).all(axis=1)]))
    for line, path in zip(lines, paths, strict=True):
        if line.filled and not line.control:
            _label_ranks(axes, line, path, taken)


@styled
def k_sweep(summary: pd.DataFrame, judge: str | None = None, corpus: str = "text") -> Figure:
    """Suppression and perplexity against the number of directions, and against each other.

    (a) harmful prompts refused, (b) perplexity as a multiple of the unsteered model's, (c) one
    against the other along k. Bars: intervals of the mean over models; range over draws for random.
    """
    table, model, judge = recipes(summary), pooled_name(summary), judge or judge_of(summary)
    refusal = estimates(summary, "refused", "harmful", judge, model)
    cost = estimates(summary, "perplexity_ratio", corpus, "model", model)
    lines = [line for line in _k_lines(table) if not _series(refusal, line).empty]
    swept = [line for line in lines if not line.control and len(line.points) > 1]
    require(bool(swept), "The study did not vary the number of INLP directions.")
    ks = sorted({k for line in lines for k in line.points}, key=k_order)
    place = {k: index for index, k in enumerate(ks)} | {"step": 1.0}
    figure = new_figure(TEXT_WIDTH, 2.5)
    left, middle, right = figure.subplots(1, 3)
    _sweep_panel(left, refusal, lines, place)
    _sweep_panel(middle, cost, lines, place)
    share_axis(left.yaxis)
    cost_axis(middle.yaxis, cost["value"].reindex(_members(lines)).to_numpy())
    for axes in (left, middle):
        axes.set_xticks(range(len(ks)), ks)
        axes.set_xlabel("number of directions $k$")
    references = _reference_points(refusal, cost, table)
    for (x, y), style in zip(references, REFERENCES.values(), strict=True):
        _reference(left, y, style)
        _reference(middle, x, style)
    _trade_off(right, refusal, cost, lines, references)
    _name_k_panels((left, middle, right), judge)
    handles = [line.handle() for line in lines]
    handles += [Line2D([], [], **style, label=name) for name, style in REFERENCES.items()]
    legend(figure, handles, columns=(len(handles) + 1) // 2, length=2.6)
    return figure


def _reference_points(
    refusal: pd.DataFrame, cost: pd.DataFrame, table: pd.DataFrame
) -> list[tuple[float, float]]:
    """(cost, refusal) of DiM ablation and of the unsteered model, whose cost is 1 by definition."""
    ablation, none = project_recipe("dim", "1", scope="all"), {"operator": "none"}
    return [
        (_pick(cost, table, ablation), _pick(refusal, table, ablation)),
        (1.0, _pick(refusal, table, none)),
    ]


def _members(lines: Sequence[Sweep]) -> list[str]:
    return [name for line in lines for names in line.points.values() for name in names]


def _name_k_panels(panels: Sequence[Axes], judge: str) -> None:
    share, cost = f"harmful refused ({judge})", "perplexity / unsteered"
    panels[0].set_ylabel(share)
    panels[1].set_ylabel(cost)
    panels[2].set(xlabel=cost, ylabel=share)
    for axes, letter, title in zip(panels, "abc", ("refusal", "cost", "trade-off"), strict=True):
        panel_letter(axes, letter, title)


def _alpha_lines(table: pd.DataFrame, minimum: int = 3) -> list[Sweep]:
    """Every direction and rank that was run at `minimum` or more values of alpha, at the source.

    alpha = 0 is the unsteered model by definition, so its point is added to every line.
    """
    rows = table[
        (table["operator"] == "project")
        & (table["tokens"] == "all")
        & (table["scope"] == "source")
        & (table["origin"] == "zero")
        & (table["direction"] != "random")
    ]
    markers, lines = iter("osD^vP*X" * 9), []
    unsteered = find(table, operator="none")
    for (direction, k), group in rows.groupby(["direction", "k"], sort=False):
        points = {alpha: list(g.index) for alpha, g in group.groupby("alpha")}
        if len(points) >= minimum:
            name = DIRECTION_NAMES.get(direction, direction)
            name += "" if direction in ("dim", "leace") else f", {k if k == 'full' else f'k = {k}'}"
            points = {0.0: unsteered} | points if unsteered else points
            look = (DIRECTION_COLOURS.get(direction, PURPLE), "-" if direction == "dim" else "--")
            lines.append(Sweep(name, points, *look, next(markers), direction != "inlp_corrected"))
    return lines


def _unsteered_ratio(cost: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The cost of the unsteered model is 1 by definition, also where the table leaves it out."""
    names = [name for name in find(table, operator="none") if name not in cost.index]
    ones = pd.DataFrame({"value": 1.0, "low": np.nan, "high": np.nan}, index=names)
    return pd.concat([cost, ones]) if names else cost


@styled
def alpha_sweep(summary: pd.DataFrame, judge: str | None = None, corpus: str = "text") -> Figure:
    """Refusal and perplexity against alpha: 0 leaves the model alone, 1 removes, 2 reflects."""
    table, model, judge = recipes(summary), pooled_name(summary), judge or judge_of(summary)
    lines = _alpha_lines(table)
    require(bool(lines), "The study did not vary alpha at the source layer.")
    alphas = sorted({alpha for line in lines for alpha in line.points})
    place = {alpha: alpha for alpha in alphas} | {"step": min(np.diff(alphas)) * 0.4}
    cost = estimates(summary, "perplexity_ratio", corpus, "model", model)
    panels = (
        ("harmful", f"share refused ({judge})"),
        ("harmless", f"share refused ({judge})"),
        ("cost", "perplexity / unsteered"),
    )
    figure = new_figure(TEXT_WIDTH, 2.2)
    for axes, letter, (name, axis) in zip(figure.subplots(1, 3), "abc", panels, strict=True):
        if name == "cost":
            _sweep_panel(axes, _unsteered_ratio(cost, table), lines, place)
            cost_axis(axes.yaxis, cost["value"].reindex(_members(lines)).to_numpy())
        else:
            _sweep_panel(axes, estimates(summary, "refused", name, judge, model), lines, place)
            share_axis(axes.yaxis)
        axes.set(xlabel=r"$\alpha$", ylabel=axis)
        axes.xaxis.set_major_locator(MultipleLocator(1.0))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(axis="x")
        panel_letter(axes, letter, name)
    legend(figure, [line.handle() for line in lines], columns=5, length=2.4)
    return figure
