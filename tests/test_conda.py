"""`snakemake --use-conda`, as typed, with nothing but Snakemake beside the environments.

The environments are real: solved and linked from a channel that is built here of the running
Python, their wheels installed by their own pip. That the public conda-forge has what they ask for
(Python 3.11 and pip) is not seen, nor the program conda itself.
"""

import json
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command_line import ROOT, clone
from packaging.utils import canonicalize_name
from test_published_kinds import mirror  # noqa: F401  (a fixture)

from refusal.environments import pinned_packages, scripts_of_environments

TOOLS = ROOT / "tests" / "conda"
RESULTS = Path("results/smoke")
PROMPTS = RESULTS / "prompts" / "published_kinds.parquet"
# Of the experiments, only the one with an environment of its own is left in.
LEFT_OUT = "weights suffix attacks before_tuning windows heads kinds knob styles sparse_features"
NOT_PINNED = ("pip==", "nvidia-", "cuda-", "triton==")
PUBLISHED = {"source": "arditi2024", "published_kinds": True}
# Sourced by Snakemake before every job.
ACTIVATE = 'export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\nunset PYTHONPATH PYTHONHOME\n'


def uv(*words: str | Path) -> None:
    """Run the uv that `make` installs beside Python."""
    links = os.environ.get("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", ""))
    command = [Path(sys.executable).with_name("uv"), *words]
    done = subprocess.run(
        command, env={**os.environ, "UV_FIND_LINKS": links}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A conda installation with a channel `conda-forge` of its own."""
    if "posix_local" in sysconfig.get_scheme_names():
        pytest.skip("a copy of Debian's own Python looks elsewhere for packages; take another one")
    folder = tmp_path_factory.mktemp("conda")
    uv("venv", "--quiet", "--python", sys.executable, folder / "tools")
    python = folder / "tools" / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", python, "-r", TOOLS / "requirements.txt")
    channels = folder / "channels"
    subprocess.run([python, TOOLS / "channel.py", channels / "conda-forge"], check=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "activate").write_text(ACTIVATE)
    conda = folder / "bin" / "conda"
    words = shlex.join(map(str, (python, TOOLS / "conda.py")))
    conda.write_text(f'#!/bin/sh\nexport CONDA_CHANNELS={channels}\nexec {words} "$@"\n')
    conda.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The command `snakemake` of an environment that holds Snakemake alone, as pinned."""
    folder = tmp_path_factory.mktemp("snakemake")
    uv("venv", "--quiet", "--python", sys.executable, folder)
    python, pins = folder / "bin" / "python", ROOT / "requirements.txt"
    uv("pip", "install", "--quiet", "--python", python, "--constraint", pins, "snakemake")
    for package in ("numpy", "pandas", "torch"):
        assert subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode
    return folder / "bin" / "snakemake"


@pytest.fixture(scope="module")
def run(home, alone, tmp_path_factory):
    """A function that runs Snakemake in a fresh clone (`run.folder`) with conda on the path."""
    folder = clone(tmp_path_factory.mktemp("clone"))
    # Nothing of the environment of these tests is on the path.
    surroundings = os.environ | {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "COLUMNS": "200"}
    surroundings |= {"PIP_NO_COMPILE": "1", "PIP_NO_WARN_SCRIPT_LOCATION": "1"}

    def command(*words, study: str) -> subprocess.CompletedProcess:
        options = ["--cores", "2", "--conda-prefix", str(home / "envs"), "--configfile", study]
        return subprocess.run(
            [alone, *map(str, words), *options],
            cwd=folder,
            env=surroundings,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    command.folder, command.environments = folder, home / "envs"
    return command


def overlay(folder: Path, name: str, **sections) -> str:
    """Write the slice of the smoke study with some sections extended; return its path."""
    study = yaml.safe_load((folder / "studies/smoke.yaml").read_text())
    study["experiments"] = dict.fromkeys(LEFT_OUT.split(), False)
    for section, values in sections.items():
        study[section] = {**study.get(section, {}), **values}
    (folder / name).write_text(yaml.safe_dump(study, sort_keys=False))
    return name


@pytest.fixture(scope="module")
def finished(run):
    """The runner after the slice has run to the PDF, with `--use-conda`."""
    done = run("--use-conda", study=overlay(run.folder, "slice.yaml"))
    assert done.returncode == 0, done.stdout[-6000:]
    return run


def environment(run, name: str) -> Path:
    """Return the folder of the environment that Snakemake made of `envs/<name>.yaml`."""
    wanted = (run.folder / "envs" / f"{name}.yaml").read_bytes()
    made = [path for path in run.environments.glob("*.yaml") if path.read_bytes() == wanted]
    assert len(made) == 1, name
    return made[0].with_suffix("")


def test_the_study_ends_with_the_paper(finished):
    results = finished.folder / RESULTS
    assert (results / "paper" / "main.pdf").read_bytes().startswith(b"%PDF")
    assert pd.read_parquet(results / "statistics" / "summary.parquet").value.notna().any()


def test_the_other_spelling_finds_the_same_environments(finished):
    done = finished("--sdm", "conda", study="slice.yaml")
    assert done.returncode == 0, done.stdout
    assert "Nothing to be done" in done.stdout and "Creating conda environment" not in done.stdout


def test_every_script_is_imported_in_its_environment(finished):
    """All of them, those too that the slice leaves out, without the packages of Snakemake."""
    asked = {"scores": {"models": ["wildguard"]}}
    others = {
        RESULTS / "judgements" / "neox-0" / "wildguard.parquet": asked,
        PROMPTS: {"prompts": PUBLISHED},
    }
    for target, sections in others.items():
        study = overlay(finished.folder, "others.yaml", **sections)
        words = ("--sdm", "conda", "--conda-create-envs-only", target)
        done = finished(*words, study=study)
        assert done.returncode == 0, done.stdout[-6000:]
    scripts = finished.folder / "workflow" / "scripts"
    code = "import importlib, sys; sys.path.insert(0, sys.argv[1])\n"
    code += "for name in sys.argv[2:]: importlib.import_module(name)"
    for name, used in scripts_of_environments(finished.folder / "rules").items():
        python = environment(finished, name) / "bin" / "python"
        modules = [script.removesuffix(".py") for script in used]
        words = [python, "-I", "-c", code, str(scripts), *modules]
        done = subprocess.run(words, text=True, capture_output=True)
        assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"


def test_environments_hold_what_is_pinned_and_nothing_contradicts(finished):
    for name in ("workflow", "statistics", "models", "evaluation", "figures", "paper"):
        python = environment(finished, name) / "bin" / "python"
        command = [python, "-m", "pip", "list", "--format", "json"]
        listed = subprocess.run(command, text=True, capture_output=True, check=True)
        found = {
            f"{canonicalize_name(entry['name'])}=={entry['version'].partition('+')[0]}"
            for entry in json.loads(listed.stdout)
        }
        pinned = set(pinned_packages(finished.folder / "envs" / f"{name}.yaml"))
        assert pinned <= found, name
        # Torch brings its own packages for CUDA where it is built for it.
        others = [package for package in found - pinned if not package.startswith(NOT_PINNED)]
        assert not others, name
        checked = subprocess.run([python, "-m", "pip", "check"], text=True, capture_output=True)
        assert checked.returncode == 0, f"{name}: {checked.stdout}"


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
        ("pyyaml==", "pyyaml==99.", "No matching distribution"),
    ],
)
def test_an_environment_that_cannot_be_made_is_named(run, changed, old, new, reason):
    changed("workflow", old, new)
    study, target = overlay(run.folder, "slice.yaml"), RESULTS / "config.yaml"
    done = run(target, "--use-conda", "--forcerun", "config", study=study)
    assert done.returncode != 0
    assert "envs/workflow.yaml" in done.stdout and reason in done.stdout, done.stdout
