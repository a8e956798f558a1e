"""The command line as a user types it, in a copy of this repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
SMOKE_STUDY = "studies/smoke.yaml"
QUICK = ["--max-jobs-per-timespan", "1000/2s"]


def clone(target: Path) -> Path:
    """Copy the repository as a fresh clone would have it; returns `target`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.split("\n"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def snakemake(
    folder: Path, *arguments: str, study: str, overlay: str | None = None
) -> subprocess.CompletedProcess:
    """Run snakemake on a study, with an overlay on top of it, as from a shell in `folder`."""
    # At its end Snakemake waits for its rate limiter, ten seconds by the profile: too long here.
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *QUICK]
    return subprocess.run(
        [*command, *arguments, "--configfile", study, *([overlay] if overlay else [])],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "200", "no_proxy": "127.0.0.1"},
    )


def result_files(folder: Path) -> set[Path]:
    """The files that a run made in `folder`, but for its store of finished completions."""
    names = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    return {name for name in names if "store" not in name.parts}


def assert_same_results(one: Path, other: Path) -> None:
    """Hold a run to another one: the same files, and the same numbers in every table.

    Raises:
        AssertionError: a file is missing on one side, or a table differs.
    """
    names = result_files(one)
    assert names == result_files(other)
    tables = sorted(name for name in names if name.suffix == ".parquet")
    assert len(tables) > 10
    for name in tables:
        frames = (pd.read_parquet(folder / name) for folder in (one, other))
        pd.testing.assert_frame_equal(*frames, obj=str(name))
