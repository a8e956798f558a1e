"""Fetch the published prompts of the eleven kinds of refusal."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.published import read_table
from refusal.published_kinds import published_prompts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings, seed = snakemake.params.settings, snakemake.params.seed
    mirror = Path(settings["mirror"]) if settings["mirror"] else None
    table = read_table(snakemake.input.table)
    prompts = published_prompts(table, settings["sizes"]["kinds"], seed, mirror)
    prompts.to_parquet(snakemake.output[0], index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
