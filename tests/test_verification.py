"""Verifying a run: that of the expected values passes, and what is changed in it is found."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_run import CLAIM, write, write_run

from refusal.artifact import render_artifact
from refusal.benchmarks import read_benchmarks
from refusal.claims import evaluate_claims, load_claims, save_verdicts
from refusal.compare import Tolerance
from refusal.consistency import check_consistency
from refusal.errors import InputError
from refusal.expected import make_expected, read_expected, read_tolerances, save_expected
from refusal.figures import FIGURES
from refusal.finished_run import open_run
from refusal.tables import TABLES
from refusal.verification import Verification, report, verify

ROOT = Path(__file__).parents[1]
FLOORS = Tolerance(0.05, {})
KEY = ["model", "intervention", "dataset", "metric", "judge"]
QUOTED = r"\defineresult{none/harmful/refused/substring}{.9}" + "\n"
SUMMARY, COMPARISONS = "statistics/summary.parquet", "statistics/comparisons.parquet"


def made(folder: Path) -> Path:
    """A run whose files follow from each other, as those of a real one do."""
    write_run(folder)
    shutil.rmtree(folder / "scores")  # invented apart from the summary
    for name in (SUMMARY, COMPARISONS):
        mean_over_models(folder / name)
    judge_again(folder)
    (folder / "paper").mkdir()
    (folder / "paper" / "numbers.tex").write_text(QUOTED)
    line = {"s": 2.0, "h:m:s": "0:00:02", "max_rss": "-", "cpu_time": 1.5}
    (folder / "benchmarks" / "organism").mkdir(parents=True)
    for model, memory in (("neox-0", "-"), ("llama-0", 300.0)):
        table = pd.DataFrame([line | {"max_rss": memory}])
        table.to_csv(folder / "benchmarks" / "organism" / f"{model}.tsv", sep="\t", index=False)
    return folder


def mean_over_models(path: Path) -> None:
    """Take the rows "mean" again from those of the models, of ratios the geometric mean."""
    table = pd.read_parquet(path)
    value = "value" if "value" in table else "difference"
    ratio = table["metric"].eq("perplexity_ratio") & (value == "value")
    keys = [key for key in (*KEY, "left", "right") if key in table and key != "model"]
    number = table[value].where(~ratio, np.log(table[value].where(ratio)))
    models = table.assign(number=number.where(table["model"] != "mean"))
    mean = models.groupby(keys, dropna=False)["number"].transform("mean")
    mean = mean.where(~ratio, np.exp(mean.where(ratio)))
    write(table.assign(**{value: table[value].where(table["model"] != "mean", mean)}), path)


def judge_again(folder: Path) -> None:
    """Write claims.json as the statistics of the folder give it."""
    tables = (pd.read_parquet(folder / name) for name in (SUMMARY, COMPARISONS))
    save_verdicts(folder / "claims.json", evaluate_claims({"A1": CLAIM}, *tables))


def expectations(run: Path, floors: Tolerance = FLOORS) -> dict:
    """Expected values of a run, as they are read back."""
    expected = make_expected(open_run(run), floors, {"commit": "abc"}, read_benchmarks(run))
    save_expected(expected, run.parent / "expected.json")
    return read_expected(run.parent / "expected.json")


@pytest.fixture
def run(tmp_path) -> Path:
    return made(tmp_path / "run")


@pytest.fixture
def claims_file(tmp_path) -> Path:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"A1": CLAIM}))
    return path


def failed(verification: Verification) -> set[tuple[str, str]]:
    return {(check.group, check.name) for check in verification.checks if not check.passed}


def shifted(run: Path, by: float, models: bool = True, **where: str) -> None:
    """Add a number to rows of the summary: of all models, or of the mean alone."""
    table = pd.read_parquet(run / SUMMARY)
    rows = pd.Series(True, table.index)
    for column, value in where.items():
        rows &= table[column] == value
    if not models:
        rows &= table["model"] == "mean"
    for column in ("value", "low", "high"):
        table[column] = table[column].where(~rows, table[column] + by)
    write(table, run / SUMMARY)


REFUSED = {"dataset": "harmful", "metric": "refused", "judge": "substring"}


# --- a run against its own expected values ---


def test_the_run_of_the_expected_values_passes_exactly(run, claims_file):
    expected = expectations(run)
    for exact in (False, True):
        found = verify(open_run(run), expected, claims_file, exact)
        assert not failed(found), report(found)
        assert found.identical
    assert "PASS" in report(found) and "A1" in report(found)


def test_expected_values_are_the_runs(run):
    expected = expectations(run)
    claims = json.loads((run / "claims.json").read_text())
    assert expected["claims"]["A1"]["overall"]["verdict"] == claims["A1"]["overall"]["verdict"]
    condition = claims["A1"]["overall"]["conditions"][0]
    (value,) = (row for row in expected["values"] if row["item"] == "A1")
    assert value["value"] == pytest.approx(condition["value"], rel=1e-5)
    half = max(value["value"] - value["low"], value["high"] - value["value"])
    assert value["tolerance"] == pytest.approx(max(half, 0.05), rel=1e-4)
    assert [row["intervention"] for row in expected["values"] if row["item"] == "paper"] == ["none"]
    (stage,) = expected["resources"]
    assert stage == {"rule": "organism", "jobs": 2, "wall_s": 4.0, "cpu_s": 3.0, "memory_mb": 300.0}


# --- what has changed is found ---


def test_a_value_within_tolerance_passes_and_one_beyond_fails(run, claims_file):
    expected = expectations(run)
    (row,) = (row for row in expected["values"] if row["item"] == "A1")
    for share, passes in ((0.5, True), (1.5, False)):
        shifted(run, share * row["tolerance"], intervention="dim_ablation", **REFUSED)
        judge_again(run)
        found = verify(open_run(run), expected, claims_file)
        assert (("claims", "A1") not in failed(found)) is passes, report(found)
        assert not found.identical
        assert ("claims", "A1") in failed(verify(open_run(run), expected, claims_file, True))


def test_the_interval_of_the_fresh_run_is_allowed_too(run, claims_file):
    """Both are uncertain: beyond the tolerance, but within both uncertainties in quadrature."""
    expected = expectations(run)
    (row,) = (row for row in expected["values"] if row["item"] == "A1")
    off = 1.5 * row["tolerance"]
    shifted(run, off, intervention="dim_ablation", **REFUSED)
    for share, passes in ((0.5, False), (1.2, True)):
        table = pd.read_parquet(run / SUMMARY)
        rows = table[["intervention", *REFUSED]].eq({"intervention": "dim_ablation", **REFUSED})
        for side, sign in (("low", -1), ("high", 1)):
            wide = table["value"] + sign * share * row["tolerance"]
            table[side] = table[side].where(~rows.all(axis=1), wide)
        write(table, run / SUMMARY)
        judge_again(run)
        found = verify(open_run(run), expected, claims_file)
        assert (("claims", "A1") not in failed(found)) is passes, report(found)


def test_a_number_of_the_text_beyond_tolerance_is_named(run, claims_file):
    expected = expectations(run)
    shifted(run, -0.6, intervention="none", **REFUSED)
    found = verify(open_run(run), expected, claims_file)
    assert ("numbers", "none / harmful / refused / substring") in failed(found)


def test_a_mean_changed_by_hand_is_found_however_small(run, claims_file):
    expected = expectations(run)
    shifted(run, 1e-6, models=False, intervention="dim_ablation", **REFUSED)
    assert ("consistent", "means over models") in failed(
        verify(open_run(run), expected, claims_file)
    )


def test_a_verdict_changed_by_hand_is_found(run, claims_file):
    expected = expectations(run)
    claims = json.loads((run / "claims.json").read_text())
    was = claims["A1"]["overall"]["verdict"]
    claims["A1"]["overall"]["verdict"] = "contradicted" if was == "supported" else "supported"
    save_verdicts(run / "claims.json", claims)
    found = failed(verify(open_run(run), expected, claims_file))
    assert {("consistent", "verdicts"), ("claims", "A1")} <= found


def test_a_label_changed_by_hand_is_found(run, claims_file):
    table = pd.read_parquet(run / SUMMARY)
    where = {"model": "neox-0", "intervention": "none", **REFUSED}
    row = table[(table[list(where)] == pd.Series(where)).all(axis=1)].iloc[0]
    scores = pd.DataFrame({"id": ["a", "b"], "label": "harmful", "judge": "substring"})
    scores = scores.assign(metric="refused", value=row["value"], reason=None)
    path = run / "scores/neox-0/none.parquet"
    write(scores, path)
    rates = "rates of each model"
    assert next(c for c in check_consistency(open_run(run), claims_file) if c.name == rates).passed
    write(scores.assign(value=[row["value"], row["value"] + 0.01]), path)
    checks = check_consistency(open_run(run), claims_file)
    assert not next(check for check in checks if check.name == rates).passed


def test_a_claim_stated_otherwise_or_missing_fails(run, claims_file):
    expected = expectations(run)
    bound = {**CLAIM, "conditions": [{**CLAIM["conditions"][0], "threshold": 0.9}]}
    claims_file.write_text(yaml.safe_dump({"A1": bound, "A2": CLAIM}))
    tables = (pd.read_parquet(run / name) for name in (SUMMARY, COMPARISONS))
    save_verdicts(run / "claims.json", evaluate_claims(load_claims(claims_file), *tables))
    found = failed(verify(open_run(run), expected, claims_file))
    assert {("claims", "A1"), ("claims", "A2")} <= found


def test_opposite_verdicts_fail_and_neighbours_pass_within_tolerance(run, claims_file):
    """With all values where they were, a verdict may be one step off, and never two."""
    expected = expectations(run)
    was = expected["claims"]["A1"]["overall"]["verdict"]
    steps = ["supported", "inconclusive", "contradicted"]
    for verdict in steps:
        expected["claims"]["A1"]["overall"]["verdict"] = verdict
        found = failed(verify(open_run(run), expected, claims_file))
        apart = abs(steps.index(verdict) - steps.index(was))
        assert (("claims", "A1") in found) is (apart > 1), verdict
        exact = failed(verify(open_run(run), expected, claims_file, True))
        assert (("claims", "A1") in exact) is (apart > 0), verdict


# --- bad input ---


def test_another_study_is_told(run, claims_file):
    expected = {**expectations(run), "study": "another"}
    with pytest.raises(InputError, match="study 'synthetic'.*--expected"):
        verify(open_run(run), expected, claims_file)


def test_an_unfinished_run_is_told(run, claims_file):
    expected = expectations(run)
    (run / COMPARISONS).unlink()
    with pytest.raises(InputError, match="comparisons.*make paper"):
        verify(open_run(run), expected, claims_file)


@pytest.mark.parametrize("text", ["{", "[]", '{"study": "x"}'])
def test_expected_values_that_are_none_are_told(tmp_path, text):
    path = tmp_path / "expected.json"
    path.write_text(text)
    with pytest.raises(InputError, match="expected.json.*write_expected.py"):
        read_expected(path)


def test_a_floor_that_is_no_number_is_told(tmp_path):
    path = tmp_path / "tolerances.yaml"
    path.write_text("default: 0.1\nmetrics: {refused: wide}\n")
    with pytest.raises(InputError, match="tolerances.yaml: refused"):
        read_tolerances(path)


# --- what is committed ---


def test_the_artifact_page_is_what_the_expected_values_say():
    remedy = "run workflow/scripts/write_artifact.py"
    assert (ROOT / "ARTIFACT.md").read_text() == render_artifact(ROOT, "organisms"), remedy


def test_every_claim_has_expected_values_and_evidence_that_exists():
    claims = load_claims(ROOT / "paper" / "claims.yaml")
    evidence = yaml.safe_load((ROOT / "artifact" / "evidence.yaml").read_text())
    expected = read_expected(ROOT / "artifact" / "expected" / "organisms.json")
    assert set(claims) == set(evidence) == set(expected["claims"])
    for name, shown in evidence.items():
        assert set(shown["figures"]) <= set(FIGURES), name
        assert set(shown["tables"]) <= set(TABLES), name
        assert shown["figures"] or shown["tables"], name


def test_floors_are_of_metrics_that_are_measured():
    expected = read_expected(ROOT / "artifact" / "expected" / "organisms.json")
    floors = read_tolerances(ROOT / "artifact" / "tolerances.yaml")
    assert set(floors.metrics) <= {row["metric"] for row in expected["values"]}


# --- the command line ---


def command(*arguments: object) -> subprocess.CompletedProcess:
    script = ROOT / "workflow" / "scripts" / "verify_run.py"
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)], text=True, capture_output=True
    )


def test_the_command_tells_a_mistake_in_one_line(tmp_path, run):
    for given in ((tmp_path / "nothing",), (run,)):  # no folder; no expected values of this study
        done = command(*given)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
