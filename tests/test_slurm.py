"""profiles/slurm on a real SLURM of one node: a study to its PDF, and what goes wrong there."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command_line import ROOT, clone
from slurm_cluster import ask, running_slurm, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

# Polling as often as the profile says would make a test of seconds one of minutes; no network file
# system is waited for.
QUICK = ["--profile", "profiles/slurm", "--latency-wait", "5"]
QUICK += ["--slurm-init-seconds-before-status-checks", "2"]
# Rules that fail in the ways of clusters, once: what they ask for follows from the attempt.
FAILING = """\
rule all:
    input: "hungry", "late", "plain", "graphics"
rule hungry:
    output: "hungry"
    resources: mem_mb=lambda wildcards, attempt: 300 * 4 ** (attempt - 1)
    shell: "echo {resources.mem_mb} >> attempts_hungry; "
        "python -c 'import time; held = bytearray(450_000_000); time.sleep(8)'; touch {output}"
rule late:
    output: "late"
    resources: runtime=lambda wildcards, attempt: attempt
    shell: "echo {resources.runtime} >> attempts_late; "
        "sleep $((200 - 199 * ({resources.runtime} - 1))); touch {output}"
rule plain:
    output: "plain"
    shell: "echo $SLURM_JOB_PARTITION {resources.mem_mb} {resources.runtime} > {output}"
rule graphics:
    output: "graphics"
    resources: gpu=1, gpu_model="a100"
    shell: "echo $SLURM_JOB_PARTITION $CUDA_VISIBLE_DEVICES > {output}"
"""
WAITING = """\
rule all:
    input: "a", "b"
rule wait:
    output: "{name}"
    wildcard_constraints: name="[ab]"
    shell: "echo half > {output}; sleep `cat seconds`; echo whole > {output}"
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which commands reach a running SLURM."""
    with running_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**environment, "COLUMNS": "200"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty workflow with the profiles of this repository."""
    for name in ("default", "slurm"):
        target = tmp_path / "profiles" / name
        target.mkdir(parents=True)
        for file in (ROOT / "profiles" / name).iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    return tmp_path


def start(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen:
    """Start snakemake as from a shell; it minds Ctrl-C even where this process does not."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *QUICK, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def snakemake(folder: Path, environment: dict[str, str], *arguments: str):
    """Run snakemake; returns its exit status and what it printed."""
    process = start(folder, environment, *arguments)
    printed, _ = process.communicate(timeout=1500)
    return process.returncode, printed


def states(environment: dict[str, str]) -> list[str]:
    """The states of all jobs that the controller remembers, the newest first."""
    return ask(environment, "squeue", "-h", "--states=all", "--sort=-i", "-o", "%T").split()


def wait_until(condition, seconds: int = 120) -> None:
    """Wait for something to become true.

    Raises:
        AssertionError: it did not.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.5)


def one_organism() -> dict:
    """The smoke study with one organism, the main interventions and no experiments."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    kept = {"none", "dim_ablation", "dim_addition", "inlp_projection", "inlp_flipping"}
    kept |= {"random_ablation", "random_addition"}
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    study |= {"study": "sliced", "experiments": dict.fromkeys(config["experiments"], False)}
    study["models"]["gemma2-0"] = None
    given = study["interventions"]
    study["interventions"] = {
        name: given.get(name, {}) if name in kept else None for name in config["interventions"]
    }
    study["statistics"] |= {"comparisons": [["dim_ablation", "random_ablation-draw*"]]}
    return study


def test_a_study_runs_through_slurm_to_its_pdf_as_on_one_machine(cluster, tmp_path):
    here, there = (clone(tmp_path / name) for name in ("local", "slurm"))
    for copy in (here, there):
        (copy / "sliced.yaml").write_text(yaml.safe_dump(one_organism(), sort_keys=False))
    status, printed = snakemake(there, cluster, "--configfile", "sliced.yaml")
    assert status == 0, printed[-6000:]
    assert (there / "results/sliced/paper/main.pdf").stat().st_size > 10_000
    # What is fetched or typeset stays on the machine that started the workflow.
    comments = ask(cluster, "squeue", "-h", "--states=all", "-o", "%k")
    submitted = set(re.findall(r"^rule_(\w+?)(?:_wildcards_.*)?$", comments, re.M))
    assert {"organism", "activations", "generations_interventions", "figures"} <= submitted
    assert not submitted & {"config", "paper", "tables", "claims"}

    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "sliced.yaml"]
    local = subprocess.run(command, cwd=here, text=True, capture_output=True)
    assert local.returncode == 0, local.stderr[-6000:]
    names = result_files(here)
    assert names == result_files(there)
    tables = [name for name in names if name.suffix == ".parquet"]
    assert len(tables) > 10
    for name in tables:
        one, other = (pd.read_parquet(copy / "results" / name) for copy in (here, there))
        pd.testing.assert_frame_equal(one, other, obj=str(name))


def result_files(folder: Path) -> set[Path]:
    """The files that a run made, but for its store of finished completions."""
    results = folder / "results"
    names = {file.relative_to(results) for file in results.rglob("*") if file.is_file()}
    return {name for name in names if "store" not in name.parts}


def test_jobs_killed_for_memory_or_time_get_more_and_each_finds_its_partition(cluster, folder):
    (folder / "Snakefile").write_text(FAILING)
    status, printed = snakemake(folder, cluster)
    assert status == 0, printed[-6000:]
    # Once per attempt: the Snakemake inside a job does not retry under the old limits.
    assert (folder / "attempts_hungry").read_text().split() == ["300", "1200"]
    assert (folder / "attempts_late").read_text().split() == ["1", "2"]
    assert "TIMEOUT" in printed
    assert (folder / "plain").read_text().split() == ["cpu", "2000", "60"]
    assert (folder / "graphics").read_text().split()[0] == "gpu"
    assert (folder / "graphics").read_text().split()[1] in "01"


def test_ctrl_c_cancels_the_jobs_and_leaves_nothing_half_done(cluster, folder):
    (folder / "Snakefile").write_text(WAITING)
    (folder / "seconds").write_text("300")
    process = start(folder, cluster)
    wait_until((folder / "a").exists)
    wait_until((folder / "b").exists)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    wait_until(lambda: "RUNNING" not in states(cluster))
    assert states(cluster)[:2] == ["CANCELLED", "CANCELLED"], printed
    (folder / "seconds").write_text("1")
    status, printed = snakemake(folder, cluster)
    assert status == 0, printed[-3000:]
    assert [(folder / name).read_text() for name in "ab"] == ["whole\n", "whole\n"]


def test_a_killed_scheduler_leaves_jobs_which_the_documented_commands_end(cluster, folder):
    (folder / "Snakefile").write_text(WAITING)
    (folder / "seconds").write_text("300")
    process = start(folder, cluster)
    wait_until((folder / "a").exists)
    wait_until((folder / "b").exists)
    process.kill()
    process.wait()
    assert states(cluster)[:2] == ["RUNNING", "RUNNING"]
    status, printed = snakemake(folder, cluster)
    assert status != 0
    assert "--unlock" in printed
    done = subprocess.run(recovery(), shell=True, cwd=folder, env=cluster, executable="/bin/bash")
    assert done.returncode == 0
    wait_until(lambda: "RUNNING" not in states(cluster))
    (folder / "seconds").write_text("1")
    status, printed = snakemake(folder, cluster)
    assert status == 0, printed[-3000:]
    assert [(folder / name).read_text() for name in "ab"] == ["whole\n", "whole\n"]


def recovery() -> str:
    """The commands that docs/cluster.md gives after a kill of the scheduler, without the last."""
    text = (ROOT / "docs/cluster.md").read_text()
    block = text.partition("## After a kill")[2].partition("```bash\n")[2].partition("```")[0]
    lines = block.strip().splitlines()
    assert lines[-1].endswith("--profile profiles/slurm")
    return "set -e\n" + "\n".join(lines[:-1]).replace(
        ".venv/bin/snakemake", f"{sys.executable} -m snakemake"
    )


def test_a_preempted_job_runs_again(cluster, folder):
    (folder / "Snakefile").write_text(WAITING)
    (folder / "seconds").write_text("30")
    scavenge = {"partitions": {"scavenge": {}}}
    (folder / "profiles/slurm/partitions.yaml").write_text(yaml.safe_dump(scavenge))
    process = start(folder, cluster)
    wait_until((folder / "a").exists)
    wait_until((folder / "b").exists)
    urgent = ["srun", "--partition=cpu", "--cpus-per-task=4", "true"]
    assert subprocess.run(urgent, env=cluster).returncode == 0
    assert "PENDING" in states(cluster)
    (folder / "seconds").write_text("1")
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed[-3000:]
    assert [(folder / name).read_text() for name in "ab"] == ["whole\n", "whole\n"]
