"""The command line as a user types it: the whole smoke study in a copy of this repository."""

import ast
import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command_line import ROOT
from command_line import SMOKE_STUDY as STUDY
from command_line import snakemake as run_snakemake
from conftest import save_tiny_checkpoint
from hub_server import COMMITS, serving
from synthetic_run import write_run

from refusal.figures import FIGURES
from refusal.hub import read_lock
from refusal.tables import TABLES
from tables_of_study import read_experiments

RESULTS = Path("results/smoke")
EXPERIMENTS = ["weights", "capability", "suffix", "attacks", "before_tuning", "windows", "heads"]
EXPERIMENTS += ["kinds", "knob", "styles", "sparse_features"]
# What runs a model, or trains one.
MODEL_JOBS = {"organism", "card", "activations", "selection", "corpora"}


def snakemake(folder: Path, *arguments: str, study: str = STUDY):
    """Run snakemake on the smoke study, or another one."""
    return run_snakemake(folder, *arguments, study=study)


def planned(folder: Path, *arguments: str, study: str = STUDY) -> set[str]:
    """Return the rules that a dry run would run, without `all`."""
    done = snakemake(folder, "-n", *arguments, study=study)
    assert done.returncode == 0, done.stdout
    table = done.stdout.partition("Job stats:")[2].partition("total")[0]
    return set(re.findall(r"^(\w+) +\d+$", table, flags=re.M)) - {"all"}


@pytest.fixture(scope="module")
def folder(smoke_folder) -> Path:
    """A copy of the repository as a fresh clone would have it."""
    return smoke_folder


@pytest.fixture(scope="module")
def finished(smoke_run, tmp_path_factory) -> Path:
    """A copy in which the smoke study has run, to change things in."""
    return shutil.copytree(smoke_run, tmp_path_factory.mktemp("finished") / "clone")


def overlay(folder: Path, name: str, **sections) -> str:
    """Write an overlay of the smoke study with some sections extended; return its path."""
    study = yaml.safe_load((folder / STUDY).read_text())
    for section, values in sections.items():
        known = study.get(section, {})
        study[section] = {**known, **values} if isinstance(values, dict) else values
    (folder / name).write_text(yaml.safe_dump(study, sort_keys=False))
    return name


# --- mistakes are told before any work starts ---


@pytest.mark.parametrize(
    "sections, words",
    [
        ({"selektion": {"kl_max": 1}}, ["unknown key `selektion`", "did you mean `selection`"]),
        ({"models": {"a": {"path": "no/such/folder"}}}, ["models.a.path", "no/such/folder"]),
        (
            {"interventions": {"a": {"operator": "project", "direction": "din"}}},
            ["interventions.a.direction", "did you mean 'dim'"],
        ),
        ({"statistics": {"comparisons": [["none", "nine"]]}}, ["no intervention 'nine'"]),
        ({"compare": {"right": "no/such/run"}}, ["compare.right", "no/such/run"]),
        ({"compare": {"left": "results"}}, ["compare.right", "nothing to compare it with"]),
    ],
)
def test_a_mistake_in_the_configuration_stops_the_run_with_one_line(folder, sections, words):
    done = snakemake(folder, "-n", study=overlay(folder, "mistake.yaml", **sections))
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, done.stdout
    assert "Traceback" not in done.stdout


# --- checkpoints from the hub ---


def test_checkpoints_are_prefetched_and_jobs_then_run_offline(folder, monkeypatch):
    """A hub id as a model: fetched, locked and described, the second time without a network."""
    checkpoint = save_tiny_checkpoint(folder / "made", "llama")
    models = {"neox-0": None, "mine": {"path": "owner/mine", "refusal_tokens": [8]}}
    study = overlay(folder, "hub.yaml", study="hub", models=models)
    card = Path("results/hub/models/mine/card.json")
    with serving() as server:
        files = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
        server.repositories["owner/mine"] = {COMMITS[0]: files}
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(folder / "home"))
        done = snakemake(folder, "prefetch", study=study)
        assert done.returncode == 0, done.stdout[-3000:]
        before = len(server.requests)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        done = snakemake(folder, str(card), study=study)
        assert done.returncode == 0, done.stdout[-3000:]
        assert len(server.requests) == before
    assert json.loads((folder / card).read_text())["revision"] == COMMITS[0]
    assert list(read_lock(folder / "models.lock.yaml")) == ["owner/mine@main"]


# --- names that rules and scripts share ---


def names_in_rules() -> dict[str, object]:
    """Return FIGURES, TABLES, EXPERIMENTS and PLANTED_SHOWN as `rules/common.smk` has them."""
    text = (ROOT / "rules/common.smk").read_text()
    written = re.findall(
        r"^(FIGURES|TABLES|EXPERIMENTS|PLANTED_SHOWN) = ([\[{]\n.*?^[\]}])$", text, re.M | re.S
    )
    found: dict[str, object] = {}
    for name, value in written:
        found.setdefault(name, value)  # the second EXPERIMENTS is the selection of the config
    return {name: ast.literal_eval(value) for name, value in found.items()}


@pytest.mark.parametrize("noun, registry", [("figures", FIGURES), ("tables", TABLES)])
def test_rules_ask_for_everything_that_scripts_can_make(noun, registry):
    names = names_in_rules()
    shown = [name for frames in names["EXPERIMENTS"].values() for name in frames[noun]]
    planted = names["PLANTED_SHOWN"][noun]
    assert sorted(names[noun.upper()] + shown + planted) == sorted(registry)


def test_frames_of_experiments_are_those_that_figures_and_tables_take():
    experiments = names_in_rules()["EXPERIMENTS"]
    written = {
        f"{name}_{frame}" for name, shown in experiments.items() for frame in shown["frames"]
    }
    taken = {frame for recipe in (*FIGURES.values(), *TABLES.values()) for frame in recipe.frames}
    assert written == {frame for frame in taken if frame.startswith(tuple(experiments))}


def test_frames_of_experiments_are_joined_over_models(tmp_path):
    paths = []
    for model, experiment in (("a", "heads"), ("b", "heads"), ("a", "windows")):
        paths.append(tmp_path / "study" / experiment / model / "map.parquet")
        paths[-1].parent.mkdir(parents=True)
        pd.DataFrame({"model": [model]}).to_parquet(paths[-1])
    frames = read_experiments(map(str, paths))
    models = {name: list(frame["model"]) for name, frame in frames.items()}
    assert models == {"heads_map": ["a", "b"], "windows_map": ["a"]}
    assert read_experiments([]) == {}


# --- comparison of runs ---


def test_a_comparison_is_made_only_where_a_run_is_named(folder):
    write_run(folder / "elsewhere/left")
    assert "compare" not in planned(folder)
    study = overlay(folder, "compared.yaml", compare={"right": "elsewhere/left"})
    assert planned(folder, study=study) == planned(folder) | {"compare"}


def test_the_rule_compares_any_two_runs(folder):
    for side in ("one", "other"):
        write_run(folder / f"elsewhere/{side}")
    (folder / "elsewhere/other/config.yaml").write_text("seed: 7\n")
    runs = {"left": "elsewhere/one", "right": "elsewhere/other", "tolerances": {"refused": 0.1}}
    study = overlay(folder, "two.yaml", compare=runs)
    report = RESULTS / "compare/report.html"
    assert planned(folder, str(report), study=study) == {"compare"}
    done = snakemake(folder, str(report), study=study)
    assert done.returncode == 0, done.stdout
    assert "elsewhere/other" in (folder / report).read_text()
    differences = pd.read_parquet(folder / RESULTS / "compare/differences.parquet")
    assert set(differences[differences["counts"]]["part"]) == {"config"}
    assert planned(folder, str(report), study=study) == set()
    (folder / "elsewhere/other/claims.json").write_text("{}")
    assert planned(folder, str(report), study=study) == {"compare"}


# --- the whole study ---


def test_the_study_ends_with_the_paper(finished):
    results = finished / RESULTS
    assert (results / "paper" / "main.pdf").read_bytes().startswith(b"%PDF")
    claims = json.loads((results / "claims.json").read_text())
    assert {"B1", "B2", "B3", "B4", "B5", "A1", "A2", "D1"} <= set(claims)
    summary = pd.read_parquet(results / "statistics" / "summary.parquet")
    needed = "study model intervention direction operator scope k alpha dataset metric judge"
    assert {*needed.split(), "value", "low", "high", "n"} <= set(summary.columns)
    assert set(summary.study) == {"smoke"}
    merged = yaml.safe_load((results / "config.yaml").read_text())
    assert merged["selection"]["kl_max"] == 0.1 and merged["study"] == "smoke"


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in snakemake(finished).stdout


def test_every_job_has_a_benchmark(finished):
    made = {path.parent.name for path in (finished / RESULTS / "benchmarks").rglob("*.tsv")}
    assert MODEL_JOBS - {"corpora"} <= made


def test_a_plotting_function_reruns_no_model_job(finished):
    module = finished / "workflow/scripts/refusal/figures/comparison.py"
    before = module.stat()
    text = module.read_text()
    module.write_text(text + "\n# edited\n")
    try:
        rules = planned(finished)
    finally:
        module.write_text(text)
        os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert rules == {"figures", "planted_shown", "paper"}


def test_a_deleted_generation_reruns_only_what_depends_on_it(finished):
    target = RESULTS / "generations" / "neox-0" / "dim_ablation.parquet"
    content = (finished / target).read_bytes()
    (finished / target).unlink()
    rules = planned(finished)
    assert {rule for rule in rules if rule.startswith("generations")} == {
        "generations_interventions"
    }
    assert not {rule for rule in rules if rule.startswith("losses")}
    assert not rules & (MODEL_JOBS | {"directions", "interventions", "geometry"})
    assert {"scores", "statistics", "claims", "paper"} <= rules
    done = snakemake(finished, str(target))
    assert done.returncode == 0, done.stdout
    assert (finished / target).read_bytes() == content
    log = (finished / "logs/smoke/generations/neox-0/interventions.log").read_text()
    assert ": done" not in log, "a finished completion was generated again"


def test_the_paper_is_written_without_any_experiment(finished):
    """After what needs the paper of the whole study: this leaves another one behind."""
    study = overlay(finished, "plain.yaml", experiments=dict.fromkeys(EXPERIMENTS, False))
    done = snakemake(finished, study=study)
    assert done.returncode == 0, done.stdout[-6000:]
    claims = json.loads((finished / RESULTS / "claims.json").read_text())
    assert claims["A6"]["overall"]["verdict"] == "not measured"
    text = (finished / RESULTS / "paper" / "main.tex").read_text()
    assert "adversarial suffix" not in text.partition(r"\appendix")[0]


def test_one_line_adds_an_intervention(finished):
    line = {"extra": {"direction": "dim", "operator": "project", "alpha": 1.25, "scope": "source"}}
    study = overlay(finished, "extra.yaml", interventions=line)
    target = RESULTS / "generations" / "neox-0" / "extra.parquet"
    done = snakemake(finished, str(target), study=study)
    assert done.returncode == 0, done.stdout
    log = (finished / "logs/smoke/generations/neox-0/interventions.log").read_text()
    assert re.findall(r"(\S+): done", log) == ["extra"]


def test_a_local_checkpoint_is_a_model(finished):
    models = {"mine": {"path": str(RESULTS / "models" / "neox-0"), "refusal_tokens": [44]}}
    study = overlay(finished, "mine.yaml", models=models)
    target = RESULTS / "activations" / "mine.safetensors"
    done = snakemake(finished, str(target), study=study)
    assert done.returncode == 0, done.stdout
    trained = RESULTS / "activations" / "neox-0.safetensors"
    assert (finished / target).read_bytes() == (finished / trained).read_bytes()


def test_a_checkpoint_without_chat_template_is_refused_with_one_line(finished):
    bare = finished / "bare"
    shutil.copytree(finished / RESULTS / "models" / "neox-0", bare)
    (bare / "chat_template.jinja").unlink()
    study = overlay(finished, "bare.yaml", models={"bare": {"path": "bare"}})
    done = snakemake(finished, str(RESULTS / "models/bare/card.json"), study=study)
    assert done.returncode != 0
    assert "bare: the tokenizer has no chat template. Remedy:" in done.stdout
    assert "Traceback" not in done.stdout


# --- judges that are models ---


def test_a_model_judges_every_completion(finished):
    """An organism stands in for the judge; its ratings mean nothing, but they are there."""
    judge = {"path": str(RESULTS / "models" / "neox-0"), "prompt": "wildguard"}
    judge |= {"parse": "strongreject", "rule": "published", "dtype": "float32", "device": "cpu"}
    sections = {"scores": {"models": ["own"]}, "judges": {"own": judge}}
    study = overlay(finished, "judged.yaml", **sections)
    target = RESULTS / "scores" / "neox-0" / "none.parquet"
    done = snakemake(finished, str(target), study=study)
    assert done.returncode == 0, done.stdout[-6000:]
    scores = pd.read_parquet(finished / target).query("judge == 'own'")
    assert len(scores) and scores.value.between(0, 1).all()
    said = pd.read_parquet(finished / RESULTS / "judgements" / "neox-0" / "own.parquet")
    assert said.verdict.notna().all() and said.intervention.nunique() > 20
    assert "judgements" not in planned(finished, str(target), study=study)
    judge["rule"] = "strict"
    study = overlay(finished, "judged.yaml", **sections)
    assert {"judgements", "scores"} <= planned(finished, str(target), study=study)


# --- experiments ---


# What an experiment needs is measured even where its own key is off.
NEEDED_BY = {"kinds": ["knob", "styles", "sparse_features"], "knob": ["styles"]}


@pytest.fixture(scope="module")
def everything(finished) -> set[str]:
    """The rules that make the paper of the whole study."""
    return planned(finished, "--forceall", str(RESULTS / "paper" / "main.pdf"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_one_key_leaves_an_experiment_out(finished, everything, experiment):
    off = [experiment, *NEEDED_BY.get(experiment, [])]
    study = overlay(finished, f"without_{experiment}.yaml", experiments=dict.fromkeys(off, False))
    target = str(RESULTS / "paper" / "main.pdf")
    rest = planned(finished, "--forceall", target, study=study)
    assert experiment in everything - rest
    assert everything - rest <= {*off, "capability_questions"}


def test_a_loaded_checkpoint_goes_through_every_experiment(finished):
    """Or is refused with one line: its published tasks cannot be had without the network."""
    trained = {"gemma2-0": {"architecture": "gemma2", "seed": 0}}
    study = overlay(finished, "trained.yaml", models=trained)
    target = RESULTS / "models/gemma2-0/model.safetensors"
    done = snakemake(finished, str(target), study=study)
    assert done.returncode == 0, done.stdout[-6000:]
    shutil.copytree((finished / target).parent, finished / "loaded")
    model = {"path": "loaded", "refusal_tokens": [44]}
    asked = [str(RESULTS / f"{name}/loaded/summary.parquet") for name in EXPERIMENTS]
    del asked[EXPERIMENTS.index("capability")]
    study = overlay(finished, "loaded.yaml", models={"loaded": model})
    needing = [path for path in asked if "before_tuning" in path or "suffix" in path]
    done = snakemake(finished, *needing, study=study)
    assert done.returncode != 0
    for key in ("base", "suffix"):
        assert re.search(rf"models\.loaded\.{key}: missing.*experiments\.\w+", done.stdout)
    base = str(RESULTS / "models" / "gemma2-0-helpful")
    model |= {"base": base, "suffix": " plain words here"}
    study = overlay(finished, "loaded.yaml", models={"loaded": model})
    done = snakemake(finished, *asked, study=study)
    assert done.returncode == 0, done.stdout[-6000:]
    for path in asked:
        assert pd.read_parquet(finished / path).value.notna().any(), path


# --- studies of real models ---


STUDIES = ("rocchetti2026", "arditi2024", "joad2026", "modern")


@pytest.mark.parametrize("study", STUDIES)
def test_a_dry_run_of_a_study_prints_its_jobs_and_an_estimate(folder, study):
    done = snakemake(folder, "-n", study=f"studies/{study}.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    before, jobs, _ = done.stdout.partition("Job stats:")
    models = yaml.safe_load((folder / f"studies/{study}.yaml").read_text())["models"]
    assert jobs and "Estimate for" in before and "together" in before
    for name, model in models.items():
        assert (name in before) == bool(model)


def test_the_planted_study_plants_every_kind_and_seed_in_its_bases(folder):
    done = snakemake(folder, "-n", study="studies/planted.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout.partition("Job stats:")[2], flags=re.M))
    assert (jobs["planted_base"], jobs["planted_summary"]) == ("2", "1")
    assert {jobs[f"planted_{stage}"] for stage in ("organism", "proof", "estimators")} == {"24"}
    assert jobs["planted_report"] == "1" and "organism" not in jobs and "paper" not in jobs
