"""Figures of the paper: tidy result tables in, matplotlib figures out.

Every drawing function is pure: it takes the frames of `statistics/` and `selection/` and returns
a `matplotlib.figure.Figure`; it raises `NothingToDraw` (a sentence for the reader) when the study
did not measure what the figure shows. `draw` looks a figure up by name, and `save` writes it as
vector PDF and PNG without dates or program versions, so that equal inputs give equal files.

Interventions are recognised by their recipe (direction, operator, scope, k, alpha, origin, side),
never by their name, so that a renamed entry of the config still finds its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, MultipleLocator, NullLocator

STYLE = Path(__file__).with_name("figures.mplstyle")
COLUMN_WIDTH = 3.25  # inches: one column of the two-column paper
TEXT_WIDTH = 6.75  # inches: both columns

# Okabe and Ito's palette, which stays distinct for colour-blind readers.
BLACK, GREY, BAND = "#222222", "#7f7f7f", "#d9d9d9"
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#AA4499", "#E69F00", "#56B4E9"
DIRECTION_COLOURS = {
    "": BLACK,
    "dim": BLUE,
    "inlp_faithful": VERMILION,
    "inlp_corrected": ORANGE,
    "leace": GREEN,
    "random": GREY,
}
DIRECTION_NAMES = {
    "dim": "DiM",
    "inlp_faithful": "INLP",
    "inlp_corrected": "INLP (corrected)",
    "leace": "LEACE",
    "random": "Random",
}
MODEL_MARKERS = "osD^vP*X<>"
DATASET_COLOURS = {"harmful": VERMILION, "harmless": BLUE, "borderline": ORANGE}
DATASET_MARKERS = {"harmful": "s", "harmless": "o", "borderline": "^"}
RECIPE = ("family", "direction", "operator", "scope", "k", "alpha", "strength")
RECIPE_COLUMNS = (*RECIPE, "origin", "side", "draw")
CHANCE = 0.5
HALO = {"path_effects": [withStroke(linewidth=1.6, foreground="white")], "zorder": 6}
MINUS = "\N{MINUS SIGN}"
LOG_COST = 3.0  # perplexity ratios beyond this are drawn on a logarithmic axis


class NothingToDraw(ValueError):
    """The study did not measure what a figure or table shows; the message says what is missing."""


# ------------------------------------------------------------------------------- reading the tables


def recipes(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per intervention with its recipe in a uniform notation, in order of appearance.

    Absent values become what they mean: alpha 1, origin "zero", k "1" for the rank-one directions,
    and the empty string for a direction, scope or side that does not apply.
    """
    columns = ["intervention", *RECIPE_COLUMNS]
    frame = summary.reindex(columns=columns).drop_duplicates("intervention")
    frame = frame.set_index("intervention")
    for name in ("family", "direction", "scope", "side"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
    for name in ("alpha", "strength", "draw"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    frame["alpha"] = frame["alpha"].fillna(1.0)
    frame["operator"] = frame["operator"].astype(object).where(frame["operator"].notna(), "none")
    frame["origin"] = frame["origin"].astype(object).where(frame["origin"].notna(), "zero")
    rank_one = frame["direction"].isin(["dim", "leace"])
    k = frame["k"].astype(object).where(frame["k"].notna(), "")
    frame["k"] = k.astype(str).str.removesuffix(".0")
    frame.loc[rank_one, "k"] = "1"
    frame.loc[frame["operator"] == "none", ["direction", "scope", "k"]] = ""
    return frame


def find(table: pd.DataFrame, **recipe: object) -> list[str]:
    """Names of the interventions of `recipes(...)` whose columns equal the given values."""
    keep = np.ones(len(table), dtype=bool)
    for column, value in recipe.items():
        keep &= (table[column] == value).to_numpy()
    return list(table.index[keep])


def models_of(summary: pd.DataFrame) -> list[str]:
    """Model names without the pooled rows, in order of appearance."""
    return [name for name in summary["model"].unique() if name not in ("mean", "all")]


def pooled_name(summary: pd.DataFrame) -> str:
    """The rows that stand for the whole study: "mean" over several models, or the only model.

    One model's mean over models is itself without an interval, so its own rows are taken.
    """
    models = models_of(summary)
    several = len(models) > 1 and (summary["model"] == "mean").any()
    return models[0] if models and not several else "mean"


def judge_of(summary: pd.DataFrame) -> str:
    """The oracle where it could judge, else the published substring rule."""
    known = summary[(summary["metric"] == "refused") & summary["value"].notna()]
    return "oracle" if (known["judge"] == "oracle").any() else "substring"


def estimates(
    summary: pd.DataFrame, metric: str, dataset: str, judge: str = "substring", model: str = "mean"
) -> pd.DataFrame:
    """Value, low and high of one metric for every intervention (index: intervention)."""
    rows = summary[
        (summary["metric"] == metric)
        & (summary["dataset"] == dataset)
        & (summary["judge"] == judge)
        & (summary["model"] == model)
    ]
    rows = rows.drop_duplicates("intervention").set_index("intervention")
    return rows[["value", "low", "high"]].astype(float)


def _number(value: float) -> str:
    return f"{value:g}".replace("-", MINUS)


def _operator_name(recipe: Mapping[str, object]) -> str:
    direction, operator = recipe["direction"], recipe["operator"]
    alpha, strength = float(recipe["alpha"]), float(recipe["strength"])
    if operator == "add":
        sign = "+" if strength > 0 else ""
        return "addition" if np.isnan(strength) else f"addition {sign}{_number(strength)}"
    if operator == "alterrep":
        factor = "" if alpha == 1 else f" \u00d7{_number(alpha)}"
        return f"AlterRep to {recipe['side'] or '?'}{factor}"
    if operator == "erase":
        return "erasure"
    if operator != "project":
        return str(operator)
    if alpha == 1:
        single = recipe["k"] == "1" and direction in ("dim", "random")
        return "ablation" if single else "projection"
    if alpha == 2:
        return "reflection" if direction == "dim" else "flipping"
    return f"projection, alpha {_number(alpha)}"


def label(recipe: Mapping[str, object], scope: bool = True) -> str:
    """Reader's name of one row of `recipes(...)`, for example "INLP flipping, k = 4 (source)"."""
    if recipe["operator"] == "none":
        return "No intervention"
    direction = str(recipe["direction"])
    parts = [f"{DIRECTION_NAMES.get(direction, direction)} {_operator_name(recipe)}".strip()]
    if recipe["origin"] != "zero":
        parts.append(f"origin {recipe['origin']}")
    if direction.startswith("inlp") or (direction == "random" and recipe["k"] != "1"):
        k = recipe["k"]
        parts.append("first direction" if k == "1" else f"k = {k}" if k != "full" else "full")
    if not np.isnan(float(recipe["draw"])):
        parts.append(f"draw {int(float(recipe['draw']))}")
    suffix = f" ({recipe['scope']})" if scope and recipe["scope"] else ""
    return ", ".join(parts) + suffix


# ----------------------------------------------------------------------- the rows of the main story


@dataclass(frozen=True)
class Row:
    """One line of the main comparison: its key for macros, its recipe and its random control."""

    key: str
    recipe: dict = field(default_factory=dict)
    control: dict = field(default_factory=dict)


def _project(
    direction: str, k: str, alpha: float = 1.0, scope: str = "source", origin: str = "zero"
) -> dict:
    return {
        "operator": "project",
        "direction": direction,
        "k": k,
        "alpha": alpha,
        "scope": scope,
        "origin": origin,
    }


def _any_rank(recipe: dict) -> dict:
    return {key: value for key, value in recipe.items() if key != "k"}


def _add(direction: str, strength: float) -> dict:
    return {"operator": "add", "direction": direction, "k": "1", "strength": strength}


def main_rows(leading: str = "8") -> list[Row]:
    """The main comparison, in reading order; `leading` is the restricted rank that is shown."""
    ablation = {"operator": "project", "direction": "random", "k": "1", "alpha": 1.0}
    addition = {"operator": "add", "direction": "random"}
    inlp, corrected = "inlp_faithful", "inlp_corrected"
    projection, flipping = _project("random", "full"), _project("random", "full", 2.0)
    leading_projection = _project("random", leading)
    leading_flipping = _project("random", leading, 2.0)
    # These two were run with whichever INLP variant the config names.
    alterrep = {"operator": "alterrep", "side": "harmless", "alpha": 1.0}
    affine = {"operator": "project", "origin": "midpoint", "alpha": 1.0, "scope": "source"}
    return [
        Row("NoIntervention", {"operator": "none"}),
        Row("DimAblation", _project("dim", "1", scope="all"), ablation | {"scope": "all"}),
        Row("DimAblationSource", _project("dim", "1"), ablation | {"scope": "source"}),
        Row("DimReflection", _project("dim", "1", 2.0)),
        Row("AffineAblation", _project("dim", "1", origin="harmless")),
        Row("DimSubtraction", _add("dim", -1.0), addition | {"strength": -1.0}),
        Row("DimAddition", _add("dim", 1.0), addition | {"strength": 1.0}),
        Row("InlpProjection", _project(inlp, "full"), projection),
        Row("InlpProjectionLeading", _project(inlp, leading), leading_projection),
        Row("InlpFlipping", _project(inlp, "full", 2.0), flipping),
        Row("InlpFlippingLeading", _project(inlp, leading, 2.0), leading_flipping),
        Row("InlpCorrectedProjection", _project(corrected, "full"), projection),
        Row("InlpCorrectedFlipping", _project(corrected, "full", 2.0), flipping),
        Row("AffineInlp", affine | {"k": "full"}),
        Row("AlterrepHarmless", alterrep),
        Row("Leace", {"operator": "erase", "direction": "leace"}),
    ]


def leading_rank(table: pd.DataFrame, wanted: int = 8) -> str:
    """Largest restricted INLP rank up to `wanted` that the study ran (as text); else `wanted`."""
    inlp = table[(table["direction"] == "inlp_faithful") & (table["operator"] == "project")]
    ranks = [int(k) for k in inlp["k"] if k.isdigit() and 1 < int(k) <= wanted]
    return str(max(ranks, default=wanted))


def resolve_rows(summary: pd.DataFrame) -> list[tuple[Row, str, list[str]]]:
    """(row, intervention, its random controls) for every main row that the study ran.

    Among several matches the largest subspace is taken ("full" before any number). Controls are
    the single draws, not the rows of their means.
    """
    table = recipes(summary)
    order = {name: (k != "full", -int(k) if k.isdigit() else 0) for name, k in table["k"].items()}
    found = []
    for row in main_rows(leading_rank(table)):
        names = sorted(find(table, **row.recipe), key=order.__getitem__)
        if names:
            controls = find(table, **row.control) if row.control else []
            found.append((row, names[0], [c for c in controls if table.loc[c, "draw"] >= 0]))
    return found


# ------------------------------------------------------------------------------------ small helpers


def _styled(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the figure style whatever the caller's settings are."""

    @wraps(function)
    def wrapper(*args, **kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcParams.update(mpl.rcParamsDefault)
            mpl.style.use(STYLE)
            return function(*args, **kwargs)

    return wrapper


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.03)
    return figure


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise NothingToDraw(message)


def _panel_letter(axes: Axes, letter: str, title: str) -> None:
    axes.set_title(f"({letter}) {title}", loc="left")


def _interval(axes: Axes, low: float, high: float, at: float, colour: str, vertical=False) -> None:
    """A bar from low to high; nothing when the interval is unknown."""
    if np.isfinite([low, high]).all():
        xs, ys = ([at, at], [low, high]) if vertical else ([low, high], [at, at])
        axes.plot(xs, ys, color=colour, linewidth=1.1, solid_capstyle="butt", zorder=3)


def _share_axis(axis: Axis) -> None:
    """The one axis of every share: 0 to 1 in quarters."""
    axis.axes.set(**{f"{axis.axis_name}lim": (-0.04, 1.04)})
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])


def _cost_axis(axis: Axis, values: Sequence[float]) -> None:
    """Multiples of the unsteered perplexity: linear, or logarithmic when they span much."""
    if np.nanmax(values, initial=1.0) > LOG_COST:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _scale_ticks(axes: Axes, most: float) -> None:
    """A logarithmic x axis of steps, labelled with round numbers."""
    axes.set_xscale("log")
    axes.set_xticks([tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= max(most, 2)])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _open_marker(marker: str, colour: str = GREY) -> dict:
    return {
        "marker": marker,
        "linestyle": "none",
        "color": colour,
        "markerfacecolor": "white",
        "markersize": 3,
        "markeredgewidth": 0.7,
    }


def _estimate_handles(models: Sequence[str], what: str = "") -> list[Line2D]:
    """Legend of the pooled dot with its interval, and of the open markers of several models."""
    name = f"mean over models{what}" if len(models) > 1 else f"{models[0]}{what}"
    pooled = Line2D([], [], color=BLACK, marker="o", markersize=4.5, linewidth=1.1, label=name)
    single = zip(MODEL_MARKERS * 3, models, strict=False) if len(models) > 1 else ()
    return [pooled, *(Line2D([], [], **_open_marker(marker), label=m) for marker, m in single)]


def _legend(figure: Figure, handles: Sequence, columns: int = 7, length: float = 1.4) -> None:
    place = {"loc": "outside upper center", "ncols": min(len(handles), columns)}
    spacing = {"columnspacing": 1.2, "handletextpad": 0.5, "handlelength": length}
    figure.legend(handles=handles, **place, **spacing)


# --------------------------------------------------------------------- (1) refusal per intervention


def _model_points(axes: Axes, values: Mapping[str, float], y: float) -> None:
    """Open markers of the single models around one line; nothing for one model alone."""
    if len(values) > 1:
        offsets = np.linspace(-0.3, 0.3, len(values))
        for marker, value, offset in zip(MODEL_MARKERS * 3, values.values(), offsets, strict=False):
            axes.plot(value, y + offset, **_open_marker(marker), zorder=2)


def _dots(axes: Axes, summary: pd.DataFrame, rows: list, dataset: str, judge: str) -> None:
    """One panel of the main comparison: pooled estimate, models, range of random controls."""
    table, models = recipes(summary), models_of(summary)
    pooled = estimates(summary, "refused", dataset, judge, pooled_name(summary))
    single = {m: estimates(summary, "refused", dataset, judge, m)["value"] for m in models}
    for y, (_, name, controls) in enumerate(rows):
        band = pooled["value"].reindex(controls).dropna()
        if len(band):
            low, high = band.min() - 0.004, band.max() + 0.004
            axes.add_patch(Rectangle((low, y - 0.4), high - low, 0.8, color=BAND, zorder=1))
        _model_points(axes, {m: single[m].get(name, np.nan) for m in models}, y)
        if name in pooled.index:
            value, low, high = pooled.loc[name, ["value", "low", "high"]]
            colour = DIRECTION_COLOURS.get(table.loc[name, "direction"], PURPLE)
            _interval(axes, low, high, y, colour)
            axes.plot(value, y, "o", color=colour, markersize=4.5, zorder=4)


@_styled
def refusal_by_intervention(summary: pd.DataFrame, judge: str | None = None) -> Figure:
    """Share of harmful, harmless and borderline prompts refused under each main intervention.

    Dots: mean over models (or the only model) with its interval; open markers: models; grey bars:
    range over the draws of the random control of the same operator and rank.
    """
    judge = judge or judge_of(summary)
    rows = resolve_rows(summary[summary["metric"] == "refused"])
    _require(bool(rows), "No refusal rates of the main interventions were measured.")
    table, datasets = recipes(summary), list(DATASET_COLOURS)
    figure = _figure(TEXT_WIDTH, 0.75 + 0.24 * len(rows))
    panels = figure.subplots(1, len(datasets), sharey=True)
    for axes, dataset in zip(panels, datasets, strict=True):
        _dots(axes, summary, rows, dataset, judge)
        axes.set(xlabel=f"share refused ({judge})", title=dataset)
        _share_axis(axes.xaxis)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    names = [label(table.loc[n], table.loc[n, "scope"] != "source") for _, n, _ in rows]
    panels[0].set_yticks(range(len(rows)), names)
    handles = _estimate_handles(models_of(summary), " with interval")
    if any(controls for _, _, controls in rows):
        handles.append(Rectangle((0, 0), 1, 1, color=BAND, label="random control, range of draws"))
    _legend(figure, handles)
    return figure


# -------------------------------------------------------------------------------------- (2) k-sweep


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


def _k_order(k: str) -> float:
    return float(k) if k.isdigit() else np.inf


def _k_lines(table: pd.DataFrame) -> list[Sweep]:
    """Projection and flipping against k for each direction, at the source layer."""
    lines = []
    for direction, projection, flipping, filled in (
        ("inlp_faithful", "o", "s", True),
        ("inlp_corrected", "o", "s", False),
        ("random", "^", "v", True),
    ):
        for alpha, name, marker in ((1.0, "projection", projection), (2.0, "flipping", flipping)):
            rows = table.loc[find(table, **_any_rank(_project(direction, "", alpha)))]
            ks = sorted(set(rows["k"]), key=_k_order)
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
            _interval(axes, low, high, x, line.colour, vertical=True)


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
    _cost_axis(axes.xaxis, pd.concat(paths)["cost"].to_numpy())
    _share_axis(axes.yaxis)
    axes.margins(x=0.1)
    points = np.concatenate([pd.concat(paths).to_numpy(), np.array(references)])
    taken = list(_fractions(axes, points[np.isfinite(points).all(axis=1)]))
    for line, path in zip(lines, paths, strict=True):
        if line.filled and not line.control:
            _label_ranks(axes, line, path, taken)


@_styled
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
    _require(bool(swept), "The study did not vary the number of INLP directions.")
    ks = sorted({k for line in lines for k in line.points}, key=_k_order)
    place = {k: index for index, k in enumerate(ks)} | {"step": 1.0}
    figure = _figure(TEXT_WIDTH, 2.5)
    left, middle, right = figure.subplots(1, 3)
    _sweep_panel(left, refusal, lines, place)
    _sweep_panel(middle, cost, lines, place)
    _share_axis(left.yaxis)
    _cost_axis(middle.yaxis, cost["value"].reindex(_members(lines)).to_numpy())
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
    _legend(figure, handles, columns=(len(handles) + 1) // 2, length=2.6)
    return figure


def _reference_points(
    refusal: pd.DataFrame, cost: pd.DataFrame, table: pd.DataFrame
) -> list[tuple[float, float]]:
    """(cost, refusal) of DiM ablation and of the unsteered model, whose cost is 1 by definition."""
    ablation, none = _project("dim", "1", scope="all"), {"operator": "none"}
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
        _panel_letter(axes, letter, title)


# ---------------------------------------------------------------------------------- (3) alpha sweep


def _alpha_lines(table: pd.DataFrame, minimum: int = 3) -> list[Sweep]:
    """Every direction and rank that was run at `minimum` or more values of alpha, at the source.

    alpha = 0 is the unsteered model by definition, so its point is added to every line.
    """
    rows = table[
        (table["operator"] == "project")
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


@_styled
def alpha_sweep(summary: pd.DataFrame, judge: str | None = None, corpus: str = "text") -> Figure:
    """Refusal and perplexity against alpha: 0 leaves the model alone, 1 removes, 2 reflects."""
    table, model, judge = recipes(summary), pooled_name(summary), judge or judge_of(summary)
    lines = _alpha_lines(table)
    _require(bool(lines), "The study did not vary alpha at the source layer.")
    alphas = sorted({alpha for line in lines for alpha in line.points})
    place = {alpha: alpha for alpha in alphas} | {"step": min(np.diff(alphas)) * 0.4}
    cost = estimates(summary, "perplexity_ratio", corpus, "model", model)
    panels = (
        ("harmful", f"share refused ({judge})"),
        ("harmless", f"share refused ({judge})"),
        ("cost", "perplexity / unsteered"),
    )
    figure = _figure(TEXT_WIDTH, 2.2)
    for axes, letter, (name, axis) in zip(figure.subplots(1, 3), "abc", panels, strict=True):
        if name == "cost":
            _sweep_panel(axes, _unsteered_ratio(cost, table), lines, place)
            _cost_axis(axes.yaxis, cost["value"].reindex(_members(lines)).to_numpy())
        else:
            _sweep_panel(axes, estimates(summary, "refused", name, judge, model), lines, place)
            _share_axis(axes.yaxis)
        axes.set(xlabel=r"$\alpha$", ylabel=axis)
        axes.xaxis.set_major_locator(MultipleLocator(1.0))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(axis="x")
        _panel_letter(axes, letter, name)
    _legend(figure, [line.handle() for line in lines], columns=5, length=2.4)
    return figure


# ------------------------------------------------------------------------------ (4) landing picture

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
    inlp, dim = _any_rank(_project("inlp_faithful", "")), _project("dim", "1")
    wanted = (
        ("DiM ablation", dim | {"alpha": 1.0}),
        ("DiM reflection", dim | {"alpha": 2.0}),
        ("INLP projection", inlp | {"alpha": 1.0}),
        ("INLP flipping", inlp | {"alpha": 2.0}),
    )
    rows = []
    for name, recipe in wanted:
        # At the source layer the landing place is a single application of the operator.
        names = sorted(find(table, **recipe), key=lambda n: -_k_order(table.loc[n, "k"] or "0"))
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
    axes.set_xlabel(f"PC 1 (position {_number(position)}, layer {layer})")
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


@_styled
def landing_picture(
    landing: pd.DataFrame, summary: pd.DataFrame, model: str | None = None, most: int = 4
) -> Figure:
    """Where transformed activations of harmful prompts land.

    Top: the first two principal components of one model at the transformation's own layer and
    position; large markers are centroids. Bottom: signed position t along DiM (0: harmless mean,
    1: harmful mean) for up to `most` models; black ticks are medians.
    """
    rows = landing_rows(landing, summary) if len(landing) else []
    _require(bool(rows), "The landing places of transformed activations were not measured.")
    models = list(landing["model"].unique())[:most]
    model = model or models[0]
    figure = _figure(TEXT_WIDTH, 2.4 + 0.42 * len(rows))
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
    _legend(figure, _landing_handles())
    return figure


# ----------------------------------------------------------------------- (5) accuracy per INLP step

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
    _scale_ticks(axes, frame["index"].max())
    axes.set_xlabel("INLP step")


@_styled
def inlp_accuracy(cosines: pd.DataFrame, selection: pd.DataFrame | None = None) -> Figure:
    """Accuracy of each INLP classifier by step, and the share of DiM inside the first directions.

    (a) published rules, (b) corrected variant, (c) cumulative share of DiM's squared length in the
    span of the first directions (published rules). Grey: all candidates; colour: selected ones.
    """
    names = {"inlp_faithful": "faithful", "inlp_corrected": "corrected"}
    frame = cosines[cosines["method"].isin(names)] if len(cosines) else cosines
    _require(len(frame) > 0, "No INLP directions were computed.")
    chosen = _selected_candidates(selection)
    looks = dict(zip(frame["model"].unique(), MODEL_LINES * 9, strict=False))
    methods = [name for name in names if (frame["method"] == name).any()]
    figure = _figure(TEXT_WIDTH, 2.2)
    panels = figure.subplots(1, len(methods) + 1)
    for axes, letter, method in zip(panels, "ab", methods, strict=False):
        _step_lines(axes, frame[frame["method"] == method], "accuracy", chosen, looks)
        axes.axhline(CHANCE, **CHANCE_LINE)
        axes.set(ylim=(0.35, 1.03), ylabel="accuracy (development)")
        _panel_letter(axes, letter, f"classifiers, {names[method]}")
    first = frame[frame["method"] == methods[0]]
    _step_lines(panels[-1], first, "energy_share", chosen, looks)
    panels[-1].set_ylabel("cumulative share")
    _share_axis(panels[-1].yaxis)
    _panel_letter(panels[-1], "abc"[len(methods)], f"share of DiM in the span, {names[methods[0]]}")
    handles = [Line2D([], [], **look, label=model) for model, look in looks.items() if chosen]
    handles.append(Line2D([], [], **OTHER_CANDIDATES, label="other candidates"))
    _legend(figure, [*handles, Line2D([], [], **CHANCE_LINE, label="chance")], length=2.4)
    return figure


# -------------------------------------------------------------------------------- (6) candidate map

SCORES = {"bypass": "bypass", "induce": "induce", "kl": "KL"}
LIGHT_BLUES = LinearSegmentedColormap.from_list("light blues", ["#f3f8fc", "#7fb8dc"])
HATCH = {"hatch": "////", "edgecolor": "#a6a6a6", "linewidth": 0}
FRAME = {"edgecolor": VERMILION, "linewidth": 1.5}


def _mark_candidates(axes: Axes, part: pd.DataFrame, rows: pd.Index, columns: pd.Index) -> None:
    """Hatch scored but rejected candidates; frame the selected one (dashed if it is a fallback)."""
    scored = part[list(SCORES)].notna().any(axis=1)
    for candidate, known in zip(part.itertuples(), scored, strict=True):
        x, y = columns.get_loc(candidate.position), rows.get_loc(candidate.layer)
        if known and not candidate.passed:
            axes.add_patch(Rectangle((x, y), 1, 1, fill=False, zorder=1.5, **HATCH))
        if candidate.selected:
            dashes = (0, (3, 1.5)) if candidate.fallback else "-"
            inside = (x + 0.03, y + 0.05)
            style = FRAME | {"linestyle": dashes, "fill": False, "zorder": 5}
            axes.add_patch(Rectangle(inside, 0.94, 0.9, **style))


def _write_values(axes: Axes, grid: pd.DataFrame, digits: int) -> None:
    for (y, x), value in np.ndenumerate(grid.to_numpy(float)):
        if np.isfinite(value):
            text = f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)  # no minus zero
            style = {"ha": "center", "va": "center", "fontsize": 7, "color": BLACK}
            axes.text(x + 0.5, y + 0.5, text, **style, **HALO)


def _score_map(axes: Axes, part: pd.DataFrame, score: str, limits: tuple) -> QuadMesh:
    """Heat map of one score and model: layers upwards, positions to the right."""
    grid = part.pivot_table(score, "layer", "position", dropna=False, sort=True)
    colours = LIGHT_BLUES if score == "induce" else LIGHT_BLUES.reversed()
    look = {"cmap": colours, "vmin": limits[0], "vmax": limits[1], "edgecolors": "white"}
    mesh = axes.pcolormesh(np.ma.masked_invalid(grid.to_numpy(float)), linewidth=0.4, **look)
    # Few enough cells to read numbers in them; larger models show colour alone.
    if grid.shape[0] <= 12 and grid.shape[1] <= 6:
        _write_values(axes, grid, 2 if score == "kl" else 1)
    axes.set_facecolor("0.88")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    every = max(1, -(-len(grid) // 12))  # at most a dozen layers are named
    ticks = range(0, len(grid), every)
    axes.set_yticks([y + 0.5 for y in ticks], [str(grid.index[y]) for y in ticks])
    axes.set_xticks(np.arange(grid.shape[1]) + 0.5, [_number(p) for p in grid.columns])
    if not axes.get_subplotspec().is_last_row():
        axes.set_xticklabels([])
    _mark_candidates(axes, part, grid.index, grid.columns)
    return mesh


def _candidate_handles(rows: pd.DataFrame) -> list[Rectangle]:
    """Legend of the marks that occur."""
    scored = rows[list(SCORES)].notna().any(axis=1)
    rejected = {"facecolor": "#a5cde8"} | HATCH
    dashed = FRAME | {"linestyle": (0, (3, 1.5)), "fill": False}
    marks = (
        (rows["selected"] & ~rows["fallback"], "selected", FRAME | {"fill": False}),
        (rows["selected"] & rows["fallback"], "used although rejected", dashed),
        (scored & ~rows["passed"], "rejected", rejected),
        (~scored, "pruned or zero, not scored", {"facecolor": "0.88"}),
    )
    return [
        Rectangle((0, 0), 1, 1, label=name, **style) for mask, name, style in marks if mask.any()
    ]


def _map_axes(figure: Figure, scores: list[str], models: list[str]) -> tuple[np.ndarray, list]:
    """Panels [scores, models] and one colour bar per score."""
    widths = [1.0] * len(models) + [0.05]
    panels = figure.subplots(len(scores), len(models) + 1, width_ratios=widths, squeeze=False)
    for axes, model in zip(panels[0], models, strict=False):
        axes.set_title(model)
    return panels[:, :-1], list(panels[:, -1])


@_styled
def candidate_map(
    selection: pd.DataFrame, method: str = "dim", scope: str = "all", most: int = 4
) -> Figure:
    """The three selection scores of every (position, layer) for up to `most` models.

    Darker is better. Hatched: rejected; framed: selected; dashed frame: used although nothing
    passed; grey: layer pruned or zero direction, not scored.
    """
    rows = selection[(selection["method"] == method) & (selection["scope"] == scope)]
    scores = [s for s in SCORES if s in rows and rows[s].notna().any()]
    _require(bool(scores), "No candidate scores were computed.")
    models = list(rows["model"].unique())[:most]
    rows = rows[rows["model"].isin(models)]
    line = np.clip(0.17 * rows["layer"].nunique(), 0.6, 2.2) + 0.1
    figure = _figure(
        min(TEXT_WIDTH, COLUMN_WIDTH + 1.6 * (len(models) - 1)), 0.8 + line * len(scores)
    )
    panels, bars = _map_axes(figure, scores, models)
    for axes_of, bar, score in zip(panels, bars, scores, strict=True):
        # Robust limits: one wild candidate must not hide the differences among the others.
        low, high = np.nanquantile(rows[score].to_numpy(float), [0.02, 0.98])
        for axes, model in zip(axes_of, models, strict=True):
            mesh = _score_map(axes, rows[rows["model"] == model], score, (low, high))
        axes_of[0].set_ylabel(f"{SCORES[score]}\nlayer")
        colour_bar = figure.colorbar(mesh, cax=bar)
        colour_bar.outline.set_visible(False)
        bar.tick_params(length=2, width=0.4)
        bar.yaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[-1]:
        axes.set_xlabel("position")
    _legend(figure, _candidate_handles(rows), columns=2 if len(models) == 1 else 4)
    return figure


# ------------------------------------------------------------------------------ (7) judge agreement


def _sizes(part: pd.DataFrame) -> str:
    """Number of judged completions: one figure, or the range over pairs of judges."""
    low, high = int(part["n"].min()), int(part["n"].max())
    return f"$n$ = {low:,}" if low == high else f"$n$ = {low:,}\u2013{high:,}"


def _kappa_dots(axes: Axes, part: pd.DataFrame, pairs: list, pooled: str, models: list) -> None:
    for y, (judge_a, judge_b) in enumerate(pairs):
        rows = part[(part["judge_a"] == judge_a) & (part["judge_b"] == judge_b)]
        rows = rows.drop_duplicates("model").set_index("model")
        _model_points(axes, {m: rows["kappa"].get(m, np.nan) for m in models}, y)
        if pooled in rows.index:
            value, low, high = rows.loc[pooled, ["kappa", "low", "high"]]
            _interval(axes, low, high, y, BLACK)
            axes.plot(value, y, "o", color=BLACK, markersize=4.5, zorder=4)


@_styled
def judge_agreement(agreement: pd.DataFrame) -> Figure:
    """Cohen's kappa of every pair of judges, one panel per prompt label.

    Dots: all models together with the interval; open markers: models; n: completions judged.
    """
    frame = agreement[agreement["metric"] == "refused"] if "metric" in agreement else agreement
    frame = frame.dropna(subset="kappa") if len(frame) else frame
    _require(len(frame) > 0, "Fewer than two judges scored the same completions.")
    models = models_of(frame)
    pooled = "all" if (frame["model"] == "all").any() else models[0]
    pairs = list(dict.fromkeys(zip(frame["judge_a"], frame["judge_b"], strict=True)))
    datasets = list(frame["dataset"].unique())
    figure = _figure(TEXT_WIDTH if len(datasets) > 1 else COLUMN_WIDTH, 0.9 + 0.25 * len(pairs))
    panels = np.atleast_1d(figure.subplots(1, len(datasets), sharex=True, sharey=True))
    for axes, dataset in zip(panels, datasets, strict=True):
        part = frame[frame["dataset"] == dataset]
        _kappa_dots(axes, part, pairs, pooled, models)
        axes.set_title(f"{dataset}, {_sizes(part[part['model'] == pooled])}")
        axes.set_xlabel(r"Cohen's $\kappa$")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    low = np.nanmin(frame[["kappa", "low"]].to_numpy(float), initial=0.0)
    panels[0].set(xlim=(low - 0.03, 1.03), ylim=(len(pairs) - 0.4, -0.6))
    panels[0].set_yticks(range(len(pairs)), [f"{a} \u2013 {b}" for a, b in pairs])
    handles = _estimate_handles(models or ["all"], " with interval")
    if len(models) > 1:
        handles[0].set_label("all models with interval")
    _legend(figure, handles)
    return figure


# ------------------------------------------------------------------------------------ (8) behaviour


@_styled
def baseline_behaviour(summary: pd.DataFrame, judge: str | None = None) -> Figure:
    """Share of each prompt label refused by every model without intervention, with intervals."""
    judge, names = judge or judge_of(summary), find(recipes(summary), operator="none")
    rows = summary[
        summary["intervention"].isin(names)
        & (summary["metric"] == "refused")
        & (summary["judge"] == judge)
        & summary["model"].isin(models_of(summary))
    ]
    _require(len(rows) > 0, "The unsteered models were not scored.")
    models = models_of(rows)
    datasets = [d for d in DATASET_COLOURS if (rows["dataset"] == d).any()]
    figure = _figure(COLUMN_WIDTH, 0.85 + 0.3 * len(models))
    axes, handles = figure.subplots(), []
    for offset, dataset in zip(np.linspace(-0.24, 0.24, len(datasets)), datasets, strict=True):
        part = rows[rows["dataset"] == dataset].drop_duplicates("model").set_index("model")
        look = {"color": DATASET_COLOURS[dataset], "marker": DATASET_MARKERS[dataset]}
        for y, model in enumerate(models):
            if model in part.index:
                row = part.loc[model]
                _interval(axes, row["low"], row["high"], y + offset, look["color"])
                axes.plot(row["value"], y + offset, markersize=4, zorder=4, **look)
        handles.append(Line2D([], [], linewidth=1.1, label=dataset, **look))
    axes.set(ylim=(len(models) - 0.5, -0.5), xlabel=f"share refused, unsteered ({judge})")
    _share_axis(axes.xaxis)
    axes.set_yticks(range(len(models)), models)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    _legend(figure, handles)
    return figure


# ---------------------------------------------------------------------------------- (9) projections

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


@_styled
def projection_histograms(projections: pd.DataFrame) -> Figure:
    """Projection of unsteered test prompts on DiM's unit vector, per prompt label and model.

    At DiM's selected candidate; dashed line: zero. Both classes on one side of it means that
    removing the component moves every prompt the same way.
    """
    frame = projections[projections["projection"].notna()] if len(projections) else projections
    _require(len(frame) > 0, "The projections onto DiM were not measured.")
    models = list(frame["model"].unique())
    columns = min(len(models), 4)
    lines = -(-len(models) // columns)
    width = COLUMN_WIDTH if columns == 1 else TEXT_WIDTH
    figure = _figure(width, 0.45 + 1.35 * lines)
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
    _legend(figure, handles)
    return figure


# --------------------------------------------------------------------------- looking up and writing


@dataclass(frozen=True)
class FigureRecipe:
    """How a figure is drawn: its function and the names of the frames that it takes, in order."""

    function: Callable[..., Figure]
    frames: tuple[str, ...]


FIGURES: dict[str, FigureRecipe] = {
    "refusal": FigureRecipe(refusal_by_intervention, ("summary",)),
    "k_sweep": FigureRecipe(k_sweep, ("summary",)),
    "alpha_sweep": FigureRecipe(alpha_sweep, ("summary",)),
    "landing": FigureRecipe(landing_picture, ("landing", "summary")),
    "inlp_accuracy": FigureRecipe(inlp_accuracy, ("cosines", "selection")),
    "candidates": FigureRecipe(candidate_map, ("selection",)),
    "agreement": FigureRecipe(judge_agreement, ("agreement",)),
    "behaviour": FigureRecipe(baseline_behaviour, ("summary",)),
    "projections": FigureRecipe(projection_histograms, ("projections",)),
}


@_styled
def _blank(sentence: str) -> Figure:
    """Stands in for a figure that could not be drawn, so that every rule has its output."""
    figure = _figure(COLUMN_WIDTH, 0.6)
    figure.text(0.5, 0.5, sentence, ha="center", va="center", wrap=True)
    return figure


def save(figure: Figure, stem: Path) -> None:
    """Write `<stem>.pdf` (vector) and `<stem>.png` without dates or program versions."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context():
        mpl.style.use(STYLE)
        pdf = dict.fromkeys(("CreationDate", "ModDate", "Creator", "Producer"))
        figure.savefig(stem.with_name(stem.name + ".pdf"), metadata=pdf)
        figure.savefig(stem.with_name(stem.name + ".png"), metadata={"Software": None})


def _drawn(name: str, frames: Mapping[str, pd.DataFrame]) -> Figure:
    """The figure of that name; NothingToDraw also when a table was not given at all."""
    recipe = FIGURES[name]
    missing = [key for key in recipe.frames if key not in frames]
    _require(not missing, f"The study has no table of {' and '.join(missing)}.")
    return recipe.function(*(frames[key] for key in recipe.frames))


def draw(name: str, frames: Mapping[str, pd.DataFrame], stem: Path, rule: str) -> dict:
    """Draw figure `name` of `FIGURES` and write `<stem>.pdf`, `<stem>.png` and `<stem>.json`.

    The json says which rule made the figure and whether there was anything to draw: keys `name`,
    `rule`, `available` and `reason` (a sentence, or null).
    """
    reason = None
    try:
        figure = _drawn(name, frames)
    except NothingToDraw as missing:
        reason = str(missing)
        figure = _blank(reason)
    save(figure, stem)
    return write_sidecar(stem, name, rule, reason)


def write_sidecar(stem: Path, name: str, rule: str, reason: str | None) -> dict:
    """Write `<stem>.json`, which tells the paper where a figure or table comes from."""
    record = {"name": name, "rule": rule, "available": reason is None, "reason": reason}
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    stem.with_name(stem.name + ".json").write_text(text)
    return record


def frames_needed(names: Iterable[str] = FIGURES) -> set[str]:
    """Names of all frames that the given figures take."""
    return {frame for name in names for frame in FIGURES[name].frames}
