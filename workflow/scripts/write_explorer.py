"""Write the explorer: one page that shows the study and needs nothing beside it."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.explorer.document import study_document
from refusal.explorer.page import render_page
from tables_of_study import read_geometry, read_selection

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def by_model(paths: Iterable[str], columns: list[str]) -> dict[str, dict[str, pd.DataFrame]]:
    """Return these columns of the tables <model>/<intervention>.parquet, by both."""
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    for path in map(Path, paths):
        tables.setdefault(path.parent.name, {})[path.stem] = pd.read_parquet(path, columns=columns)
    return tables


def main(snakemake: "snakemake") -> None:
    inputs, params = snakemake.input, snakemake.params
    frames = {
        "prompts": pd.read_parquet(inputs.prompts),
        "summary": pd.read_parquet(inputs.summary),
        "landing": read_geometry(inputs.landing),
        "selection": read_selection(inputs.selection),
        "generations": by_model(inputs.generations, ["id", "completion"]),
        "scores": by_model(inputs.scores, ["id", "judge", "metric", "value"]),
    }
    document = study_document(params.study, frames, params.organisms, params.settings)
    page = render_page(document, json.loads(Path(inputs.claims).read_text()))
    Path(snakemake.output[0]).write_text(page, encoding="utf-8")
    logging.info("%d models, %.1f MB", len(document["models"]), len(page.encode()) / 1e6)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
