"""What jobs ask of a cluster: from the estimate, more at every attempt, as docs/cluster.md says."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import ROOT, clone
from test_estimate import CATALOGUE, merged

from refusal.estimate import estimate_study
from refusal.recipes import expand_interventions
from refusal.resources import LOADED_MB, LOADING_MINUTES, OF_ORGANISM, Resources, job_resources


def estimated(study: str) -> tuple[dict[str, dict], dict]:
    """The rows of a study's estimate by model, and its recipes."""
    config = merged(study)
    recipes = expand_interventions(config["interventions"], config["directions"]["random"]["draws"])
    rows = estimate_study(config, recipes, CATALOGUE)
    return {row["model"]: row for row in rows}, recipes


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    return estimated("arditi2024")[0]


def test_gpus_are_those_of_the_estimate_on_auto_one_on_a_named_device_and_none_on_the_cpu(rows):
    large = rows["qwen-72b-chat"]
    assert large["gpus"] == 4
    assert [job_resources(large, d, "losses").gpus for d in ("auto", "cuda:0", "cpu")] == [4, 1, 0]


def test_the_host_holds_the_weights_or_on_the_cpu_what_the_estimate_says_of_a_gpu(rows):
    row = rows["qwen-72b-chat"]
    weights = 72.29e9 * 2 / 1e6
    on_gpu, on_cpu = (job_resources(row, device, "losses") for device in ("auto", "cpu"))
    assert on_gpu.memory == pytest.approx(LOADED_MB + weights + 1000 * row["disk"], abs=1)
    assert on_cpu.memory == pytest.approx(LOADED_MB + 1000 * (row["memory"] + row["disk"]), abs=1)
    assert on_cpu.memory > on_gpu.memory


def test_time_is_three_times_the_share_of_the_stage_beside_loading(rows):
    row = rows["qwen-7b-chat"]
    whole, half = (job_resources(row, "auto", "losses", share).runtime for share in (1, 0.5))
    assert whole == LOADING_MINUTES + math.ceil(180 * row["hours"]["losses"])
    assert half - LOADING_MINUTES == pytest.approx((whole - LOADING_MINUTES) / 2, abs=1)
    assert job_resources(row, "auto", "not in the estimate").runtime == LOADING_MINUTES


def test_a_model_of_unknown_size_asks_for_one_gpu_and_an_organism_for_none():
    assert job_resources({"size": None}, "auto", "losses").gpus == 1
    assert job_resources({"size": None}, "cpu", "losses").gpus == 0
    assert job_resources(None, "cpu", "losses") == OF_ORGANISM
    assert OF_ORGANISM.gpus == 0


def test_every_attempt_gets_twice_the_memory_and_time_up_to_the_longest_job():
    first = Resources(gpus=2, memory=1000, runtime=600)
    asked = [first.at(attempt, max_runtime=1440) for attempt in (1, 2, 3)]
    assert asked == [first, Resources(2, 2000, 1200), Resources(2, 4000, 1440)]


def hours(runtime: int) -> str:
    """Hours with one decimal up to ten, as the table writes them."""
    return f"{runtime / 60:.1f}" if runtime < 600 else f"{runtime / 60:.0f}"


def test_the_table_of_the_documentation_is_what_jobs_ask_for():
    found, recipes = estimated("arditi2024")
    families = [
        recipe["family"] for recipe in recipes.values() if recipe["operator"] != "fine_tune"
    ]
    share = max(map(families.count, families)) / len(recipes)
    text = (ROOT / "docs/cluster.md").read_text()
    table = dict(re.findall(r"^\| `([\w.-]+)` \| (.*) \|$", text, re.M))
    assert len(table) > 5
    for model, cells in table.items():
        row = found[model]
        generations = job_resources(row, "auto", "generations", share)
        capability = job_resources(row, "auto", "capability")
        assert cells.split(" | ") == [
            str(generations.gpus),
            f"{generations.memory / 1000:.0f}",
            hours(generations.runtime),
            hours(capability.runtime),
        ], model


def test_stages_in_one_job_ask_for_what_the_documentation_says():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    stages = [rule for rule, group in profile["groups"].items() if group == "directions"]
    assert stages == ["organism", "card", "activations", "directions"]
    # Directions load no model: they ask for what the profile says.
    assert profile["default-resources"]["runtime"] == "60 * attempt"
    assert "five hours for every model" in (ROOT / "docs/cluster.md").read_text()
    found, _ = estimated("arditi2024")
    for row in found.values():
        loading = [job_resources(row, "auto", stage).runtime for stage in ("card", "activations")]
        assert 5 * 60 <= sum(loading) + 60 < 5.2 * 60


# --- the rules ---

# Appended to the Snakefile: what jobs of one model and judge would ask for at an attempt.
PRINTING = """
import json
from types import SimpleNamespace
for name, resources in {made}.items():
    job = SimpleNamespace(model="{model}", judge="harmbench")
    asked = {{
        key: value if not callable(value)
        else value(job, attempt={attempt}) if "attempt" in value.__code__.co_varnames
        else value(job)
        for key, value in resources.items()
    }}
    print("asked", name, json.dumps(asked))
"""


def asked(folder: Path, study: str, model: str, attempt: int = 1) -> dict[str, dict]:
    """Return what a model's selection, a judge and an organism ask for, by the rules' helpers."""
    made = '{"selection": for_model("selection"), "judgements": for_judge(), '
    made += '"organism": for_organism(), "styles": for_judge_of_styles()}'
    with (folder / "Snakefile").open("a") as file:
        file.write(PRINTING.format(made=made, model=model, attempt=attempt))
    command = [sys.executable, "-m", "snakemake", "config", "-n", "--configfile", study]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.findall(r"^asked (\w+) (.*)$", done.stdout, re.M)
    return {name: json.loads(resources) for name, resources in found}


def test_jobs_ask_for_what_the_estimate_says_of_their_model_or_judge(tmp_path, rows):
    folder = clone(tmp_path)
    study = yaml.safe_load((folder / "studies/arditi2024.yaml").read_text())
    study["hardware"] = {"gpu_model": "a100", "max_runtime": 500}
    study["styles"] = {"judge": "owner/judge"}
    (folder / "mine.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    found = asked(folder, "mine.yaml", "qwen-72b-chat", attempt=2)
    first = job_resources(rows["qwen-72b-chat"], "auto", "selection")
    assert found["selection"] == {
        "gpu": 4,
        "nodes": 1,
        "gpu_model": "a100",
        "mem_mb": 2 * first.memory,
        "runtime": 500,
    }
    judge = job_resources(rows["harmbench"], "auto", "judgements", 1 / 13)
    assert found["judgements"]["mem_mb"] == 2 * judge.memory
    assert found["judgements"]["gpu"] == found["styles"]["gpu"] == 1
    assert found["organism"]["gpu"] == 0
    assert found["organism"]["gpu_model"] == ""


def test_organisms_and_tables_ask_for_no_gpu(tmp_path):
    found = asked(clone(tmp_path), "studies/smoke.yaml", "neox-0")
    for name in ("selection", "organism", "styles"):
        assert found[name] == {
            "gpu": 0,
            "nodes": 1,
            "mem_mb": OF_ORGANISM.memory,
            "runtime": OF_ORGANISM.runtime,
        }


def test_every_rule_that_loads_a_model_asks_for_resources():
    named = re.compile(r"^(?: {4})?rule(?: (\w+))?:\n", re.M)
    loading = []
    for file in sorted((ROOT / "rules").glob("*.smk")):
        for block in named.split(file.read_text())[2::2]:
            if 'dpath="models/{model}"' in block or "judge=judge_" in block:
                loading.append(file.stem)
                assert re.search(r"resources:\n +\*\*for_(model|judge|organism)\(", block), file
    assert len(loading) > 15
