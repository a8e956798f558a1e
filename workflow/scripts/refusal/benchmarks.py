"""What the rules of a finished run took, from Snakemake's benchmark files."""

from pathlib import Path

import pandas as pd

from refusal.errors import InputError

COLUMNS = ["rule", "jobs", "wall_s", "cpu_s", "memory_mb"]


def read_benchmarks(folder: str | Path) -> pd.DataFrame:
    """One row per stage of results/<study>/benchmarks, the longest first.

    Returns:
        rule (stage), jobs, wall_s and cpu_s (seconds, sums over jobs), memory_mb (largest resident
        set of a job; 0 where every job was shorter than a second).

    Raises:
        InputError: no benchmark, or a file that is none.
    """
    benchmarks = Path(folder) / "benchmarks"
    rows = [_row(path, benchmarks) for path in sorted(benchmarks.rglob("*.tsv"))]
    if not rows:
        raise InputError(f"{benchmarks}: no benchmarks. Give the results of a run made here.")
    frame = (
        pd.DataFrame(rows, columns=COLUMNS)
        .groupby("rule", as_index=False)
        .agg(
            jobs=("jobs", "sum"),
            wall_s=("wall_s", "sum"),
            cpu_s=("cpu_s", "sum"),
            memory_mb=("memory_mb", "max"),
        )
    )
    ordered = frame.sort_values("cpu_s", ascending=False, kind="stable", ignore_index=True)
    return ordered.round({"wall_s": 1, "cpu_s": 1, "memory_mb": 0})


def _row(path: Path, benchmarks: Path) -> list:
    """A benchmark file: benchmarks/<stage>/... or benchmarks/<stage>.tsv, one line per repeat."""
    try:
        lines = pd.read_csv(path, sep="\t", na_values="-")
        numbers = [lines["s"].sum(), lines["cpu_time"].sum(), lines["max_rss"].fillna(0).max()]
    except (OSError, ValueError, KeyError):
        raise InputError(f"{path}: not a benchmark of Snakemake. Remove it.") from None
    stage = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
    return [stage, len(lines), *map(float, numbers)]
