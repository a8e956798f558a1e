"""The recipe of an image, and jobs in it, with stand-ins for conda and apptainer."""

import os
import re
import sys
from pathlib import Path

import pytest
from command_line import ROOT, SMOKE_STUDY, clone, snakemake

CONDA = """\
#!/bin/sh
case "$*" in
    *--version*) echo "conda 25.1.0" ;;
    *info*) echo '{"conda_prefix": "FOLDER/conda", "platform": "linux-64"}' ;;
    *config*) echo '{"get": {"channel_priority": "strict"}}' ;;
esac
"""
# Runs here what apptainer would run in the image, whose environments lie in a folder.
APPTAINER = """\
#!/bin/bash
[ "$1" = --version ] && { echo "apptainer version 1.3.4"; exit; }
echo "$*" >> FOLDER/asked
command="${!#}"
eval "${command//\\/conda-envs\\//FOLDER\\/conda-envs/}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A fresh clone."""
    return clone(tmp_path_factory.mktemp("container"))


@pytest.fixture
def programs(folder, monkeypatch) -> Path:
    """A folder on the path for stand-ins, with the Python of the tests behind it."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    return programs


def stand_in(programs: Path, name: str, text: str) -> None:
    """Write an executable."""
    (programs / name).write_text(text.replace("FOLDER", str(programs.parent)))
    (programs / name).chmod(0o755)


def prefixes(recipe: str) -> dict[str, str]:
    """Return where the image has each environment, by the name of its file."""
    copied = re.findall(
        r"^COPY envs/(\w+)\.yaml (/conda-envs/\w+)/environment\.yaml$", recipe, re.M
    )
    return dict(copied)


def asked(folder: Path) -> list[str]:
    """Return what apptainer was asked to run."""
    return (folder / "asked").read_text().splitlines()


def test_without_conda_the_recipe_ends_with_one_line(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    done = snakemake(folder, "container", study=SMOKE_STUDY)
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "container: the environments could not be listed. Remedy: install conda" in done.stdout
    assert not (folder / "containers/Dockerfile").exists()


def test_the_recipe_makes_every_environment_and_tex(folder, programs):
    stand_in(programs, "conda", CONDA)
    done = snakemake(folder, "container", study=SMOKE_STUDY)
    assert done.returncode == 0, done.stdout
    recipe = (folder / "containers/Dockerfile").read_text()
    made = prefixes(recipe)
    assert set(made) == {path.stem for path in (ROOT / "envs").glob("*.yaml")}
    assert len(set(made.values())) == len(made)
    for prefix in made.values():
        assert f"conda env create --prefix {prefix} --file {prefix}/environment.yaml" in recipe
    assert recipe.startswith("FROM ")
    assert all(package in recipe for package in (ROOT / "envs/tex.txt").read_text().split())


def test_a_job_runs_in_the_environment_of_the_image(folder, programs):
    """Snakemake looks in the image where the recipe puts the environment, and activates it."""
    stand_in(programs, "conda", CONDA)
    stand_in(programs, "apptainer", APPTAINER)
    stand_in(programs, "singularity", APPTAINER)
    (folder / "image.sif").touch()
    (folder / "conda/bin").mkdir(parents=True)
    (folder / "conda/bin/activate").touch()
    prefix = prefixes((folder / "containers/Dockerfile").read_text())["workflow"]
    target = "results/smoke/config.yaml"
    command = [target, "--sdm", "conda", "apptainer", "--config", "container=image.sif"]
    (folder / prefix[1:]).mkdir(parents=True)
    done = snakemake(folder, *command, study=SMOKE_STUDY)
    assert done.returncode == 0, done.stdout
    assert "container: image.sif" in (folder / target).read_text()
    (ran,) = [line for line in asked(folder) if "write_config" in line]
    assert "image.sif" in ran and prefix in ran
