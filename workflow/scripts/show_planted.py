"""Draw the figures and write the tables on planted organisms that the rule asks for."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.figures import draw
from refusal.tables import TABLES

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

FRAMES = ("organisms", "rates", "recovery", "methods", "parts")


def main(snakemake: "snakemake") -> None:
    frames = {f"planted_{name}": pd.read_parquet(snakemake.input[name]) for name in FRAMES}
    tables = list(map(Path, snakemake.output.tables))
    for path in tables:
        recipe = TABLES[path.stem]
        source = recipe.function(*(frames[frame] for frame in recipe.frames))
        path.write_text(f"% made by rule {snakemake.rule}\n{source}")
    figures = set(map(Path, snakemake.output)) - set(tables)
    for stem in sorted({path.with_suffix("") for path in figures}):
        record = draw(stem.name, frames, stem, snakemake.rule)
        logging.info("%s: %s", stem.name, record["reason"] or "drawn")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
