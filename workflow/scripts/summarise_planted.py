"""Join the tables of all planted organisms, with means, and decide the claims that read them."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.claims import evaluate_claims, load_claims, save_verdicts
from refusal.planted_claims import planted_summary
from refusal.planted_measures import means_over_organisms
from refusal.planted_reading import method_table, parts_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# What organisms share of a row; candidates and their layers differ between them.
KEYS = {
    "outcomes": ["kind", "intervention", "dataset", "metric"],
    "recovery": ["kind", "method", "scope", "directions"],
    "split": ["kind", "model", "position", "layer", "metric"],
    "candidates": None,
}
NO_COMPARISONS = pd.DataFrame(columns=["model", "left", "right", "dataset", "metric", "judge"])


def joined(paths: Iterable[str], keys: list[str] | None, confidence: float) -> pd.DataFrame:
    """Return one table of all organisms, and by `keys`, if given, means over the accepted ones."""
    table = pd.concat([pd.read_parquet(path) for path in paths])
    if keys:
        table = pd.concat([table, means_over_organisms(table, keys, confidence)])
    return table.reset_index(drop=True)


def main(snakemake: "snakemake") -> None:
    inputs, output = snakemake.input, snakemake.output
    confidence = snakemake.params.confidence
    tables = {name: joined(inputs[name], keys, confidence) for name, keys in KEYS.items()}
    for name, table in tables.items():
        table.to_parquet(output[name], index=False)
    tables["organisms"] = pd.read_parquet(inputs.organisms)
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
