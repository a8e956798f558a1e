"""Where the parts of a finished run lie in its results folder.

Imports nothing but the standard library, since the rules read it before any work starts.
"""

from pathlib import Path

# What is compared of two runs, each part as patterns below results/<study>/.
PARTS = {
    "config": "config.yaml",
    "prompts": "prompts/prompts.parquet",
    "estimates": "statistics/summary.parquet",
    "comparisons": "statistics/comparisons.parquet",
    "claims": "claims.json",
    "scores": "scores/*/*.parquet",
    "selection": "selection/*/*.parquet",
    "figures": "figures/*.png",
}
# Working files, timings, and what is made of finished results: no result of the run.
NO_RESULTS = ("store", "benchmarks", "compare", "archive", "explorer.html", "report.zip")


def part_files(folder: str | Path) -> dict[str, list[Path]]:
    """Files of each part of a run; parts that the folder does not have are left out."""
    folder = Path(folder).expanduser()
    found = {part: sorted(folder.glob(pattern)) for part, pattern in PARTS.items()}
    return {part: files for part, files in found.items() if files}


def result_files(folder: str | Path) -> list[str]:
    """Paths of all results below a run's folder, relative to it."""
    folder = Path(folder).expanduser()
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name.as_posix() for name in names if name.parts[0] not in NO_RESULTS)
