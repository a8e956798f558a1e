"""`snakemake --use-conda`, as typed, with nothing but Snakemake beside the environments.

The environments are real: solved and linked from a channel that is built here of the running
Python, their wheels installed by uv. That the public conda-forge has what they ask for (Python 3.11
and pip) is not seen, nor the program conda itself.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command_line import ROOT, SMOKE_STUDY, assert_same_results, clone
from packaging.utils import canonicalize_name
from test_published_kinds import mirror  # noqa: F401  (a fixture)

from refusal.environments import pinned_packages, scripts_of_environments

TOOLS = ROOT / "tests" / "conda"
RESULTS = Path("results/smoke")
PROMPTS = RESULTS / "prompts" / "published_kinds.parquet"
NOT_PINNED = ("pip==", "nvidia-", "cuda-", "triton==")
PUBLISHED = {"source": "arditi2024", "published_kinds": True}
# Sourced by Snakemake before every job.
ACTIVATE = 'export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\nunset PYTHONPATH PYTHONHOME\n'
# uv finds local wheels where pip does.
LINKS = os.environ.get("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", ""))
SURROUNDINGS = os.environ | {"UV_FIND_LINKS": LINKS, "COLUMNS": "200"}


def uv(*words: str | Path) -> str:
    """Run the uv that `make` installs beside Python; returns what it printed."""
    command = [Path(sys.executable).with_name("uv"), *words]
    done = subprocess.run(command, env=SURROUNDINGS, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A conda installation with a channel `conda-forge` of its own."""
    folder = tmp_path_factory.mktemp("conda")
    uv("venv", "--quiet", "--python", sys.executable, folder / "tools")
    python = folder / "tools" / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", python, "-r", TOOLS / "requirements.txt")
    subprocess.run([python, TOOLS / "channel.py", folder / "channels/conda-forge"], check=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "activate").write_text(ACTIVATE)
    conda = folder / "bin" / "conda"
    words = shlex.join(map(str, (python, TOOLS / "conda.py")))
    conda.write_text(f'#!/bin/sh\nexport CONDA_ROOT={folder}\nexec {words} "$@"\n')
    conda.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The programs of an environment that holds Snakemake alone, as pinned."""
    folder = tmp_path_factory.mktemp("snakemake")
    uv("venv", "--quiet", "--python", sys.executable, folder)
    python, pins = folder / "bin" / "python", ROOT / "requirements.txt"
    uv("pip", "install", "--quiet", "--python", python, "--constraint", pins, "snakemake")
    for package in ("numpy", "pandas", "torch"):
        assert subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode
    return folder / "bin"


@pytest.fixture(scope="module")
def run(home, alone, tmp_path_factory):
    """A function that runs Snakemake in a fresh clone (`run.folder`) with conda on the path."""
    folder = clone(tmp_path_factory.mktemp("clone"))
    # Neither the Python of these tests nor its packages are on the path.
    surroundings = SURROUNDINGS | {"PATH": f"{home / 'bin'}:{alone}:/usr/bin:/bin"}

    def command(*words, study: str = SMOKE_STUDY) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["snakemake", "--cores", "all", *map(str, words), "--configfile", study],
            cwd=folder,
            env=surroundings,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    command.folder = folder
    return command


def overlay(folder: Path, name: str, **sections) -> str:
    """Write the smoke study with some sections extended; return its path."""
    study = yaml.safe_load((folder / SMOKE_STUDY).read_text())
    for section, values in sections.items():
        study[section] = {**study.get(section, {}), **values}
    (folder / name).write_text(yaml.safe_dump(study, sort_keys=False))
    return name


@pytest.fixture(scope="module")
def finished(run):
    """The runner after the smoke study has run to the PDF, with `--use-conda`."""
    done = run("--use-conda")
    assert done.returncode == 0, done.stdout[-6000:]
    run.shown = shlex.join(done.args)
    return run


def test_the_study_ends_with_the_paper_and_the_tables_of_a_run_without_conda(finished, smoke_run):
    paper = finished.folder / RESULTS / "paper" / "main.pdf"
    assert paper.read_bytes().startswith(b"%PDF")
    assert_same_results(finished.folder / RESULTS, smoke_run / RESULTS)


@pytest.mark.parametrize("document", ["README.md", "docs/conda.md"])
def test_documents_show_the_command_that_was_run(finished, document):
    lines = (ROOT / document).read_text().splitlines()
    assert finished.shown in [line.partition("  #")[0].strip() for line in lines]


def test_the_other_spelling_has_nothing_left_to_do(finished):
    done = finished("--sdm", "conda")
    assert done.returncode == 0, done.stdout
    assert "Nothing to be done" in done.stdout and "Creating conda environment" not in done.stdout


@pytest.fixture(scope="module")
def environments(run) -> dict[str, Path]:
    """Python in every environment by name, those too that the smoke study leaves out."""
    study = overlay(run.folder, "others.yaml", scores={"models": ["wildguard"]}, prompts=PUBLISHED)
    # An archive holds what git tracks.
    for git in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *git], cwd=run.folder, check=True)
    judged = RESULTS / "judgements" / "neox-0" / "wildguard.parquet"
    words = ("--sdm", "conda", "--conda-create-envs-only", judged, PROMPTS, "archive", "container")
    done = run(*words, study=study)
    assert done.returncode == 0, done.stdout[-6000:]
    made = {path.read_text(): path for path in (run.folder / ".snakemake/conda").glob("*.yaml")}
    return {
        path.stem: made[path.read_text()].with_suffix("") / "bin" / "python"
        for path in sorted((run.folder / "envs").glob("*.yaml"))
    }


def test_every_script_is_imported_in_its_environment(environments):
    """All of them, and without the packages of Snakemake."""
    scripts = ROOT / "workflow" / "scripts"
    code = "import importlib, sys; sys.path.insert(0, sys.argv[1])\n"
    code += "for name in sys.argv[2:]: importlib.import_module(name)"
    for name, used in scripts_of_environments(ROOT / "rules").items():
        modules = [script.removesuffix(".py") for script in used]
        words = [environments[name], "-I", "-c", code, str(scripts), *modules]
        done = subprocess.run(words, text=True, capture_output=True)
        assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"


def test_environments_hold_what_is_pinned_and_nothing_contradicts(environments):
    for name, python in environments.items():
        listed = json.loads(uv("pip", "list", "--python", python, "--format", "json"))
        found = {
            f"{canonicalize_name(entry['name'])}=={entry['version'].partition('+')[0]}"
            for entry in listed
        }
        pinned = set(pinned_packages(ROOT / "envs" / f"{name}.yaml"))
        assert pinned <= found, name
        # Torch brings its own packages for CUDA where it is built for it.
        others = [package for package in found - pinned if not package.startswith(NOT_PINNED)]
        assert not others, name
        uv("pip", "check", "--python", python)


def test_a_model_judges_in_its_environment(finished):
    judge = {"path": str(RESULTS / "models" / "neox-0"), "prompt": "wildguard"}
    judge |= {"parse": "strongreject", "rule": "published", "dtype": "float32", "device": "cpu"}
    sections = {"scores": {"models": ["own"]}, "judges": {"own": judge}}
    study = overlay(finished.folder, "judged.yaml", **sections)
    target = RESULTS / "judgements" / "neox-0" / "own.parquet"
    done = finished("--use-conda", target, study=study)
    assert done.returncode == 0, done.stdout[-3000:]
    assert pd.read_parquet(finished.folder / target).verdict.notna().all()


@pytest.fixture
def changed(run):
    """A function that replaces text in an environment file until the test is over."""
    before = {}

    def change(name: str, old: str, new: str) -> None:
        path = run.folder / "envs" / f"{name}.yaml"
        before[path] = path.read_text()
        assert old in before[path]
        path.write_text(before[path].replace(old, new))

    yield change
    for path, text in before.items():
        path.write_text(text)


@pytest.fixture
def published(run, mirror) -> str:  # noqa: F811
    """A study with published prompts, from small mirrors."""
    return overlay(run.folder, "published.yaml", prompts={**PUBLISHED, "mirror": str(mirror)})


def test_a_package_missing_from_an_environment_fails_the_job(run, changed, published):
    """Nothing of the environment of these tests stands in for it."""
    changed("data", "      - datasets==", "      # - datasets==")
    done = run("--use-conda", PROMPTS, study=published)
    assert done.returncode != 0
    assert "No module named 'datasets'" in done.stdout, done.stdout
    assert not (run.folder / PROMPTS).exists()


def test_prompts_are_fetched_in_their_environment(run, published):
    done = run("--use-conda", PROMPTS, study=published)
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(pd.read_parquet(run.folder / PROMPTS))


@pytest.mark.parametrize(
    "old, new, reason",
    [
        ("python =3.11", "python =3.99", "No candidates were found"),
        ("pyyaml==", "pyyaml==99.", "no version of pyyaml==99."),
    ],
)
def test_an_environment_that_cannot_be_made_is_named(run, changed, old, new, reason):
    changed("workflow", old, new)
    done = run(RESULTS / "config.yaml", "--use-conda", "--forcerun", "config")
    assert done.returncode != 0
    assert "envs/workflow.yaml" in done.stdout and reason in done.stdout, done.stdout
