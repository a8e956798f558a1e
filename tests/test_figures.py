"""Figures: what is drawn equals what the tables say, degenerate studies, reproducible files."""

import json
from dataclasses import replace
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import synthetic_results as synthetic
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from refusal import figures, reading
from refusal.discussion import offset_table
from refusal.figures import FIGURES, style
from refusal.figures.candidates import candidate_map
from refusal.figures.comparison import refusal_by_intervention
from refusal.figures.landing import landed, landing_rows
from refusal.figures.sweeps import k_sweep
from refusal.reading import NothingToDraw

ONE_MODEL = replace(synthetic.SUPPORTED, models=("neox-0",))


def frames_of(scenario: synthetic.Scenario) -> dict[str, pd.DataFrame]:
    names = [name for name in figures.frames_needed() if hasattr(synthetic, name)]
    return {name: getattr(synthetic, name)(scenario) for name in names}


def drawn(name: str, frames: dict[str, pd.DataFrame]) -> Figure:
    recipe = FIGURES[name]
    return recipe.function(*(frames[key] for key in recipe.frames))


@pytest.fixture(scope="module")
def four() -> dict[str, pd.DataFrame]:
    return frames_of(synthetic.SUPPORTED)


@pytest.fixture(scope="module")
def one() -> dict[str, pd.DataFrame]:
    return frames_of(ONE_MODEL)


@pytest.fixture(scope="module")
def pictures(four) -> dict[str, Figure]:
    """Every figure of the study with four models, laid out once."""
    known = [name for name, recipe in FIGURES.items() if set(recipe.frames) <= set(four)]
    made = {name: drawn(name, four) for name in known}
    for figure in made.values():
        figure.draw_without_rendering()
    return made


def texts(figure: Figure) -> list[Text]:
    """Every visible, non-empty text of the figure."""
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def segments(axes, colour: str) -> set[tuple[float, float]]:
    """(low, high) of the horizontal intervals drawn in a colour."""
    lines = [line for line in axes.lines if line.get_color() == colour]
    return {
        tuple(np.round(line.get_xdata().astype(float), 9))
        for line in lines
        if len(line.get_xdata()) == 2 and line.get_marker() == "None"
    }


# ------------------------------------------------------------------------------- every figure


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_written_with_its_origin(name, one, tmp_path):
    record = figures.draw(name, one, tmp_path / name, "figures")
    assert record == {"name": name, "rule": "figures", "available": True, "reason": None}
    assert json.loads((tmp_path / f"{name}.json").read_text()) == record
    assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_the_page_and_are_readable(name, pictures):
    figure = pictures[name]
    width, height = figure.get_size_inches()
    assert width in (style.COLUMN_WIDTH, style.TEXT_WIDTH)
    assert height < (6 if name == "kinds_ablation" else 5)  # eighteen rows, two lines of models
    assert min(text.get_fontsize() for text in texts(figure)) >= 7
    inside = figure.bbox.padded(0.5)
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1, f"{name}: text is clipped"
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1, f"{name}: text is clipped"


def labels_of(axes: Axes) -> list[Text]:
    """Title, axis labels and tick labels of a panel, as far as they are shown."""
    labels = [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
    for axis, bounds in ((axes.xaxis, axes.get_xbound()), (axes.yaxis, axes.get_ybound())):
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
        labels += [label for place, label in ticks if bounds[0] <= place <= bounds[1]]
    return [label for label in labels if label.get_visible() and label.get_text()]


@pytest.mark.parametrize("name", FIGURES)
def test_labels_do_not_overlap(name, pictures):
    shown = [label for axes in pictures[name].axes if axes.axison for label in labels_of(axes)]
    boxes = [(label.get_text(), label.get_window_extent().padded(-0.5)) for label in shown]
    for (text, box), (other, second) in combinations(boxes, 2):
        assert not box.overlaps(second), f"{name}: {text!r} on {other!r}"


@pytest.mark.parametrize("name", ["candidates", "landing"])
def test_equal_inputs_give_equal_files(name, one, tmp_path):
    for copy in ("first", "second"):
        figures.draw(name, one, tmp_path / copy, "figures")
    for suffix in ("pdf", "png"):
        first, second = (tmp_path / f"{copy}.{suffix}" for copy in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_files_carry_no_date_and_no_program(one, tmp_path):
    figures.draw("behaviour", one, tmp_path / "behaviour", "figures")
    pdf, png = ((tmp_path / f"behaviour.{suffix}").read_bytes() for suffix in ("pdf", "png"))
    assert b"Date" not in pdf and b"atplotlib" not in pdf
    assert b"atplotlib" not in png


def test_the_style_of_the_caller_does_not_matter(one):
    with mpl.rc_context({"font.size": 30, "axes.labelsize": 30}):
        figure = drawn("behaviour", one)
    assert figure.axes[0].xaxis.label.get_fontsize() == 8


# --------------------------------------------------------------------------- degenerate studies


MISSING = {
    "refusal": ("summary", lambda table: table[table["metric"] != "refused"]),
    "k_sweep": ("summary", lambda table: table[~table["k"].isin(["1", "2", "4", "8", "16"])]),
    "alpha_sweep": ("summary", lambda table: table[~table["alpha"].isin([0.25, 0.5, 1.5])]),
    "landing": ("landing", lambda table: table.iloc[:0]),
    "inlp_accuracy": ("cosines", lambda table: table.iloc[:0]),
    "candidates": (
        "selection",
        lambda table: table.assign(bypass=np.nan, induce=np.nan, kl=np.nan),
    ),
    "agreement": ("agreement", lambda table: table.assign(kappa=np.nan)),
    "behaviour": ("summary", lambda table: table[table["operator"] != "none"]),
    "projections": ("projections", lambda table: table.iloc[:0]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_what_was_not_measured_is_said_in_a_sentence(name, one):
    empty = (FIGURES[name].frames[0], lambda table: table.iloc[:0])
    frame, change = MISSING.get(name, empty)
    with pytest.raises(NothingToDraw, match=r"^[A-Z].+\.$"):
        drawn(name, one | {frame: change(one[frame])})


def test_a_missing_figure_still_leaves_its_files(tmp_path):
    record = figures.draw("projections", {}, tmp_path / "projections", "figures")
    assert record["available"] is False
    assert record["reason"] == "The study has no table of projections."
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png", ".json"}


@pytest.mark.parametrize("name", FIGURES)
def test_unknown_intervals_are_left_out(name, one):
    frames = {
        key: table.assign(low=np.nan, high=np.nan) if "low" in table else table
        for key, table in one.items()
    }
    drawn(name, frames).draw_without_rendering()


def test_the_mean_over_one_model_is_not_used(one, four):
    assert reading.pooled_name(one["summary"]) == "neox-0"
    assert reading.pooled_name(four["summary"]) == "mean"


def test_the_oracle_judges_where_it_can(one):
    summary = one["summary"]
    assert reading.judge_of(summary) == "oracle"
    blind = summary.copy()
    blind.loc[blind["judge"] == "oracle", "value"] = np.nan
    assert reading.judge_of(blind) == "substring"
    assert "(substring)" in drawn("behaviour", {"summary": blind}).axes[0].get_xlabel()
    assert "(oracle)" in drawn("behaviour", {"summary": summary}).axes[0].get_xlabel()


# ----------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("scenario", [synthetic.SUPPORTED, ONE_MODEL], ids=["four", "one"])
def test_drawn_intervals_are_those_of_the_table(scenario):
    summary = synthetic.summary(scenario)
    model = reading.pooled_name(summary)
    figure = refusal_by_intervention(summary)
    table = reading.recipes(summary)
    for axes, dataset in zip(figure.axes, ("harmful", "harmless", "borderline"), strict=True):
        rates = reading.estimates(summary, "refused", dataset, "oracle", model)
        for direction in ("", "dim", "leace"):
            names = [name for _, name, _ in reading.resolve_rows(summary)]
            names = [name for name in names if table.loc[name, "direction"] == direction]
            bounds = rates.loc[names, ["low", "high"]].round(9)
            expected = set(bounds.itertuples(index=False, name=None))
            assert segments(axes, style.DIRECTION_COLOURS[direction]) == expected


def test_random_controls_are_drawn_as_the_range_of_their_draws(four):
    rows = {row.key: controls for row, _, controls in reading.resolve_rows(four["summary"])}
    assert rows["DimAblation"] == [f"random_ablation-draw{draw}" for draw in range(5)]
    rates = reading.estimates(four["summary"], "refused", "harmful", "oracle")["value"]
    bars = refusal_by_intervention(four["summary"]).axes[0].patches
    spread = rates[rows["DimAblation"]]
    assert bars[0].get_x() == pytest.approx(spread.min() - 0.004)
    assert bars[0].get_width() == pytest.approx(np.ptp(spread) + 0.008)


def test_the_sweep_over_k_is_drawn_in_order(four, pictures):
    rates = reading.estimates(four["summary"], "refused", "harmful", "oracle")["value"]
    line = pictures["k_sweep"].axes[0].lines[0]
    wanted = [f"inlp_projection-k{k}-source" for k in synthetic.KS]
    np.testing.assert_allclose(line.get_ydata(), rates[wanted])
    assert list(line.get_xdata()) == sorted(line.get_xdata())


def test_an_expensive_sweep_gets_a_logarithmic_axis(four):
    summary = four["summary"].copy()
    assert k_sweep(summary).axes[1].get_yscale() == "linear"
    expensive = (summary["metric"] == "perplexity_ratio") & (summary["k"] == "full")
    summary.loc[expensive, ["value", "low", "high"]] *= 20
    assert k_sweep(summary).axes[1].get_yscale() == "log"


def test_sweeps_are_drawn_without_perplexity(one):
    summary = one["summary"][one["summary"]["metric"] == "refused"]
    for name, cost in (("k_sweep", 1), ("alpha_sweep", 2)):
        figure = drawn(name, {"summary": summary})
        assert figure.axes[0].lines
        assert all(np.all(np.asarray(line.get_ydata()) == 1) for line in figure.axes[cost].lines)


def test_landing_places_are_compared_at_their_own_candidate(four):
    landing = four["landing"]
    rows = landing_rows(landing, four["summary"])
    assert [row.name for row in rows] == [
        "DiM ablation",
        "DiM reflection",
        "INLP projection",
        "INLP flipping",
    ]
    for row in rows:
        places = landed(landing, "llama-0", row)
        dim = row.name.startswith("DiM")
        assert places.candidate == (synthetic.DIM_CANDIDATE if dim else synthetic.INLP_CANDIDATE)
        for points in (places.harmless, places.harmful, places.moved):
            assert len(points) == points["id"].nunique() == 40
            assert set(zip(points["position"], points["layer"], strict=True)) == {places.candidate}
        assert set(places.harmful["intervention"]) == {"none"}


def test_candidate_maps_write_every_score_and_mark_the_choice(four, pictures):
    selection = four["selection"]
    rows = selection[(selection["method"] == "dim") & (selection["scope"] == "all")]
    figure = pictures["candidates"]
    for axes, (_, part) in zip(figure.axes, rows.groupby("model", sort=False), strict=False):
        written = sorted(text.get_text() for text in axes.texts)
        known = part["bypass"].dropna()
        assert written == sorted(f"{v:.1f}".replace("-", reading.MINUS) for v in known)
        hatched = [patch for patch in axes.patches if patch.get_hatch()]
        assert len(hatched) == (part["bypass"].notna() & ~part["passed"]).sum()
        framed = [patch for patch in axes.patches if patch.get_hatch() is None]
        chosen = part[part["selected"]].iloc[0]
        assert len(framed) == 1
        assert int(framed[0].get_y()) == chosen["layer"]
        assert int(framed[0].get_x()) == synthetic.POSITIONS.index(chosen["position"])


def test_a_fallback_is_framed_with_dashes():
    figure = candidate_map(synthetic.selection(replace(synthetic.UNMEASURED, models=("neox-0",))))
    framed = [patch for patch in figure.axes[0].patches if patch.get_hatch() is None]
    assert [patch.get_linestyle() for patch in framed] != ["-"]
    assert "used although rejected" in [text.get_text() for text in figure.legends[0].texts]


def test_agreement_names_the_judges_and_their_number(four, pictures):
    panels = pictures["agreement"].axes
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [
        "substring \u2013 prefix",
        "substring \u2013 oracle",
        "prefix \u2013 oracle",
    ]
    assert panels[0].get_title() == "harmful, $n$ = 5,000"
    rows = four["agreement"]
    rows = rows[(rows["model"] == "all") & (rows["dataset"] == "harmful")]
    bounds = set(rows[["low", "high"]].round(9).itertuples(index=False, name=None))
    assert segments(panels[0], style.BLACK) == bounds


def test_projections_mark_zero_in_every_panel(four, pictures):
    panels = pictures["projections"].axes
    assert [axes.get_title() for axes in panels] == list(synthetic.MODELS)
    for axes in panels:
        assert [list(line.get_xdata()) for line in axes.lines] == [[0, 0]]
        low, high = axes.get_xlim()
        assert low < 0 < high


def test_labels_follow_the_recipe_not_the_name(four):
    table = reading.recipes(four["summary"])
    names = {
        "none": "No intervention",
        "dim_ablation": "DiM ablation (all)",
        "dim_addition-strength-1.0": f"DiM addition {reading.MINUS}1 (source)",
        "inlp_flipping-k4-source": "INLP flipping, k = 4 (source)",
        "affine_ablation-harmless": "DiM ablation, origin harmless (source)",
        "leace": "LEACE erasure (source)",
    }
    assert {name: reading.label(table.loc[name]) for name in names} == names


def test_frames_needed_are_those_of_the_recipes(four):
    assert figures.frames_needed() == set(four), "synthetic_results.py lacks a frame"
    assert figures.frames_needed(["landing"]) == {"landing", "summary"}


# ------------------------------------------------------------- windows, before tuning, discussion


def test_windows_write_every_share_and_frame_the_choice(four, pictures):
    panels = [axes for axes in pictures["windows"].axes if axes.get_xlabel() == "first layer"]
    assert len(panels) == len(synthetic.MODELS)
    rows = four["windows_map"].query("split == 'test' and label == 'harmful' and judge == 'oracle'")
    for axes, (model, part) in zip(panels, rows.groupby("model", sort=False), strict=True):
        written = sorted(text.get_text() for text in axes.texts)
        known = part.loc[part["length"] > 0, "value"]
        assert written == sorted(f"{value:.2f}".removeprefix("0") for value in known)
        assert axes.get_title() == f"{model} (none: .95)"
        places = {(round(p.get_x()), round(p.get_y())) for p in axes.patches}
        assert places == {(1, 1), (1, 2)}  # start 1; two and three layers


def test_windows_without_a_choice_have_no_frame(four):
    summary = four["summary"]
    blind = summary[~summary["metric"].str.endswith(("window_start", "window_length"))]
    figure = drawn("windows", {"windows_map": four["windows_map"], "summary": blind})
    assert not any(axes.patches for axes in figure.axes if axes.get_xlabel() == "first layer")


def test_before_tuning_draws_each_checkpoint_and_the_levels_of_chance(four, pictures):
    panels = pictures["before_tuning"].axes
    models = len(synthetic.MODELS)
    cosine, difference, separation = (panels[row * models] for row in range(3))
    rows = four["before_tuning_cosines"].query("model == 'neox-0' and quantity == 'cosine'")
    drawn_lines = {tuple(line.get_ydata()) for line in cosine.lines if len(line.get_xdata()) == 4}
    wanted = rows.groupby(["checkpoint", "label"])["value"].agg(tuple)
    assert drawn_lines == set(wanted)
    assert len(difference.collections) == 3  # two levels of chance and the interval
    assert {line.get_color() for line in separation.lines} > {style.PURPLE, style.GREEN}


def test_off_distribution_moves_both_classes_of_every_model(four, pictures):
    panels = [axes for axes in pictures["off_distribution"].axes if axes.axison]
    titles = [axes.get_title() for axes in panels[:3]]
    assert titles == ["DiM ablation", "INLP projection", "INLP flipping"]
    assert len(panels) == 3 * len(synthetic.MODELS)
    landing = four["landing"].query("model == 'neox-0'")
    n = (landing["intervention"] == "dim_ablation_source").sum()
    assert sum(len(points.get_offsets()) for points in panels[0].collections) == 2 * n


def test_the_offset_draws_both_intervals_and_says_why_there_is_no_correlation(four, one, pictures):
    axes = pictures["offset"].axes[0]
    assert axes.get_title().startswith("correlation") and "4 models" in axes.get_title()
    bars = {tuple(np.ravel(line.get_data())) for line in axes.lines if len(line.get_xdata()) == 2}
    table = offset_table(four["summary"], "oracle")
    for row in table.itertuples():
        x, y = row.offset, row.reduction
        assert {(row.offset_low, row.offset_high, y, y)} <= bars
        assert {(x, x, row.reduction_low, row.reduction_high)} <= bars
    assert "fewer than 4" in drawn("offset", one).axes[0].get_title()


def test_tokens_are_grouped_by_operator_with_the_intervals_of_the_table(four, pictures):
    harmful, harmless = pictures["tokens"].axes
    names = [label.get_text() for label in harmful.get_yticklabels()]
    wanted = ["DiM ablation", "all tokens", "prompt", "last prompt token", "generated"]
    assert names == wanted
    rates = reading.estimates(four["summary"], "refused", "harmless", "oracle")
    shown = ["dim_ablation", *(f"dim_ablation_tokens-{t}" for t in ("prompt", "last", "generated"))]
    bounds = rates.loc[shown, ["low", "high"]].round(9)
    assert segments(harmless, style.BLUE) == set(bounds.itertuples(index=False, name=None))
