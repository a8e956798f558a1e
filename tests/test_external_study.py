"""A study of external runs by the command line as typed: fetched, scored, compared, reported."""

import os
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import synthetic_runs
import yaml
from command_line import clone, snakemake

from refusal.external_completions import read_completions

ROOT = Path(__file__).parents[1]
STUDY = "studies/published2024.yaml"
RESULTS = Path("results/published2024")


def overlay(folder: Path, name: str, **sections) -> str:
    """The shipped study with some sections replaced; returns the path of the overlay."""
    study = yaml.safe_load((folder / STUDY).read_text())
    (folder / name).write_text(yaml.safe_dump({**study, **sections}, sort_keys=False))
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of the repository as a fresh clone would have it, with a mirror of made-up runs."""
    target = clone(tmp_path_factory.mktemp("clone"))
    synthetic_runs.write_run(target / "mirror" / "runs" / "a", "a")
    synthetic_runs.write_run(target / "own", "b", tensors=False)
    rows = read_completions(
        target / "own" / "completions" / "harmless_baseline_completions.json", "arditi2024"
    )
    (target / "table").mkdir()
    rows[["prompt", "completion"]].to_csv(target / "table" / "none.csv", index=False)
    return target


@pytest.fixture(scope="module")
def server(folder):
    """Serves the mirror; what is asked for under /refused/ is refused."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder / "mirror"))

        def do_GET(self):
            if self.path.startswith("/refused/"):
                return self.send_error(403)
            if self.path.startswith("/cut/"):
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                return self.wfile.write(b"half")
            return super().do_GET()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(scope="module")
def study(folder, server) -> str:
    """Three runs: pinned and downloaded, in a folder without tensors, and a plain table."""
    synthetic_runs.write_pins(
        folder / "pins.yaml", folder / "mirror" / "runs" / "a", f"{server}/{{path}}"
    )
    runs = {
        "a_1": {"path": "runs/a", "format": "arditi2024", "pins": "pins.yaml"},
        "b.2": {"path": "own", "format": "arditi2024"},
        "c-3": {
            "path": "table",
            "format": "table",
            "interventions": {"none": {"harmless": "none.csv"}},
        },
    }
    return overlay(folder, "study.yaml", external_runs=runs)


@pytest.fixture(scope="module")
def finished(folder, study) -> Path:
    done = snakemake(folder, study=study)
    assert done.returncode == 0, done.stdout[-6000:]
    return folder / RESULTS


def test_the_study_ends_with_the_report(finished):
    assert (finished / "external_runs" / "report.pdf").read_bytes().startswith(b"%PDF")
    assert not (finished / "paper").exists(), "there is no model to write the paper about"
    table = pd.read_parquet(finished / "external_runs" / "comparison.parquet")
    assert set(table["run"]) == {"a_1", "b.2"}
    assert table["reproduced"].all(), table[~table["reproduced"]].to_string()
    assert set(table.loc[table["part"] == "tensors", "run"]) == {"a_1"}
    summary = pd.read_parquet(finished / "external_runs" / "statistics" / "summary.parquet")
    assert {"a_1", "b.2", "c-3"} <= set(summary["model"])
    assert set(summary["study"]) == {"published2024"}


def test_the_report_shows_numbers_and_no_text_of_a_completion(finished):
    text = (finished / "external_runs" / "report.tex").read_text()
    assert r"\num{0.25}" in text and "McNemar" in text
    for sentence in ("I cannot, says", "Sure, ", "request 1"):
        assert sentence not in text


def test_a_second_run_has_nothing_to_do(finished, folder, study):
    assert "Nothing to be done" in snakemake(folder, study=study).stdout


def test_a_changed_file_of_ones_own_is_read_again(finished, folder, study):
    file = folder / "own" / "direction_metadata.json"
    before, text = file.stat(), file.read_text()
    file.write_text(text + "\n")
    try:
        done = snakemake(folder, "-n", study=study)
    finally:
        file.write_text(text)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    jobs = set(re.findall(r"^(\S+) +\d+$", done.stdout.partition("Job stats:")[2], flags=re.M))
    assert {"external_files", "external_generations_b.2", "external_report"} <= jobs
    assert "external_generations_a_1" not in jobs


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("refused/{path}", "access is refused (HTTP 403)"),
        ("cut/{path}", "the connection was cut after 4 of 1000 bytes"),
        ("absent/{path}", "no such file. Remedy: "),
    ],
)
def test_a_download_that_fails_is_one_line_and_leaves_nothing(folder, server, url, said):
    synthetic_runs.write_pins(
        folder / "bad.yaml", folder / "mirror" / "runs" / "a", f"{server}/{url}"
    )
    entry = {"path": "runs/a", "format": "arditi2024", "pins": "bad.yaml"}
    study = overlay(folder, "bad_study.yaml", study="bad", external_runs={"bad": entry})
    done = snakemake(folder, study=study)
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if said in line]
    assert lines and all("Remedy: " in line for line in lines), done.stdout
    assert "Traceback" not in done.stdout
    made = folder / "results" / "bad" / "external_runs" / "bad"
    assert not [path for path in made.rglob("*") if path.is_file()]


def test_the_shipped_study_plans_five_runs_from_the_network_or_a_mirror(folder):
    done = snakemake(folder, "-n", study=STUDY)
    assert done.returncode == 0, done.stdout
    table = done.stdout.partition("Job stats:")[2].partition("total")[0]
    jobs = dict(re.findall(r"^(\S+) +(\d+)$", table, flags=re.M))
    assert jobs["external_files"] == jobs["external_directions"] == "5"
    assert jobs["external_report"] == jobs["external_statistics"] == "1"
    assert not {"card", "organism", "activations", "paper", "figures"} & set(jobs)
    done = snakemake(folder, "-n", "--config", "external_mirror=nowhere", study=STUDY)
    assert done.returncode != 0
    assert "external_mirror: no folder nowhere" in done.stdout and "Traceback" not in done.stdout


def test_a_study_with_models_has_its_paper_and_the_report(folder, study):
    runs = {"b.2": {"path": "own", "format": "arditi2024"}}
    both = overlay(folder, "both.yaml", study="both", external_runs=runs, models={})
    done = snakemake(folder, "-n", study=both)
    assert done.returncode == 0, done.stdout
    for rule in ("paper", "claims", "statistics", "external_statistics", "external_report"):
        assert re.search(rf"^{rule} +1$", done.stdout, flags=re.M), rule


def test_the_three_runs_without_checksums_and_tensors_work_the_same_way(folder):
    """With made-up runs in their places of a mirror, and the shipped table of pins."""
    runs = yaml.safe_load((folder / STUDY).read_text())["external_runs"]
    three = {name: run for name, run in runs.items() if name[:4] in ("llam", "meta", "yi-6")}
    assert len(three) == 3
    for name, run in three.items():
        synthetic_runs.write_run(folder / "unpinned" / run["path"], name, tensors=False)
    settings = {"study": "three", "external_mirror": "unpinned", "external_runs": three}
    done = snakemake(folder, study=overlay(folder, "three.yaml", **settings))
    assert done.returncode == 0, done.stdout[-6000:]
    made = folder / "results" / "three" / "external_runs"
    table = pd.read_parquet(made / "comparison.parquet")
    files = table[table["part"] != "paper"]
    assert set(files["run"]) == set(three) and files["reproduced"].all()
    assert "tensors" not in set(files["part"])
    assert "Without pinned checksums: " in (made / "report.tex").read_text()
    for name in three:
        log = (folder / "logs" / "three" / "external_files" / f"{name}.log").read_text()
        assert log.count("no pinned sha256") == 16 and log.count("absent") == 2


def test_the_published_runs_from_a_mirror_end_with_the_report(folder):
    root = os.environ.get("REFUSAL_PUBLISHED")
    if not root:
        pytest.skip("REFUSAL_PUBLISHED names no folder with a copy of the public repository")
    runs = yaml.safe_load((folder / STUDY).read_text())["external_runs"]
    there = {name for name, run in runs.items() if (Path(root) / run["path"]).is_dir()}
    left_out = {name: None for name in runs if name not in there}
    (folder / "mine.yaml").write_text(
        yaml.safe_dump({"study": "mirror", "external_mirror": root, "external_runs": left_out})
    )
    done = snakemake(folder, study=STUDY, overlay="mine.yaml")
    assert done.returncode == 0, done.stdout[-6000:]
    made = folder / "results" / "mirror"
    table = pd.read_parquet(made / "external_runs" / "comparison.parquet")
    files = table[table["part"] != "paper"]
    assert set(files["run"]) == there and files["reproduced"].all()
    text = (made / "external_runs" / "report.tex").read_text()
    for path in (made / "generations").rglob("*.parquet"):
        for completion in pd.read_parquet(path)["completion"]:
            assert len(completion) < 30 or completion[:30] not in text
