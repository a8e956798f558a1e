"""Check the claims on planted organisms against the tables of their estimators."""

import logging
from typing import TYPE_CHECKING

import pandas as pd

from job import job
from refusal.claims import evaluate_claims, load_claims, save_verdicts
from refusal.planted_claims import planted_summary

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

NO_COMPARISONS = pd.DataFrame(columns=["model", "left", "right", "dataset", "metric", "judge"])


def main(snakemake: "snakemake") -> None:
    inputs, output = snakemake.input, snakemake.output
    names = ("organisms", "outcomes", "recovery", "split", "candidates")
    tables = {name: pd.read_parquet(inputs[name]) for name in names}
    summary = planted_summary(tables, snakemake.params.confidence)
    summary.to_parquet(output.summary, index=False)
    verdicts = evaluate_claims(load_claims(inputs.claims, "planted"), summary, NO_COMPARISONS)
    for name, claim in verdicts.items():
        logging.info("%s: %s", name, claim["overall"]["verdict"])
    save_verdicts(output.claims, verdicts)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
