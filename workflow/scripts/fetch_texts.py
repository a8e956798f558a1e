"""Fetch the published texts on which losses are measured."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.published import read_table
from refusal.published_texts import published_texts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    params = snakemake.params
    mirror = Path(params.mirror) if params.mirror else None
    texts = published_texts(read_table(snakemake.input.table), params.size, params.seed, mirror)
    texts.to_parquet(snakemake.output[0], index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
