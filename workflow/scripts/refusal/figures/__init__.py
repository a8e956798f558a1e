"""Figures of the paper: tidy result tables in, matplotlib figures out.

Every drawing function is pure: it takes frames of the study and returns a
`matplotlib.figure.Figure`; it raises `NothingToDraw` (a sentence for the reader) when the study
did not measure what the figure shows. `draw` looks a figure up by name, and `save` writes it as
vector PDF and PNG without dates or program versions, so that equal inputs give equal files.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from refusal.figures.agreement import judge_agreement
from refusal.figures.before_tuning import before_tuning
from refusal.figures.behaviour import baseline_behaviour
from refusal.figures.candidates import candidate_map
from refusal.figures.comparison import refusal_by_intervention
from refusal.figures.discussion import offset, tokens
from refusal.figures.heads import patched_heads
from refusal.figures.inlp import inlp_accuracy
from refusal.figures.kinds import kind_ablation, kind_cosines, kind_span
from refusal.figures.knob import trade_off
from refusal.figures.landing import landing_picture
from refusal.figures.off_distribution import off_distribution
from refusal.figures.planted import difference_split, oracle_gap, recovery_by_directions
from refusal.figures.projections import projection_histograms
from refusal.figures.sparse_features import shared_features
from refusal.figures.style import COLUMN_WIDTH, STYLE, new_figure, require, styled
from refusal.figures.styles import style_confusion, style_distribution
from refusal.figures.suffix import suffix_cosines, suffix_heads
from refusal.figures.sweeps import alpha_sweep, k_sweep
from refusal.figures.windows import window_maps
from refusal.reading import NothingToDraw


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
    "off_distribution": FigureRecipe(off_distribution, ("landing", "summary")),
    "offset": FigureRecipe(offset, ("summary",)),
    "tokens": FigureRecipe(tokens, ("summary",)),
    "before_tuning": FigureRecipe(before_tuning, ("before_tuning_cosines",)),
    "windows": FigureRecipe(window_maps, ("windows_map", "summary")),
    "suffix_cosines": FigureRecipe(suffix_cosines, ("suffix_cosines",)),
    "suffix_heads": FigureRecipe(suffix_heads, ("suffix_heads", "suffix_attention")),
    "heads": FigureRecipe(patched_heads, ("heads_curve",)),
    "kinds_cosines": FigureRecipe(kind_cosines, ("kinds_cosines",)),
    "kinds_ablation": FigureRecipe(kind_ablation, ("kinds_ablation", "kinds_cosines")),
    "kinds_span": FigureRecipe(kind_span, ("kinds_span",)),
    "knob": FigureRecipe(trade_off, ("knob_curves", "knob_chosen")),
    "styles": FigureRecipe(style_distribution, ("styles_distribution",)),
    "style_confusion": FigureRecipe(style_confusion, ("styles_confusion",)),
    "sparse_features": FigureRecipe(shared_features, ("sparse_features_sharing",)),
    "planted_gap": FigureRecipe(oracle_gap, ("planted_methods",)),
    "planted_recovery": FigureRecipe(
        recovery_by_directions, ("planted_recovery", "planted_organisms")
    ),
    "planted_split": FigureRecipe(difference_split, ("planted_parts",)),
}


@styled
def _blank(sentence: str) -> Figure:
    """Stands in for a figure that could not be drawn, so that every rule has its output."""
    figure = new_figure(COLUMN_WIDTH, 0.6)
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
    require(not missing, f"The study has no table of {' and '.join(missing)}.")
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
