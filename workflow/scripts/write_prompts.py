"""Write all prompts of the study: of the grammar, the published splits or the user's file."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.prompts import (
    add_kinds,
    grammar_prompts,
    read_prompts,
    replace_texts,
    sample_prompts,
)
from refusal.published import read_table
from refusal.published_splits import sample_splits

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def prompts_of_source(snakemake: "snakemake") -> pd.DataFrame:
    """Return the prompts of the grammar, of the published splits or of the user's file."""
    settings, seed = snakemake.params.settings, snakemake.params.seed
    if settings["source"] == "grammar":
        return grammar_prompts(settings["sizes"], seed)
    if settings["source"] == "arditi2024":
        files = {Path(file).stem: Path(file) for file in snakemake.input.splits}
        table = read_table(snakemake.input.table)
        return sample_splits(table, files, settings["sizes"], seed, settings["benchmarks"])
    return sample_prompts(read_prompts(settings["source"]), settings["sizes"], seed)


def main(snakemake: "snakemake") -> None:
    prompts = prompts_of_source(snakemake)
    if snakemake.input.texts:
        prompts = replace_texts(prompts, pd.read_parquet(snakemake.input.texts[0]))
    if snakemake.input.kinds:
        prompts = add_kinds(prompts, pd.read_parquet(snakemake.input.kinds[0]))
    prompts.to_parquet(snakemake.output[0], index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
