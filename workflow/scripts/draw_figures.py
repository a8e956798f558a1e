"""Draw the figures that the rule asks for."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.figures import draw
from tables_of_study import read_experiments, read_geometry, read_selection

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    frames = {
        "summary": pd.read_parquet(snakemake.input.summary),
        "agreement": pd.read_parquet(snakemake.input.agreement),
        "landing": read_geometry(snakemake.input.landing),
        "projections": read_geometry(snakemake.input.projections),
        "cosines": read_geometry(snakemake.input.cosines),
        "selection": read_selection(snakemake.input.selection),
        **read_experiments(snakemake.input.experiments),
    }
    stems = dict.fromkeys(Path(path).with_suffix("") for path in snakemake.output)
    for stem in stems:
        record = draw(stem.name, frames, stem, snakemake.rule)
        logging.info("%s: %s", stem.name, record["reason"] or "drawn")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
