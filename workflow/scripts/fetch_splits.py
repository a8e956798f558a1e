"""Fetch the published splits, each file checked against its checksum."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.published import read_table
from refusal.published_splits import fetch_splits

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    mirror = snakemake.params.mirror
    targets = dict(zip(snakemake.params.names, map(Path, snakemake.output), strict=True))
    fetch_splits(read_table(snakemake.input.table), targets, Path(mirror) if mirror else None)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
