"""Measure where interventions land activations, and how directions lie to each other."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.activations import load_activations
from refusal.directions import load_directions, load_means
from refusal.geometry import (
    cosines,
    landing,
    landing_summary,
    projection_summary,
    projections,
)
from refusal.interventions import load_intervention
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings, model = snakemake.params.settings, snakemake.wildcards.model
    study = snakemake.params.study
    intervals = Intervals(settings["confidence"], settings["resamples"], snakemake.params.seed)
    residual, index = load_activations(snakemake.input.residual)
    paths = [Path(path) for path in snakemake.input.recipes if path.endswith(".json")]
    recipes = {path.stem: json.loads(path.read_text()) for path in paths}
    interventions = {path.stem: load_intervention(path) for path in paths}
    directions = {Path(path).stem: load_directions(path) for path in snakemake.input.directions}

    landed = landing(model, residual, index, load_means(snakemake.input.means), interventions)
    landed.to_parquet(snakemake.output.landing, index=False)

    compared = [
        cosines(model, method, directions["dim"], directions[method])
        for method in ("inlp_faithful", "inlp_corrected")
    ]
    pd.concat(compared).to_parquet(snakemake.output.cosines, index=False)

    at = _dim_candidate(snakemake.input.selection)
    projected = projections(model, residual, index, directions["dim"][at], at)
    projected.to_parquet(snakemake.output.projections, index=False)

    rows = [
        landing_summary(study, model, landed, recipes, intervals),
        projection_summary(study, model, projected, recipes, intervals),
    ]
    pd.concat(rows).to_parquet(snakemake.output.summary, index=False)


def _dim_candidate(selection: list[str]) -> tuple[int, int]:
    """Return the (position, layer) of the direction that is ablated at all layers."""
    table = pd.read_parquet(next(path for path in selection if Path(path).stem == "dim"))
    row = table[table.selected & (table.scope == "all")].iloc[0]
    return int(row.position), int(row.layer)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
