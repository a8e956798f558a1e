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
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

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
DATASET_TITLES = {
    "harmful": "harmful",
    "harmless": "harmless",
    "borderline": "borderline",
}
RECIPE = ("family", "direction", "operator", "scope", "k", "alpha", "strength")
RECIPE_COLUMNS = (*RECIPE, "origin", "side", "draw")
CHANCE = 0.5


class NothingToDraw(ValueError):
    """The study did not measure what a figure or table shows; the message says what is missing."""


# ------------------------------------------------------------------------------ reading the tables


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
    """The rows that stand for the whole study: "mean" over models, or the only model."""
    names = set(summary["model"])
    return "mean" if "mean" in names or not names else models_of(summary)[0]


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
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


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
    affine = "" if recipe["origin"] == "zero" else "affine "
    if alpha == 1:
        return affine + ("ablation" if recipe["k"] == "1" and direction == "dim" else "projection")
    if alpha == 2:
        return affine + ("reflection" if direction == "dim" else "flipping")
    return f"{affine}projection, alpha {_number(alpha)}"


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


# -------------------------------------------------------------------------- the rows of the main story


@dataclass(frozen=True)
class Row:
    """One line of the main comparison: its key for macros, its recipe and its random control."""

    key: str
    recipe: dict = field(default_factory=dict)
    control: dict = field(default_factory=dict)


def _project(direction: str, k: str, alpha: float = 1.0, scope: str = "source", origin="zero"):
    return {
        "operator": "project",
        "direction": direction,
        "k": k,
        "alpha": alpha,
        "scope": scope,
        "origin": origin,
    }


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
    alterrep = {"operator": "alterrep", "direction": inlp, "side": "harmless", "alpha": 1.0}
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
        Row("AffineInlp", _project(inlp, "full", origin="midpoint")),
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

    Among several matches the largest subspace is taken ("full" before any number).
    """
    table = recipes(summary)
    order = {name: (k != "full", -int(k) if k.isdigit() else 0) for name, k in table["k"].items()}
    found = []
    for row in main_rows(leading_rank(table)):
        names = sorted(find(table, **row.recipe), key=order.__getitem__)
        if names:
            found.append((row, names[0], find(table, **row.control) if row.control else []))
    return found


# ------------------------------------------------------------------------------------- small helpers


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
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.03, hspace=0.03)
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


def _model_handles(models: Sequence[str]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            marker=MODEL_MARKERS[index % len(MODEL_MARKERS)],
            linestyle="none",
            color=GREY,
            markerfacecolor="white",
            markersize=3.5,
            markeredgewidth=0.7,
            label=model,
        )
        for index, model in enumerate(models)
    ]


# -------------------------------------------------------------------- (1) refusal per intervention


def _dots(axes: Axes, summary: pd.DataFrame, rows: list, dataset: str, judge: str) -> None:
    """One panel of the main comparison: pooled estimate, models, range of random controls."""
    table, models = recipes(summary), models_of(summary)
    pooled = estimates(summary, "refused", dataset, judge, pooled_name(summary))
    single = {m: estimates(summary, "refused", dataset, judge, m)["value"] for m in models}
    for y, (_, name, controls) in enumerate(rows):
        band = pooled["value"].reindex(controls).dropna()
        if len(band):
            low, high = band.min() - 0.004, band.max() + 0.004
            axes.add_patch(Rectangle((low, y - 0.38), high - low, 0.76, color=BAND, zorder=1))
        colour = DIRECTION_COLOURS.get(table.loc[name, "direction"], PURPLE)
        offsets = np.linspace(-0.27, 0.27, len(models)) if len(models) > 1 else [0.27]
        for marker, model, offset in zip(MODEL_MARKERS * 3, models, offsets, strict=False):
            value = single[model].get(name, np.nan)
            style = {"markersize": 2.6, "markeredgewidth": 0.6, "zorder": 2}
            axes.plot(value, y + offset, marker, color=GREY, markerfacecolor="white", **style)
        if name in pooled.index:
            value, low, high = pooled.loc[name, ["value", "low", "high"]]
            _interval(axes, low, high, y, colour)
            axes.plot(value, y, "o", color=colour, markersize=4.5, zorder=4)


@_styled
def refusal_by_intervention(summary: pd.DataFrame, judge: str = "substring") -> Figure:
    """Share of harmful, harmless and borderline prompts refused under each main intervention.

    Dots: mean over models with its interval; open markers: models; grey bars: range over the
    draws of the random control of the same operator and rank.
    """
    rows = resolve_rows(summary[summary["metric"] == "refused"])
    _require(bool(rows), "No refusal rates of the main interventions were measured.")
    table, datasets = recipes(summary), list(DATASET_TITLES)
    figure = _figure(TEXT_WIDTH, 0.75 + 0.23 * len(rows))
    panels = figure.subplots(1, len(datasets), sharey=True)
    for axes, dataset in zip(panels, datasets, strict=True):
        _dots(axes, summary, rows, dataset, judge)
        axes.set(xlim=(-0.03, 1.03), xlabel="share refused", title=DATASET_TITLES[dataset])
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    panels[0].set_yticks(range(len(rows)), [label(table.loc[name]) for _, name, _ in rows])
    handles = _model_handles(models_of(summary))
    handles.append(Rectangle((0, 0), 1, 1, color=BAND, label="random control"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 7))
    return figure


# ------------------------------------------------------------------------------------- (2) k-sweep


@dataclass(frozen=True)
class Sweep:
    """One line of a sweep: its intervention per x value, how it looks and what it is called."""

    name: str
    points: dict[str, list[str]]
    colour: str
    dashes: str = "-"
    marker: str = "o"


def _k_order(k: str) -> float:
    return float(k) if k.isdigit() else np.inf


def _k_lines(table: pd.DataFrame) -> list[Sweep]:
    """Projection and flipping against k for each direction, at the source layer."""
    looks = {
        ("inlp_faithful", 1.0): ("INLP projection", BLUE, "-", "o"),
        ("inlp_faithful", 2.0): ("INLP flipping", VERMILION, "-", "s"),
        ("inlp_corrected", 1.0): ("corrected projection", BLUE, ":", "o"),
        ("inlp_corrected", 2.0): ("corrected flipping", VERMILION, ":", "s"),
        ("random", 1.0): ("random projection", GREY, "-", "o"),
        ("random", 2.0): ("random flipping", GREY, "--", "s"),
    }
    lines = []
    for (direction, alpha), (name, colour, dashes, marker) in looks.items():
        rows = table[
            (table["operator"] == "project")
            & (table["direction"] == direction)
            & (table["alpha"] == alpha)
            & (table["scope"] == "source")
            & (table["origin"] == "zero")
        ]
        ks = sorted(set(rows["k"]), key=_k_order)
        points = {k: list(rows.index[rows["k"] == k]) for k in ks}
        if points:
            lines.append(Sweep(name, points, colour, dashes, marker))
    return lines


def _series(values: pd.DataFrame, line: Sweep) -> pd.DataFrame:
    """Estimate per x value of a line; several draws give their mean and their range."""
    rows = {}
    for x, names in line.points.items():
        chosen = values.reindex(names).dropna(subset="value")
        if len(chosen) > 1 and line.colour == GREY:
            spread = chosen["value"]
            rows[x] = (spread.mean(), spread.min(), spread.max())
        elif len(chosen):
            rows[x] = tuple(chosen.iloc[0][["value", "low", "high"]])
    columns = ["value", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype(float)


def _sweep_panel(axes: Axes, values: pd.DataFrame, lines: list[Sweep], place: dict) -> None:
    for offset, line in zip(np.linspace(-0.12, 0.12, len(lines)), lines, strict=True):
        series = _series(values, line)
        if series.empty:
            continue
        xs = np.array([place[x] for x in series.index]) + offset * place["step"]
        style = {"color": line.colour, "linestyle": line.dashes, "marker": line.marker}
        axes.plot(xs, series["value"], markersize=3, **style)
        for x, (_, low, high) in zip(xs, series.to_numpy(), strict=True):
            _interval(axes, low, high, x, line.colour, vertical=True)


def _reference(axes: Axes, value: float, name: str, right: float) -> None:
    """A dashed horizontal line with its name above its right end."""
    if np.isfinite(value):
        axes.axhline(value, color=BLACK, linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            name,
            (right, value),
            xycoords=("axes fraction", "data"),
            xytext=(0, 1.5),
            textcoords="offset points",
            ha="right" if right == 1 else "left",
            fontsize=6.5,
        )


def _trade_off(axes: Axes, refusal: pd.DataFrame, cost: pd.DataFrame, lines: list[Sweep]) -> None:
    for line in lines:
        xs, ys = _series(cost, line)["value"], _series(refusal, line)["value"]
        shared = [k for k in xs.index if k in ys.index]
        style = {"color": line.colour, "linestyle": line.dashes, "marker": line.marker}
        axes.plot(xs[shared], ys[shared], markersize=3, **style)
        if line.dashes == "-" and line.colour != GREY:
            for k in shared:
                position = {"xytext": (3, 2), "textcoords": "offset points"}
                text = {"fontsize": 6, "color": line.colour}
                axes.annotate(k, (xs[k], ys[k]), **position, **text)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")


def _pick(values: pd.DataFrame, table: pd.DataFrame, recipe: dict) -> float:
    names = [name for name in find(table, **recipe) if name in values.index]
    return float(values.loc[names[0], "value"]) if names else np.nan


@_styled
def k_sweep(summary: pd.DataFrame, judge: str = "substring", corpus: str = "text") -> Figure:
    """Suppression and perplexity against the number of directions, and against each other.

    (a) harmful prompts refused, (b) perplexity as a multiple of the unsteered model's, (c) one
    against the other along k. Bars: intervals of the mean over models; range over draws for random.
    """
    table, model = recipes(summary), pooled_name(summary)
    refusal = estimates(summary, "refused", "harmful", judge, model)
    cost = estimates(summary, "perplexity_ratio", corpus, "model", model)
    lines = [line for line in _k_lines(table) if not _series(refusal, line).empty]
    swept = [line for line in lines if line.colour != GREY and len(line.points) > 1]
    _require(bool(swept), "The study did not vary the number of INLP directions.")
    ks = sorted({k for line in lines for k in line.points}, key=_k_order)
    place = {k: index for index, k in enumerate(ks)} | {"step": 1.0}
    figure = _figure(TEXT_WIDTH, 2.35)
    left, middle, right = figure.subplots(1, 3)
    _sweep_panel(left, refusal, lines, place)
    _sweep_panel(middle, cost, lines, place)
    _trade_off(right, refusal, cost, lines)
    for axes in (left, middle):
        axes.set_xticks(range(len(ks)), ks)
        axes.set_xlabel("number of directions k")
    ablation = _project("dim", "1", scope="all")
    for axes in (left, right):
        axes.set_ylim(-0.04, 1.08)
        _reference(axes, _pick(refusal, table, ablation), "DiM ablation", 1)
    _reference(middle, _pick(cost, table, ablation), "DiM ablation", 0)
    left.set_ylabel("harmful refused")
    middle.set_ylabel("perplexity / unsteered")
    right.set(xlabel="perplexity / unsteered", ylabel="harmful refused")
    for axes, letter, title in zip((left, middle, right), "abc", ("suppression", "cost", "trade-off"), strict=True):
        _panel_letter(axes, letter, title)
    handles = [
        Line2D([], [], color=s.colour, linestyle=s.dashes, marker=s.marker, markersize=3, label=s.name)
        for s in lines
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, columnspacing=1.0)
    return figure


# --------------------------------------------------------------------------------- (3) alpha sweep


def _alpha_lines(table: pd.DataFrame, minimum: int = 3) -> list[Sweep]:
    """Every direction and rank that was run at `minimum` or more values of alpha, at the source."""
    rows = table[
        (table["operator"] == "project")
        & (table["scope"] == "source")
        & (table["origin"] == "zero")
        & (table["direction"] != "random")
    ]
    markers, lines = iter("osD^vP*X" * 9), []
    for (direction, k), group in rows.groupby(["direction", "k"], sort=False):
        points = {alpha: list(g.index) for alpha, g in group.groupby("alpha")}
        if len(points) >= minimum:
            name = DIRECTION_NAMES.get(direction, direction)
            name += "" if direction in ("dim", "leace") else f", {k if k == 'full' else f'k = {k}'}"
            dashes = "-" if k in ("full", "1") else "--"
            colour = DIRECTION_COLOURS.get(direction, PURPLE)
            lines.append(Sweep(name, points, colour, dashes, next(markers)))
    return lines


@_styled
def alpha_sweep(summary: pd.DataFrame, judge: str = "substring", corpus: str = "text") -> Figure:
    """Refusal and perplexity against alpha: 0 leaves the model alone, 1 removes, 2 reflects."""
    table, model = recipes(summary), pooled_name(summary)
    lines = _alpha_lines(table)
    _require(bool(lines), "The study did not vary alpha at the source layer.")
    alphas = sorted({alpha for line in lines for alpha in line.points})
    place = {alpha: alpha for alpha in alphas} | {"step": min(np.diff(alphas)) * 0.5}
    panels = (
        ("harmful refused", estimates(summary, "refused", "harmful", judge, model)),
        ("harmless refused", estimates(summary, "refused", "harmless", judge, model)),
        ("perplexity / unsteered", estimates(summary, "perplexity_ratio", corpus, "model", model)),
    )
    figure = _figure(TEXT_WIDTH, 2.2)
    for axes, letter, (name, values) in zip(figure.subplots(1, 3), "abc", panels, strict=True):
        _sweep_panel(axes, values, lines, place)
        axes.set_xlabel(r"$\alpha$")
        _panel_letter(axes, letter, name)
        if "refused" in name:
            axes.set_ylim(-0.04, 1.04)
        for alpha in (1, 2):
            axes.axvline(alpha, color=BAND, linewidth=0.7, zorder=0)
    handles = [
        Line2D([], [], color=s.colour, linestyle=s.dashes, marker=s.marker, markersize=3, label=s.name)
        for s in lines
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))
    return figure


# --------------------------------------------------------------------------------- (4) landing picture


@dataclass(frozen=True)
class Landing:
    """One transformation of the landing picture."""

    name: str
    intervention: str
    colour: str


def landing_rows(landing: pd.DataFrame, summary: pd.DataFrame) -> list[Landing]:
    """Interventions to show: none, DiM ablation, INLP projection, INLP flipping (largest rank)."""
    table = recipes(summary)
    table = table[table.index.isin(set(landing["intervention"]))]
    inlp = {"operator": "project", "direction": "inlp_faithful", "origin": "zero"}
    dim = {"operator": "project", "direction": "dim", "origin": "zero", "alpha": 1.0}
    wanted = (
        ("unsteered", {"operator": "none"}, BLACK),
        ("DiM ablation", dim, BLUE),
        ("INLP projection", inlp | {"alpha": 1.0}, GREEN),
        ("INLP flipping", inlp | {"alpha": 2.0}, VERMILION),
    )
    rows = []
    for name, recipe, colour in wanted:
        # The local form is the one whose landing place is a single application of the operator.
        names = sorted(
            find(table, **recipe),
            key=lambda n: (table.loc[n, "scope"] != "source", -_k_order(table.loc[n, "k"] or "0")),
        )
        if names:
            rows.append(Landing(name, names[0], colour))
    return rows


def _centroid(axes: Axes, points: pd.DataFrame, marker: str, colour: str) -> None:
    x, y = points["pc1"].mean(), points["pc2"].mean()
    style = {"markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 5}
    axes.plot(x, y, marker, color=colour, markersize=7, **style)


def _scatter(axes: Axes, frame: pd.DataFrame, row: Landing) -> None:
    """PCA picture of one transformation: both unsteered classes and the transformed harmful."""
    plain = frame[frame["operator"].fillna("none") == "none"]
    moved = frame[(frame["intervention"] == row.intervention) & (frame["label"] == "harmful")]
    harmless = plain[plain["label"] == "harmless"]
    harmful = plain[plain["label"] == "harmful"]
    dots = {"s": 3, "linewidths": 0, "rasterized": False}
    axes.scatter(harmless["pc1"], harmless["pc2"], color=SKY, **dots)
    axes.scatter(harmful["pc1"], harmful["pc2"], color="#c9a0a0", **dots)
    if row.name != "unsteered":
        axes.scatter(moved["pc1"], moved["pc2"], color=row.colour, **dots)
        _centroid(axes, moved, "D", row.colour)
    _centroid(axes, harmless, "o", "#2a6f97")
    _centroid(axes, harmful, "s", "#7f3b3b")
    axes.set_title(row.name, color=row.colour)
    axes.set(xticks=[], yticks=[], xlabel="PC 1")
    axes.margins(0.06)


def _ridges(axes: Axes, frame: pd.DataFrame, rows: list[Landing], edges: np.ndarray) -> None:
    """Histogram of the signed position of harmful prompts per transformation, each to its peak."""
    plain = rows[0].intervention if rows[0].name == "unsteered" else None
    groups = [(f"{row.name}, harmful", row.intervention, "harmful", row.colour) for row in rows]
    if plain is not None:
        groups.insert(0, ("unsteered, harmless", plain, "harmless", SKY))
    for level, (_, intervention, name, colour) in enumerate(groups):
        part = frame[(frame["intervention"] == intervention) & (frame["label"] == name)]
        t = part["position_along_dim"].to_numpy(float)
        t = np.clip(t[np.isfinite(t)], edges[0], edges[-1])
        if len(t):
            counts = np.histogram(t, edges)[0]
            axes.stairs(-level + 0.8 * counts / counts.max(), edges, baseline=-level, fill=True, color=colour, alpha=0.75)
            axes.plot([np.median(t)] * 2, [-level, -level + 0.85], color=BLACK, linewidth=0.8)
    axes.set_yticks([-level for level in range(len(groups))], [group[0] for group in groups])
    axes.tick_params(axis="y", length=0)
    for centre in (0, 1):
        axes.axvline(centre, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlim=(edges[0], edges[-1]), xlabel="$t$")


@_styled
def landing_picture(
    landing: pd.DataFrame, summary: pd.DataFrame, model: str | None = None, most: int = 4
) -> Figure:
    """Where transformed activations of harmful prompts land.

    Top: the first two principal components of one model. Bottom: signed position t along DiM (0:
    harmless mean, 1: harmful mean) for up to `most` models; black ticks are medians.
    """
    rows = landing_rows(landing, summary) if len(landing) else []
    _require(len(rows) > 1, "The landing places of transformed activations were not measured.")
    models = list(landing["model"].unique())[:most]
    model = model or models[0]
    figure = _figure(TEXT_WIDTH, 3.7)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    panels = np.atleast_1d(top.subplots(1, len(rows), sharex=True, sharey=True))
    for axes, row in zip(panels, rows, strict=True):
        _scatter(axes, landing[landing["model"] == model], row)
    panels[0].set_ylabel(f"PC 2 ({model})")
    t = landing["position_along_dim"].to_numpy(float)
    low, high = np.nanquantile(t, [0.005, 0.995])
    edges = np.linspace(min(low, 0) - 0.1, max(high, 1) + 0.1, 49)
    ridges = np.atleast_1d(bottom.subplots(1, len(models), sharey=True))
    for axes, name in zip(ridges, models, strict=True):
        _ridges(axes, landing[landing["model"] == name], rows, edges)
        axes.set_title(name)
    return figure


# -------------------------------------------------------------------------- (5) accuracy per INLP step


def _selected_candidates(selection: pd.DataFrame | None) -> dict[tuple[str, str], tuple[int, int]]:
    """(model, method) -> (position, layer) of the locally selected candidate."""
    if selection is None or selection.empty:
        return {}
    rows = selection[selection["selected"].astype(bool)].sort_values("scope", ascending=False)
    rows = rows.drop_duplicates(["model", "method"])
    keys = zip(rows["model"], rows["method"], strict=True)
    return dict(zip(keys, zip(rows["position"], rows["layer"], strict=True), strict=True))


def _step_lines(axes: Axes, frame: pd.DataFrame, column: str, chosen: dict, models: list) -> None:
    """Thin lines for every candidate, bold ones for the selected candidate of each model."""
    colours = dict(zip(models, [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY] * 9, strict=False))
    for (model, method, position, layer), part in frame.groupby(
        ["model", "method", "position", "layer"], sort=False
    ):
        part = part.sort_values("index")
        if chosen.get((model, method)) == (position, layer):
            axes.plot(part["index"], part[column], color=colours[model], label=model, zorder=3)
        else:
            axes.plot(part["index"], part[column], color=BAND, linewidth=0.5, zorder=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
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
    chosen, models = _selected_candidates(selection), list(frame["model"].unique())
    methods = [name for name in names if (frame["method"] == name).any()]
    figure = _figure(TEXT_WIDTH, 2.2)
    panels = figure.subplots(1, len(methods) + 1)
    for axes, letter, method in zip(panels, "ab", methods, strict=False):
        _step_lines(axes, frame[frame["method"] == method], "accuracy", chosen, models)
        axes.set_ylim(0.3, 1.03)
        _reference(axes, CHANCE, "chance", 0)
        _panel_letter(axes, letter, f"accuracy, {names[method]}")
    first = frame[frame["method"] == methods[0]]
    _step_lines(panels[-1], first, "energy_share", chosen, models)
    panels[-1].set_ylim(0, 1.03)
    _panel_letter(panels[-1], "abc"[len(methods)], f"share of DiM, {names[methods[0]]}")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6))
    return figure


# ------------------------------------------------------------------------------- (6) candidate map

SCORES = {"bypass": ("vlag", 0.0), "induce": ("vlag", 0.0), "kl": ("rocket_r", None)}


def _mark_candidates(axes: Axes, part: pd.DataFrame, rows: pd.Index, columns: pd.Index) -> None:
    """Hatch rejected candidates; star the selected one (a diamond if it is a fallback)."""
    for candidate in part.itertuples():
        y, x = rows.get_loc(candidate.layer), columns.get_loc(candidate.position)
        if not candidate.passed:
            style = {"hatch": "////", "edgecolor": "0.35", "linewidth": 0}
            axes.add_patch(Rectangle((x, y), 1, 1, fill=False, **style))
        if candidate.selected:
            marker = "D" if candidate.fallback else "*"
            size = 5 if candidate.fallback else 9
            style = {"color": "gold", "markeredgecolor": BLACK, "markeredgewidth": 0.6}
            axes.plot(x + 0.5, y + 0.5, marker, markersize=size, zorder=5, **style)


def _score_map(axes: Axes, bar: Axes | None, part: pd.DataFrame, score: str, limits: tuple) -> None:
    grid = part.pivot_table(score, "layer", "position", dropna=False, sort=True)
    palette, centre = SCORES[score]
    sns.heatmap(
        grid,
        ax=axes,
        cmap=palette,
        center=centre,
        vmin=limits[0],
        vmax=limits[1],
        cbar=bar is not None,
        cbar_ax=bar,
        linewidths=0.3,
        linecolor="white",
    )
    axes.set_facecolor("0.93")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set(xlabel="", ylabel="")
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    _mark_candidates(axes, part, grid.index, grid.columns)


@_styled
def candidate_map(
    selection: pd.DataFrame, method: str = "dim", scope: str = "all", most: int = 4
) -> Figure:
    """The three selection scores of every (position, layer) for up to `most` models.

    Hatched: rejected; star: selected; diamond: selected although nothing passed.
    """
    rows = selection[(selection["method"] == method) & (selection["scope"] == scope)]
    scores = [s for s in SCORES if s in rows and rows[s].notna().any()]
    _require(bool(scores), "No candidate scores were computed.")
    models = list(rows["model"].unique())[:most]
    figure = _figure(TEXT_WIDTH, 0.45 + 1.05 * len(scores))
    widths = [1.0] * len(models) + [0.06]
    panels = figure.subplots(len(scores), len(models) + 1, width_ratios=widths, squeeze=False)
    for line, score in zip(panels, scores, strict=True):
        # Robust limits: one wild candidate must not hide the differences among the others.
        low, high = np.nanquantile(rows[score].to_numpy(float), [0.02, 0.98])
        for index, (axes, model) in enumerate(zip(line, models, strict=False)):
            bar = line[-1] if index == 0 else None
            _score_map(axes, bar, rows[rows["model"] == model], score, (low, high))
            if line is panels[0]:
                axes.set_title(model)
            if line is panels[-1]:
                axes.set_xlabel("position")
            if index == 0:
                axes.set_ylabel(f"{'KL' if score == 'kl' else score}\nlayer")
        line[-1].tick_params(length=2, width=0.4)
    return figure


# ------------------------------------------------------------------------------ (7) judge agreement


def _kappa_map(axes: Axes, part: pd.DataFrame, judges: list[str]) -> None:
    size = len(judges)
    grid, text = np.full((size, size), np.nan), np.full((size, size), "", dtype=object)
    for row in part.itertuples():
        i, j = sorted((judges.index(row.judge_a), judges.index(row.judge_b)), reverse=True)
        grid[i, j] = row.kappa
        if np.isfinite(row.kappa):
            text[i, j] = f"{row.kappa:.2f}\n[{row.low:.2f}, {row.high:.2f}]"
    # Agreement with oneself says nothing: the first row and the last column are left out.
    sns.heatmap(
        grid[1:, :-1],
        ax=axes,
        annot=text[1:, :-1],
        fmt="",
        cmap="crest",
        vmin=0,
        vmax=1,
        cbar=False,
        linewidths=0.5,
        annot_kws={"fontsize": 6.5},
        xticklabels=judges[:-1],
        yticklabels=judges[1:],
    )
    axes.tick_params(length=0)
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)


@_styled
def judge_agreement(agreement: pd.DataFrame) -> Figure:
    """Cohen's kappa of every pair of judges, one panel per prompt label, all models together."""
    frame = agreement[agreement["metric"] == "refused"] if "metric" in agreement else agreement
    frame = frame.dropna(subset="kappa") if len(frame) else frame
    _require(len(frame) > 0, "Fewer than two judges scored the same completions.")
    model = "all" if (frame["model"] == "all").any() else frame["model"].iloc[0]
    frame = frame[frame["model"] == model]
    judges = list(dict.fromkeys([*frame["judge_a"], *frame["judge_b"]]))
    datasets = list(frame["dataset"].unique())
    figure = _figure(TEXT_WIDTH if len(datasets) > 1 else COLUMN_WIDTH, 0.6 + 0.38 * len(judges))
    panels = np.atleast_1d(figure.subplots(1, len(datasets), sharey=True))
    for axes, dataset in zip(panels, datasets, strict=True):
        _kappa_map(axes, frame[frame["dataset"] == dataset], judges)
        axes.set_title(str(dataset))
    return figure


# ------------------------------------------------------------------------------------ (8) behaviour


@_styled
def baseline_behaviour(summary: pd.DataFrame, judge: str = "substring") -> Figure:
    """Share of each prompt label refused by every model without intervention, with intervals."""
    names = find(recipes(summary), operator="none")
    rows = summary[
        summary["intervention"].isin(names)
        & (summary["metric"] == "refused")
        & (summary["judge"] == judge)
        & summary["model"].isin(models_of(summary))
    ]
    _require(len(rows) > 0, "The unsteered models were not scored.")
    models = models_of(rows)
    datasets = [d for d in DATASET_TITLES if (rows["dataset"] == d).any()]
    colours = dict(zip(DATASET_TITLES, (VERMILION, BLUE, ORANGE), strict=True))
    figure = _figure(COLUMN_WIDTH, 0.75 + 0.28 * len(models))
    axes = figure.subplots()
    for offset, dataset in zip(np.linspace(-0.2, 0.2, len(datasets)), datasets, strict=True):
        part = rows[rows["dataset"] == dataset].set_index("model")
        for y, model in enumerate(models):
            if model in part.index:
                row = part.loc[model]
                _interval(axes, row["low"], row["high"], y + offset, colours[dataset])
                axes.plot(row["value"], y + offset, "o", color=colours[dataset], markersize=4)
        axes.plot([], [], "o", color=colours[dataset], label=DATASET_TITLES[dataset])
    axes.set(xlim=(-0.03, 1.03), ylim=(len(models) - 0.5, -0.5), xlabel="share refused, unsteered")
    axes.set_yticks(range(len(models)), models)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    figure.legend(loc="outside upper center", ncols=3)
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


def draw(name: str, frames: Mapping[str, pd.DataFrame], stem: Path, rule: str) -> dict:
    """Draw figure `name` of `FIGURES` and write `<stem>.pdf`, `<stem>.png` and `<stem>.json`.

    The json says which rule made the figure and whether there was anything to draw: keys `name`,
    `rule`, `available` and `reason` (a sentence, or null).
    """
    recipe, reason = FIGURES[name], None
    try:
        figure = recipe.function(*(frames[key] for key in recipe.frames))
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
