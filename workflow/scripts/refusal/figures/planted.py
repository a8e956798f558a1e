"""Planted organisms: oracle gap, recovery of U, and what of DiM mediates refusal."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from refusal.figures.style import (
    BAND,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    TEXT_WIDTH,
    VERMILION,
    draw_interval,
    legend,
    new_figure,
    panel_letter,
    require,
    scale_ticks,
    share_axis,
    styled,
)
from refusal.planted_measures import MEAN
from refusal.planted_reading import METHODS, VARIANTS, group_label, in_order, variants

# Methods of the first figure; their place among the others is that of the legend.
GAP_COLOURS = {
    "dim": BLUE,
    "inlp_first": ORANGE,
    "inlp": VERMILION,
    "inlp_flipping": PURPLE,
    "leace": GREEN,
    "gradient": SKY,
    "cone": BLACK,
    "random": GREY,
}
RECOVERY_LOOKS = {
    "dim": {"color": BLUE, "marker": "o"},
    "leace": {"color": GREEN, "marker": "s"},
    "gradient": {"color": SKY, "marker": "D"},
    "inlp_faithful": {"color": VERMILION},
    "inlp_corrected": {"color": ORANGE, "linestyle": "--"},
    "kinds": {"color": PURPLE, "linestyle": "-."},
    "cone": {"color": BLACK, "linestyle": ":"},
}
RECOVERY_NAMES = {
    "dim": "DiM",
    "leace": "LEACE",
    "gradient": "gradient direction",
    "inlp_faithful": "INLP",
    "inlp_corrected": "INLP corrected",
    "kinds": "span of kinds",
    "cone": "gradient cone",
}
# Methods of one direction stand side by side.
ASIDE = {"dim": 0.92, "gradient": 1.09}
CHANCE = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (1, 2))}
PARTS = {
    ("planted", "inside"): {"color": VERMILION, "marker": "o", "label": "inside $U$"},
    ("planted", "outside"): {"color": BLUE, "marker": "s", "label": "outside $U$"},
    ("helpful_only", "outside"): {
        "color": GREY,
        "marker": "^",
        "linestyle": "--",
        "label": "helpful-only base (all outside $U$)",
    },
}
COLUMNS = 4


def _grouped(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Organisms by planted rank and variant, with the name of the group."""
    for rank, variant in in_order(table[table.planted.notna()]):
        part = table[(table.planted == rank) & (table.variant == variant)]
        n = part[part.organism != MEAN].organism.nunique()
        yield f"{group_label(rank, variant)} ($n$ = {n})", part


def _panels(figure: Figure, n: int) -> np.ndarray:
    """Panels for n groups, at most four in a line; what is left over is blank."""
    columns = min(n, COLUMNS)
    panels = figure.subplots(-(-n // columns), columns, squeeze=False, sharey=True).ravel()
    for axes in panels[n:]:
        axes.set_axis_off()
    return panels


def _panels_of_groups(
    table: pd.DataFrame, fill: Callable[[Axes, pd.DataFrame], None], label: str
) -> tuple[Figure, np.ndarray]:
    """A figure with a filled panel per group, and the panels."""
    groups = list(_grouped(table))
    require(len(groups) > 0, "No planted organism was accepted.")
    figure = new_figure(TEXT_WIDTH, 0.7 + 1.7 * -(-len(groups) // COLUMNS))
    panels = _panels(figure, len(groups))
    for axes, (title, part) in zip(panels, groups, strict=False):
        fill(axes, part)
        axes.set_title(title)
    for axes in panels[::COLUMNS]:
        axes.set_ylabel(label)
    return figure, panels


# ------------------------------------------------------------------------------------- oracle gap


@styled
def oracle_gap(methods: pd.DataFrame) -> Figure:
    """Oracle gap in correct compliance by measured functional rank, a column per method.

    Dots: organisms, open where rejected, crosses where the text is broken (perplexity above its
    bound); bars: mean over accepted ones with its interval.
    """
    known = methods[methods.method.isin(GAP_COLOURS) & methods.functional_rank.notna()]
    kept = known[(known.metric == "oracle_gap_kept") & known.value.notna()]
    gaps = known[(known.metric == "oracle_gap") & known.value.notna()]
    pairs = pd.MultiIndex.from_frame(kept[["organism", "method"]])
    gaps = gaps.assign(kept=pd.MultiIndex.from_frame(gaps[["organism", "method"]]).isin(pairs))
    require(len(gaps) > 0, "No oracle gap of planted organisms was measured.")
    shown = [name for name in VARIANTS if (gaps.variant == name).any()]
    widths = [gaps[gaps.variant == name].functional_rank.nunique() for name in shown]
    figure = new_figure(TEXT_WIDTH, 2.6)
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True, width_ratios=widths)[0]
    for axes, letter, name in zip(panels, "abc", shown, strict=False):
        _gap_panel(axes, gaps[gaps.variant == name])
        panel_letter(axes, letter, f"{name} $U$")
    # Intervals of a few organisms that disagree reach far beyond what any of them does.
    panels[0].set_ylim(min(-0.25, gaps.value.min() - 0.1), max(1.25, gaps.value.max() + 0.1))
    panels[0].set_ylabel("oracle gap (correct compliance)")
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=3, label=METHODS[name].label)
        for name, colour in GAP_COLOURS.items()
        if (gaps.method == name).any()
    ]
    looks = {"color": BLACK, "linestyle": "none", "markersize": 3}
    if not gaps.accepted.all():
        open_dot = {"marker": "o", "markerfacecolor": "white", "label": "rejected"}
        handles.append(Line2D([], [], **looks, **open_dot))
    if not gaps.kept[gaps.organism != MEAN].all():
        handles.append(Line2D([], [], **looks, marker="x", label="broken text"))
    legend(figure, handles, columns=5)
    return figure


def _gap_panel(axes: Axes, gaps: pd.DataFrame) -> None:
    """Columns of one variant: ranks side by side, within each a column per method."""
    ranks = sorted(gaps.functional_rank.unique())
    places = np.linspace(-0.38, 0.38, len(GAP_COLOURS))
    for at, rank in enumerate(ranks):
        for place, (method, colour) in zip(places, GAP_COLOURS.items(), strict=True):
            part = gaps[(gaps.functional_rank == rank) & (gaps.method == method)]
            _gap_column(axes, part, at + place, colour)
    for at in range(len(ranks) - 1):
        axes.axvline(at + 0.5, color="0.85", linewidth=0.6, zorder=0)
    for level in (0, 1):
        axes.axhline(level, color="0.6", linewidth=0.6, linestyle=(0, (4, 2)), zorder=0)
    axes.set_xticks(range(len(ranks)), [f"{rank:g}" for rank in ranks])
    axes.set(xlim=(-0.5, len(ranks) - 0.5), xlabel="measured functional rank")


def _gap_column(axes: Axes, rows: pd.DataFrame, at: float, colour: str) -> None:
    single, means = rows[rows.organism != MEAN], rows[rows.organism == MEAN]
    spread = np.linspace(-0.025, 0.025, len(single)) if len(single) > 1 else [0.0]
    look = {"markersize": 2.4, "markeredgewidth": 0.6, "alpha": 0.8, "zorder": 4}
    for offset, row in zip(spread, single.itertuples(), strict=False):
        face, marker = colour if row.accepted else "white", "o" if row.kept else "x"
        axes.plot(at + offset, row.value, marker, color=colour, markerfacecolor=face, **look)
    for row in means.itertuples():
        axes.plot([at - 0.035, at + 0.035], [row.value] * 2, color=colour, linewidth=1.6, zorder=3)
        draw_interval(axes, row.low, row.high, at, colour, vertical=True)


# --------------------------------------------------------------------------------------- recovery


@styled
def recovery_by_directions(recovery: pd.DataFrame, organisms: pd.DataFrame) -> Figure:
    """Recovery of U against the number of directions, a panel per rank and variant.

    Bold: mean over accepted organisms; thin: single ones. A subspace with fewer directions keeps
    its last value. Grey: chance, with the interval of random subspaces.
    """
    known = organisms[organisms.accepted.astype(bool)].rename(columns={"rank": "planted"})
    known = known.assign(variant=variants(known))[["organism", "planted", "variant"]]
    figure, _ = _panels_of_groups(
        recovery.merge(known, on="organism"), _recovery_panel, "recovery of $U$"
    )
    handles = [
        Line2D([], [], **look, label=RECOVERY_NAMES[name]) for name, look in RECOVERY_LOOKS.items()
    ]
    handles += [Line2D([], [], **CHANCE, label="chance $j/d$"), Patch(color=BAND, label="random")]
    legend(figure, handles, columns=5, length=2.0)
    return figure


def _recovery_panel(axes: Axes, rows: pd.DataFrame) -> None:
    scope = rows.scope.astype(object).where(rows.scope.notna(), "")
    for name, look in RECOVERY_LOOKS.items():
        part = rows[rows.method.str.fullmatch(rf"{name}\d*") & scope.isin(["all", ""])]
        values = part.pivot(index="directions", columns="organism", values="value").ffill()
        if len(values):
            small = {"marker": look.get("marker"), "markersize": 1.5, "alpha": 0.5}
            at = values.index * ASIDE.get(name, 1.0)
            axes.plot(at, values, color=look["color"], linewidth=0.4, **small)
            axes.plot(at, values.mean(axis=1), **look, zorder=3)
    chance = rows.groupby("directions")[["chance", "chance_low", "chance_high"]].mean()
    axes.fill_between(chance.index, chance.chance_low, chance.chance_high, color=BAND, zorder=0)
    axes.plot(chance.index, chance.chance, **CHANCE)
    scale_ticks(axes, rows.directions.max())
    share_axis(axes.yaxis)
    axes.set_xlabel("directions $j$")


# ------------------------------------------------------------------------------------------ split


@styled
def difference_split(parts: pd.DataFrame) -> Figure:
    """Length of the mean difference inside and outside U by layer, of organisms and their bases.

    At the position that the selection of DiM chose. Lines: mean over accepted organisms with its
    interval; small marks: single ones.
    """
    accepted = parts[parts.accepted.astype(bool)]
    figure, panels = _panels_of_groups(accepted, _split_panel, "length of mean difference")
    panels[0].set_ylim(-0.05 * parts.value.max(), 1.1 * parts.value.max())
    legend(figure, [Line2D([], [], **look) for look in PARTS.values()])
    return figure


def _split_panel(axes: Axes, rows: pd.DataFrame) -> None:
    offsets = (-0.08, 0.0, 0.08)
    for offset, ((model, metric), look) in zip(offsets, PARTS.items(), strict=True):
        part = rows[(rows.model == model) & (rows.metric == metric)].sort_values("layer")
        single, means = part[part.organism != MEAN], part[part.organism == MEAN]
        axes.plot(means.layer + offset, means.value, **look, zorder=3)
        small = {"marker": look["marker"], "color": look["color"], "alpha": 0.4, "markersize": 2}
        axes.plot(single.layer + offset, single.value, linestyle="none", **small)
        for row in means.itertuples():
            draw_interval(axes, row.low, row.high, row.layer + offset, look["color"], vertical=True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer (input of block)")
