"""Pack the source of the paper as arXiv takes it, after it was compiled on its own."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.submission import write_bundle

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    results = Path(snakemake.input.paper).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(results, Path(folder), Path(snakemake.output[0]))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
