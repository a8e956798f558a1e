"""Run every estimator on one planted organism: how much of U and its effect does it find?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from planted_directions import find, kept_rows, kinds_directions, oracle, read
from planted_effects import intervene, measure
from planted_gradient import by_gradient
from planted_model import load_organism
from refusal.gradient_directions import Addition
from refusal.planted_estimators import NEAREST, ORACLE, nearest_difference
from refusal.planted_outcomes import outcome_table
from refusal.planted_tables import HELPFUL_ONLY, PLANTED, recovery_table, split_table
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def save(snakemake: "snakemake", name: str, table: pd.DataFrame) -> None:
    """Write a table with the organism that it is about as first columns."""
    params, inputs = snakemake.params, snakemake.input
    planted, proof = params.planted, json.loads(Path(inputs.proof).read_text())
    about = {"organism": params.organism, "base": planted["base"], "kind": planted["kind"]}
    about |= {"planted_rank": planted["rank"], "seed": planted["seed"]}
    table = table.assign(**about, accepted=proof["accepted"]).astype({"seed": "Int64"})
    columns = [*about, "accepted"]
    table = table[columns + [name for name in table.columns if name not in columns]]
    table.to_parquet(snakemake.output[name], index=False)


def main(snakemake: "snakemake") -> None:
    params = snakemake.params
    settings, statistics = params.settings, params.statistics
    organism = load_organism(snakemake.input, params.limits)
    intervals = Intervals(statistics["confidence"], statistics["resamples"], 0)

    residual, index = read(organism, organism.model)
    helpful, _ = read(organism, organism.base)
    residuals, rows = {PLANTED: residual, HELPFUL_ONLY: helpful}, kept_rows(index, "train", params)
    splits = split_table(organism.basis, residuals, rows, intervals)
    found, candidates = find(organism, residual, index, params)
    save(snakemake, "split", splits)
    save(snakemake, "candidates", candidates)

    at, dim = found.difference()
    addition = Addition(at[1], dim.norm)
    writer_blocks = params.planting["writer_blocks"]
    subspaces = {ORACLE: oracle(organism, writer_blocks), "kinds": kinds_directions(organism, at)}
    subspaces[NEAREST] = nearest_difference(found.directions["dim"], organism.basis)
    subspaces |= by_gradient(organism, addition, settings["gradient"], params.seed)
    table = recovery_table(
        organism.basis, found, subspaces, splits, settings["recovery"], intervals
    )
    save(snakemake, "recovery", table)

    interventions = intervene(organism, found, subspaces, params)
    outcomes = measure(organism, interventions, params.text_tokens)
    outcomes.responses.to_parquet(snakemake.output.responses, index=False)
    recipes = {name: intervention.recipe for name, intervention in interventions.items()}
    truth, bound = f"{ORACLE}_removal-k{organism.rank}", settings["perplexity_max"]
    save(snakemake, "outcomes", outcome_table(outcomes, recipes, truth, bound, intervals))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
