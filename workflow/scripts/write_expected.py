"""Write the expected values of a study from a finished run of it.

    python workflow/scripts/write_expected.py results/organisms

writes artifact/expected/organisms.json; then `write_artifact.py` writes ARTIFACT.md again.
Exit status: 0 written, 2 a mistake in the input.
"""

import argparse
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from refusal.benchmarks import read_benchmarks
from refusal.errors import InputError
from refusal.expected import expected_file, make_expected, read_tolerances, save_expected
from refusal.finished_run import open_run

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "numpy", "scipy", "pandas", "scikit-learn", "snakemake")


def processor() -> str:
    """Return the name of this machine's processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def source(commit: str | None) -> dict:
    """Return where the run was made: commit, packages, processor."""
    if commit is None:
        command = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
        commit = done.stdout.strip() or None
    return {
        "commit": commit,
        "python": platform.python_version(),
        "packages": {name: version(name).partition("+")[0] for name in PACKAGES},
        "processor": processor(),
        "system": platform.system(),
    }


def main(given: list[str] | None = None) -> int:
    """Write what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the expected values of a study.")
    parser.add_argument("run", help="results folder of a finished run made on this machine")
    parser.add_argument("--commit", help="commit that the run was made with, if not this one")
    options = parser.parse_args(given)
    try:
        run = open_run(options.run)
        if "config" not in run.parts:
            raise InputError(f"{options.run}: no config.yaml in it. Finish the run first.")
        target = expected_file(ROOT, run.only("config"))
        floors = read_tolerances(ROOT / "artifact" / "tolerances.yaml")
        made = make_expected(run, floors, source(options.commit), read_benchmarks(run.folder))
    except InputError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    target.parent.mkdir(parents=True, exist_ok=True)
    save_expected(made, target)
    print(f"{target}: {len(made['claims'])} claims, {len(made['values'])} values")
    return 0


if __name__ == "__main__":
    sys.exit(main())
