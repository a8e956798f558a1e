"""Write the tables that the rule asks for, and the numbers of its text."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import numpy as np
import pandas as pd
import yaml

from refusal.numbers import collect_numbers
from refusal.tables import TABLES
from tables_of_study import read_experiments, read_geometry, read_selection

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    inputs = snakemake.input
    frames = {
        "cards": [json.loads(Path(path).read_text()) for path in inputs.cards],
        "claims": json.loads(Path(inputs.claims).read_text()),
        "summary": pd.read_parquet(inputs.summary),
        "comparisons": pd.read_parquet(inputs.comparisons),
        "agreement": pd.read_parquet(inputs.agreement),
        "angles": pd.read_parquet(inputs.angles),
        "cosines": read_geometry(inputs.cosines),
        "selection": read_selection(inputs.selection),
        "class_sizes": read_class_sizes(inputs.means),
        "examples": _examples(snakemake),
        "published": yaml.safe_load(Path(inputs.published).read_text()),
        **read_experiments(inputs.experiments),
    }
    for path in map(Path, snakemake.output.tables):
        recipe = TABLES[path.stem]
        source = recipe.function(*(frames[frame] for frame in recipe.frames))
        path.write_text(f"% made by rule {snakemake.rule}\n{source}")
    numbers = collect_numbers(frames)
    Path(snakemake.output.numbers).write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")


def read_class_sizes(paths: Iterable[str]) -> pd.DataFrame:
    """Return training prompts per class after filtering: columns model, harmful, harmless.

    `paths`: directions/<model>/means.npz of every model.
    """
    rows = []
    for path in map(Path, paths):
        with np.load(path) as means:
            sizes = {label: int(means[f"n_{label}"]) for label in ("harmful", "harmless")}
        rows.append({"model": path.parent.name} | sizes)
    return pd.DataFrame(rows)


def _examples(snakemake: "snakemake") -> pd.DataFrame:
    """Return the first completions of harmful prompts; organisms only, whose texts are empty."""
    prompts = pd.read_parquet(snakemake.input.prompts[0])[["id", "label", "text"]]
    chosen = prompts[(prompts.label == "harmful") & prompts.id.str.contains("test")]
    tables = []
    for path in map(Path, snakemake.input.examples):
        table = chosen.head(1).merge(pd.read_parquet(path), on="id")
        tables.append(table.assign(model=path.parent.name, intervention=path.stem))
    columns = ["model", "intervention", "text", "completion"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
