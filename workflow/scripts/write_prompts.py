"""Write all prompts of the study, from the grammar or from the user's file."""

from typing import TYPE_CHECKING

import pandas as pd

from job import job
from refusal.prompts import add_kinds, grammar_prompts, read_prompts, sample_prompts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings, seed = snakemake.params.settings, snakemake.params.seed
    if settings["source"] == "grammar":
        prompts = grammar_prompts(settings["sizes"], seed)
    else:
        prompts = sample_prompts(read_prompts(settings["source"]), settings["sizes"], seed)
    if snakemake.input.kinds:
        prompts = add_kinds(prompts, pd.read_parquet(snakemake.input.kinds[0]))
    prompts.to_parquet(snakemake.output[0], index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
