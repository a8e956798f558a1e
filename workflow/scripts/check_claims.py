"""Check every claim of paper/claims.yaml against the statistics."""

import logging
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.claims import evaluate_claims, load_claims, save_verdicts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    verdicts = evaluate_claims(
        load_claims(snakemake.input.claims),
        pd.read_parquet(snakemake.input.summary),
        pd.read_parquet(snakemake.input.comparisons),
    )
    for name, claim in verdicts.items():
        logging.info("%s: %s", name, claim["overall"]["verdict"])
    save_verdicts(snakemake.output[0], verdicts)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
