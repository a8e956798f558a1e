"""What is said of planted organisms, from invented tables: claims, means, sentences, report."""

import re
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import synthetic_planted as synthetic
import yaml
from command_line import clone, snakemake
from synthetic_planted import USUAL, World
from test_docs import described_tables

import closing
from refusal.claims import CONTRADICTED, INCONCLUSIVE, NOT_MEASURED, SUPPORTED, load_claims
from refusal.figures import FIGURES
from refusal.numbers import claim_numbers
from refusal.paper import render
from refusal.planted_claims import groups, planted_summary, signal_share
from refusal.planted_measures import difference_split
from refusal.planted_reading import ORGANISMS_MIN, method_table, parts_table
from refusal.statistics import Intervals

ROOT = Path(__file__).parents[1]
LOUD, QUIET, SILENT = ((1, variant, 1) for variant in ("loud", "quiet", "silent"))
TWO = (2, "quiet", 2)
GRADIENT_SUFFICES = {("gradient_removal-k1", rank, "quiet"): 1.0 for rank in (2, 4)}
QUIET_IS_MISSED = {("dim_removal", 1, "quiet"): -0.03}

# ------------------------------------------------------------------------------------------ claims

WORLDS = {
    "as claimed": (USUAL, {"P1": SUPPORTED, "P2": SUPPORTED, "P3": SUPPORTED}),
    "quiet U is missed": (World(QUIET_IS_MISSED), {"P1": CONTRADICTED, "P2": SUPPORTED}),
    "INLP needs one": (World({"inlp_faithful_removal-k1": 1.0}), {"P1": CONTRADICTED}),
    "broken text": (World(perplexity=1.2), {"P1": CONTRADICTED, "P3": SUPPORTED}),
    "two seeds": (
        World(seeds=2, groups=(LOUD, QUIET, SILENT), rejected=()),
        {"P1": INCONCLUSIVE, "P2": NOT_MEASURED, "P3": SUPPORTED},
    ),
    "loud alone": (World(groups=(LOUD,)), {"P1": NOT_MEASURED, "P2": NOT_MEASURED}),
    "quiet alone": (World(QUIET_IS_MISSED, groups=(QUIET,)), {"P1": CONTRADICTED}),
    "one direction suffices": (World(GRADIENT_SUFFICES), {"P2": CONTRADICTED, "P1": SUPPORTED}),
    "two organisms": (
        World(seeds=2, groups=(TWO,)),
        {"P1": NOT_MEASURED, "P2": INCONCLUSIVE, "P3": INCONCLUSIVE},
    ),
    "the rest mediates": (World({"dim_outside_removal-k1": 0.9}), {"P3": CONTRADICTED}),
    "no harmfulness": (World(noise=True), {"P3": CONTRADICTED}),
    "none accepted": (
        World(groups=(LOUD,), rejected=tuple(f"llama-0-k1-loud-{seed}" for seed in range(3))),
        {"P1": NOT_MEASURED, "P2": NOT_MEASURED, "P3": NOT_MEASURED},
    ),
}


@pytest.mark.parametrize("name", WORLDS)
def test_the_data_decide_every_claim(name):
    world, expected = WORLDS[name]
    found = synthetic.verdicts(world)
    assert {claim: found[claim]["overall"]["verdict"] for claim in expected} == expected


def test_every_claim_can_have_every_verdict():
    reached = {(claim, v) for _, expected in WORLDS.values() for claim, v in expected.items()}
    every = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_MEASURED)
    assert reached == {(claim, verdict) for claim in ("P1", "P2", "P3") for verdict in every}


def test_claims_are_read_where_their_experiment_is():
    path = ROOT / "paper" / "claims.yaml"
    planted, models = load_claims(path, "planted"), load_claims(path)
    assert list(planted) == ["P1", "P2", "P3"] and not set(planted) & set(models)
    assert len(planted) + len(models) == len(yaml.safe_load(path.read_text()))


def test_an_interval_takes_three_accepted_organisms_and_no_seed_is_left_out():
    made = synthetic.tables()
    summary = planted_summary(made, 0.95)
    listed = made["organisms"]
    for group, names in groups(listed).items():
        rows = summary[(summary.dataset == group) & (summary.metric == "oracle_gap")]
        rows = rows[~rows.intervention.str.match("oracle|random")]  # named by the rank of U
        assert set(rows.n) == {len(names)}
        one = made["outcomes"].query("metric == 'oracle_gap' and intervention == 'dim_removal'")
        mean = one[one.organism.isin(names)].value.mean()
        assert rows.set_index("intervention").value["dim_removal"] == pytest.approx(mean)
    assert groups(listed)["planted"] == list(listed.organism[listed.accepted])
    few = planted_summary(synthetic.tables(World(seeds=ORGANISMS_MIN - 1, groups=(LOUD,))), 0.95)
    assert few.low.isna().all() and few.reason.str.contains("takes 3").all()


@pytest.mark.parametrize("distance", [0.0, 3.0])
def test_signal_is_what_sampling_noise_does_not_explain(distance):
    """Of the squared length, mean of repeated draws; never more than there is."""
    rng = np.random.default_rng(0)
    width, n, draws = 48, 60, 30
    shift = np.zeros(width)
    shift[0] = distance
    found = []
    for _ in range(draws):
        classes = rng.standard_normal((2, n, width)) + np.stack([shift, 0 * shift])[:, None]
        split = difference_split(*classes, np.eye(width)[:1], Intervals(0.95, 200, 0))
        found.append(signal_share(*split["length"]))
    expected = distance**2 / (distance**2 + 2 * width / n)
    assert expected - 0.25 < np.mean([share.value for share in found]) < expected + 0.05
    assert {share.low > 0 for share in found} == {distance > 0}


# ------------------------------------------------------------------------------------------- means


def test_methods_take_their_whole_subspace_and_the_mean_of_draws():
    made = dict(synthetic.tables())
    outcomes = made["outcomes"]
    part = outcomes[outcomes.intervention == "cone4_removal-k4"]
    smaller = part.assign(intervention="cone4_removal-k1", rank=1.0, value=-9.0)
    larger = part.assign(rank=4.0)
    drawn = outcomes.intervention.str.endswith("draw1")
    other = outcomes[drawn].assign(rank=8.0, intervention="random_removal-k8-draw1", value=-9.0)
    outcomes = outcomes.assign(value=outcomes.value + drawn)
    made["outcomes"] = pd.concat(
        [outcomes[outcomes.intervention != "cone4_removal-k4"], smaller, larger, other]
    )
    before, after = (method_table(t, 0.95) for t in (synthetic.tables(), made))
    keys = ["organism", "method", "metric", "planted", "functional_rank", "variant"]
    values = [t.set_index(keys).value for t in (before, after)]
    change = (values[1] - values[0]).groupby("method").agg(["min", "max"])
    assert change.loc["random"].tolist() == pytest.approx([0.5, 0.5])
    assert change.drop("random").abs().max().max() < 1e-12


def test_the_split_is_taken_where_the_difference_was_selected():
    made = dict(synthetic.tables())
    split = made["split"]
    elsewhere = split.position != synthetic.TAKEN[0]
    made["split"] = split.assign(value=split.value.where(~elsewhere, np.nan))
    pd.testing.assert_frame_equal(parts_table(made, 0.95), synthetic.planted_parts())
    assert parts_table(made, 0.95).value.notna().all()


# ---------------------------------------------------------------------------------------- the text


@cache
def text_of(world: World) -> str:
    """The section, in one line."""
    planted = synthetic.section(world)
    record = {"available": True, "rule": "planted_shown", "reason": None}
    names = ("planted_gap", "planted_recovery", "planted_split")
    context = {
        "config": yaml.safe_load((ROOT / "config.yaml").read_text()),
        "figures": {name: {"name": name, **record} for name in names},
        "planted": planted,
    }
    numbers = claim_numbers(planted["claims"])
    text, _ = render(ROOT / "paper", numbers, context, "planted.tex.j2")
    return " ".join(text.split())


NONE_ACCEPTED = WORLDS["none accepted"][0]
SENTENCES = [
    ("makes no difference to the difference in means", USUAL, World(QUIET_IS_MISSED)),
    ("changes what the difference in means wins", World(QUIET_IS_MISSED), USUAL),
    ("these organisms are too few to say", WORLDS["two seeds"][0], USUAL),
    ("refusal has a handle outside $U$", World(GRADIENT_SUFFICES), USUAL),
    ("In 1 the functional rank is below the planted one", USUAL, WORLDS["two seeds"][0]),
    ("No organism was accepted", NONE_ACCEPTED, USUAL),
    ("The filters of the selection of DiM reject $U$ itself", USUAL, NONE_ACCEPTED),
    ("some place would leave refusal less likely than not", World(bypass=-2.0), USUAL),
    (r"recovers \num{0.19} to \num{0.21} of $U$", USUAL, NONE_ACCEPTED),
    ("14 are accepted", USUAL, NONE_ACCEPTED),
]


@pytest.mark.parametrize("sentence, where, elsewhere", SENTENCES)
def test_sentences_follow_the_data(sentence, where, elsewhere):
    assert sentence in text_of(where)
    assert sentence not in text_of(elsewhere)


def test_every_organism_is_drawn_and_broken_text_is_crossed():
    figure = FIGURES["planted_gap"].function(synthetic.planted_methods())
    markers = {"o": 0, "x": 0, "open": 0}
    for line in (line for axes in figure.axes for line in axes.lines):
        if line.get_marker() in markers:
            is_open = line.get_markerfacecolor() == "white" and line.get_marker() == "o"
            markers["open" if is_open else line.get_marker()] += 1
    # Eight methods on fifteen organisms, of which one is rejected; one method breaks text.
    assert markers == {"o": 7 * 14, "open": 7, "x": 15}


@pytest.mark.parametrize("name", ["as claimed", "quiet U is missed", "none accepted"])
def test_the_text_gives_the_verdicts(name):
    world, _ = WORLDS[name]
    said = re.findall(r"\\paragraph\{(P\d)\.\}.*?Verdict: \\emph\{([a-z ]+)\}", text_of(world))
    verdicts = synthetic.verdicts(world)
    assert said == [(claim, found["overall"]["verdict"]) for claim, found in verdicts.items()]


# --------------------------------------------------------------------------------- the command line

KINDS = yaml.safe_load((ROOT / "studies" / "planted.yaml").read_text())["planted"]["organisms"]
TABLES = ("outcomes", "recovery", "split", "candidates")
RULES = ["config", "planted_summary", "planted_shown", "planted_report"]


def test_the_study_ends_with_a_report(tmp_path, capsys):
    """From the tables that its estimators write."""
    folder = clone(tmp_path / "clone")
    planted = folder / "results" / "planted" / "planted"
    made = dict(synthetic.tables())
    for base, kind, seed in product(("llama-0", "qwen2-0"), KINDS, range(3)):
        organism = f"{base}-{kind}-{seed}"
        (planted / organism / "estimators").mkdir(parents=True)
        for name in TABLES:
            rows = made[name][made[name].organism == organism].astype({"seed": "Int64"})
            rows.to_parquet(planted / organism / "estimators" / f"{name}.parquet")
    made["organisms"].to_parquet(planted / "organisms.parquet")
    synthetic.rates().to_parquet(planted / "rates.parquet")
    target = "results/planted/planted/report.pdf"
    done = snakemake(folder, target, "--allowed-rules", *RULES, study="studies/planted.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    assert (folder / target).read_bytes().startswith(b"%PDF")
    described = described_tables()
    for name in ("methods", "parts", "summary"):
        written = pq.read_schema(planted / f"{name}.parquet").names
        assert written == described[f"planted/{name}.parquet"], name
    closing.main(planted.parent, 61)
    assert "planted/report.pdf" in capsys.readouterr().out
