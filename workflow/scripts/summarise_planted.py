"""Means over planted organisms by method and layer, and the claims that are read from them."""

import logging
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.claims import evaluate_claims, load_claims, save_verdicts
from refusal.planted_claims import planted_summary
from refusal.planted_reading import method_table, parts_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

TABLES = ("organisms", "outcomes", "recovery", "split", "candidates")
NO_COMPARISONS = pd.DataFrame(columns=["model", "left", "right", "dataset", "metric", "judge"])


def main(snakemake: "snakemake") -> None:
    inputs, output = snakemake.input, snakemake.output
    confidence = snakemake.params.confidence
    tables = {name: pd.read_parquet(inputs[name]) for name in TABLES}
    method_table(tables, confidence).to_parquet(output.methods, index=False)
    parts_table(tables, confidence).to_parquet(output.parts, index=False)
    summary = planted_summary(tables, confidence)
    summary.to_parquet(output.summary, index=False)
    verdicts = evaluate_claims(load_claims(inputs.claims, "planted"), summary, NO_COMPARISONS)
    for name, claim in verdicts.items():
        logging.info("%s: %s", name, claim["overall"]["verdict"])
    save_verdicts(output.claims, verdicts)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
