"""Draw every figure of the paper."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from job import job
from refusal.figures import FIGURES, draw
from tables_of_study import read_geometry, read_selection

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
    }
    folder = Path(snakemake.output[0]).parent
    for name in FIGURES:
        record = draw(name, frames, folder / name, snakemake.rule)
        logging.info("%s: %s", name, record["reason"] or "drawn")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
