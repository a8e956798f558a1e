"""Measure principal angles between INLP subspaces across layers and models."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.directions import load_directions
from refusal.geometry import subspace_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

RANKS = (1, 2, 4, 8)


def main(snakemake: "snakemake") -> None:
    tables = []
    for method in ("inlp_faithful", "inlp_corrected"):
        subspaces = {}
        for path in (Path(p) for p in snakemake.input.directions if Path(p).stem == method):
            model = path.parent.name
            position = _position(snakemake.input.selection, model, method)
            for (at, layer), direction in load_directions(path).items():
                if at == position and direction.rank:
                    subspaces[model, layer] = direction.basis
        tables.append(subspace_table(method, subspaces, RANKS, seed=snakemake.params.seed))
    pd.concat(tables).to_parquet(snakemake.output[0], index=False)


def _position(selection: list[str], model: str, method: str) -> int:
    """Return the position of the candidate that was selected by local scores."""
    path = next(p for p in selection if Path(p).parent.name == model and Path(p).stem == method)
    table = pd.read_parquet(path)
    return int(table[table.selected & (table.scope == "source")].iloc[0].position)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
