"""Pack a finished study into one file for review: code, configuration, results, provenance."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import yaml

from refusal.archive import archived_files, shared_results, write_archive
from refusal.provenance import describe_run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    root, results = Path.cwd(), Path(snakemake.input.config).parent
    files = archived_files(root, results, shared_results(results))
    if snakemake.input.bundle:
        bundle = Path(snakemake.input.bundle)
        files[f"results/{results.name}/archive/{bundle.name}"] = bundle
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    metadata = describe_run(files, results.name, citation)
    target = Path(snakemake.output[0])
    write_archive(target, files, metadata)
    logging.info("%s: %d files, %.1f MB", target, len(files), target.stat().st_size / 1e6)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
