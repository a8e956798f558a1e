"""How every figure looks: palette, sizes, axes and legends."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from refusal.reading import NothingToDraw

STYLE = Path(__file__).with_name("style.mplstyle")
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
MODEL_MARKERS = "osD^vP*X<>"
DATASET_COLOURS = {"harmful": VERMILION, "harmless": BLUE, "borderline": ORANGE}
DATASET_MARKERS = {"harmful": "s", "harmless": "o", "borderline": "^"}
HALO = {"path_effects": [withStroke(linewidth=1.6, foreground="white")], "zorder": 6}
LOG_COST = 3.0  # perplexity ratios beyond this are drawn on a logarithmic axis


def styled(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the figure style whatever the caller's settings are."""

    @wraps(function)
    def wrapper(*args, **kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcParams.update(mpl.rcParamsDefault)
            mpl.style.use(STYLE)
            return function(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, laid out by matplotlib's constrained layout."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.03)
    return figure


def require(condition: bool, message: str) -> None:
    """Raise NothingToDraw with a sentence for the reader unless there is something to draw."""
    if not condition:
        raise NothingToDraw(message)


def panel_letter(axes: Axes, letter: str, title: str) -> None:
    """Title a panel as "(a) title"."""
    axes.set_title(f"({letter}) {title}", loc="left")


def draw_interval(
    axes: Axes, low: float, high: float, at: float, colour: str, vertical=False
) -> None:
    """A bar from low to high; nothing when the interval is unknown."""
    if np.isfinite([low, high]).all():
        xs, ys = ([at, at], [low, high]) if vertical else ([low, high], [at, at])
        axes.plot(xs, ys, color=colour, linewidth=1.1, solid_capstyle="butt", zorder=3)


def share_axis(axis: Axis) -> None:
    """The one axis of every share: 0 to 1 in quarters."""
    axis.axes.set(**{f"{axis.axis_name}lim": (-0.04, 1.04)})
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])


def cost_axis(axis: Axis, values: Sequence[float]) -> None:
    """Multiples of the unsteered perplexity: linear, or logarithmic when they span much."""
    if np.nanmax(values, initial=1.0) > LOG_COST:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def scale_ticks(axes: Axes, most: float) -> None:
    """A logarithmic x axis of steps, labelled with round numbers."""
    axes.set_xscale("log")
    axes.set_xticks([tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= max(most, 2)])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def open_marker(marker: str, colour: str = GREY) -> dict:
    """Look of a single model beside the pooled estimate."""
    return {
        "marker": marker,
        "linestyle": "none",
        "color": colour,
        "markerfacecolor": "white",
        "markersize": 3,
        "markeredgewidth": 0.7,
    }


def model_points(axes: Axes, values: Mapping[str, float], y: float) -> None:
    """Open markers of the single models around one line; nothing for one model alone."""
    if len(values) > 1:
        offsets = np.linspace(-0.3, 0.3, len(values))
        for marker, value, offset in zip(MODEL_MARKERS * 3, values.values(), offsets, strict=False):
            axes.plot(value, y + offset, **open_marker(marker), zorder=2)


def estimate_handles(models: Sequence[str], what: str = "") -> list[Line2D]:
    """Legend of the pooled dot with its interval, and of the open markers of several models."""
    name = f"mean over models{what}" if len(models) > 1 else f"{models[0]}{what}"
    pooled = Line2D([], [], color=BLACK, marker="o", markersize=4.5, linewidth=1.1, label=name)
    single = zip(MODEL_MARKERS * 3, models, strict=False) if len(models) > 1 else ()
    return [pooled, *(Line2D([], [], **open_marker(marker), label=m) for marker, m in single)]


def legend(figure: Figure, handles: Sequence, columns: int = 7, length: float = 1.4) -> None:
    """One legend above all panels, with at most `columns` entries per line."""
    place = {"loc": "outside upper center", "ncols": min(len(handles), columns)}
    spacing = {"columnspacing": 1.2, "handletextpad": 0.5, "handlelength": length}
    figure.legend(handles=handles, **place, **spacing)
