"""Write the comparison of two finished runs: all differences, and a report."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.compare import Tolerance
from refusal.compare_folders import Settings, compare_runs
from refusal.compare_report import render_report, summarise
from refusal.errors import InputError

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    left, right = snakemake.params.folders
    if right is None:
        raise InputError("config: compare.right: no run is named. Give a results folder.")
    given = snakemake.params.settings
    settings = Settings(
        Tolerance(given["tolerance"], given["tolerances"]), given["common"], tuple(given["ignore"])
    )
    comparison = compare_runs(left, right, settings)
    comparison.differences.to_parquet(snakemake.output.differences, index=False)
    report = render_report(comparison)
    Path(snakemake.output.report).write_text(report, encoding="utf-8")
    logging.info("%s", summarise(comparison))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
