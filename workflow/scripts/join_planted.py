"""Join one table of all planted organisms, with means over the accepted ones of every kind."""

from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.planted_measures import means_over_organisms

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# What organisms share of a row; candidates and their layers differ between them.
KEYS = {
    "outcomes": ["kind", "intervention", "dataset", "metric"],
    "recovery": ["kind", "method", "scope", "directions"],
    "split": ["kind", "model", "position", "layer", "metric"],
}


def main(snakemake: "snakemake") -> None:
    name = snakemake.wildcards.table
    table = pd.concat([pd.read_parquet(path) for path in snakemake.input.tables])
    if name in KEYS:
        means = means_over_organisms(table, KEYS[name], snakemake.params.confidence)
        table = pd.concat([table, means])
    table.reset_index(drop=True).to_parquet(snakemake.output[0], index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
