"""profiles/slurm on a real SLURM of one node: the smoke study to its PDF, and what goes wrong."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from command_line import ROOT, SMOKE_STUDY, assert_same_results, clone
from slurm_cluster import ask, running_slurm, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

RESULTS = Path("results/smoke")
COMMAND = ["--profile", "profiles/slurm"]
OF_THE_STUDY = ["--configfile", SMOKE_STUDY]
# To ask as rarely as the profile says would make a test of seconds one of minutes; no network file
# system is waited for.
OFTEN = {
    "latency-wait: 60": "latency-wait: 5",
    "slurm-init-seconds-before-status-checks: 20": "slurm-init-seconds-before-status-checks: 2",
}
# Rules that fail in the ways of clusters, once: what they ask for follows from the attempt.
FAILING = """\
rule all:
    input: "hungry", "late", "plain", "graphics"
rule before:
    output: "before"
    group: "pair"
    resources: mem_mb=100
    shell: "echo run >> attempts_before; touch {output}"
rule hungry:
    input: "before"
    output: "hungry"
    group: "pair"
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


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke study, started on a cluster of its own: the other tests mostly wait."""
    folder = clone(tmp_path_factory.mktemp("study") / "clone")
    poll_often(folder)
    printed = folder.with_name("printed.txt")
    with running_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        environment |= {"COLUMNS": "200"}
        with printed.open("w") as file:
            process = start(folder, environment, *OF_THE_STUDY, printed=file)
        yield SimpleNamespace(
            folder=folder, environment=environment, process=process, printed=printed
        )
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty workflow with the profiles of this repository."""
    for name in ("default", "slurm"):
        target = tmp_path / "profiles" / name
        target.mkdir(parents=True)
        for file in (ROOT / "profiles" / name).iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    poll_often(tmp_path)
    return tmp_path


def poll_often(folder: Path) -> None:
    """Have the profile in a folder ask for the state of jobs every other second."""
    file = folder / "profiles/slurm/config.yaml"
    text = file.read_text()
    for given, wanted in OFTEN.items():
        assert given in text
        text = text.replace(given, wanted)
    file.write_text(text)


def start(
    folder: Path, environment: dict[str, str], *arguments: str, printed=subprocess.PIPE
) -> subprocess.Popen:
    """Start snakemake as from a shell; it minds Ctrl-C even where this process does not."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *COMMAND, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=printed,
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


def comments(environment: dict[str, str]) -> list[str]:
    """What the jobs do that the controller remembers: rule and wildcards."""
    return ask(environment, "squeue", "-h", "--states=all", "-o", "%k").splitlines()


def wait_until(condition, seconds: int = 120) -> None:
    """Wait for something to become true.

    Raises:
        AssertionError: it did not.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.5)


def test_the_smoke_study_is_submitted_with_what_waits_in_the_queue_together(study):
    """It goes on while the tests that follow wait for their own jobs."""
    wait_until(lambda: "rule_corpora" in comments(study.environment), seconds=180)
    together = "rule_directions_activations_card_directions_organism"
    wait_until(lambda: together in comments(study.environment), seconds=180)


def test_the_documentation_shows_the_command_that_is_run():
    command = shlex.join([".venv/bin/snakemake", *COMMAND, *OF_THE_STUDY])
    for document in ("README.md", "docs/cluster.md"):
        lines = (ROOT / document).read_text().splitlines()
        assert command in [line.partition("  #")[0].strip() for line in lines], document


def test_jobs_killed_for_memory_or_time_get_more_and_each_finds_its_partition(cluster, folder):
    (folder / "Snakefile").write_text(FAILING)
    status, printed = snakemake(folder, cluster)
    assert status == 0, printed[-6000:]
    # Once per attempt: the Snakemake inside a job does not retry under the old limits.
    assert (folder / "attempts_hungry").read_text().split() == ["300", "1200"]
    # Stages that wait in the queue together are repeated together.
    assert (folder / "attempts_before").read_text().split() == ["run", "run"]
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


def all_started(environment: dict[str, str]) -> bool:
    """Let preempted jobs start, which SLURM holds back for two minutes; True when they have."""
    for job in ask(environment, "squeue", "-h", "--states=PENDING", "-o", "%i").split():
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=environment)
    return "PENDING" not in states(environment)


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
    wait_until(lambda: all_started(cluster))
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed[-3000:]
    assert [(folder / name).read_text() for name in "ab"] == ["whole\n", "whole\n"]


def test_the_smoke_study_ends_with_the_files_of_a_run_on_one_machine(study, smoke_run):
    assert study.process.wait(timeout=1500) == 0, study.printed.read_text()[-6000:]
    assert (study.folder / RESULTS / "paper/main.pdf").read_bytes().startswith(b"%PDF")
    assert_same_results(study.folder / RESULTS, smoke_run / RESULTS)
    jobs = comments(study.environment)
    assert len(jobs) > 20
    assert "rule_statistics_figures_statistics" in jobs
    # What is fetched, typeset or done in a second stays on the machine that started the workflow.
    for rule in ("config", "prompts", "claims", "tables", "paper"):
        assert f"(Rule: {rule})" in study.printed.read_text()
        assert f"rule_{rule}" not in jobs
