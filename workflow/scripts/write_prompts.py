"""Write all prompts of the study, from the grammar or from the user's file."""

from typing import TYPE_CHECKING

from job import job
from refusal.prompts import grammar_prompts, read_prompts, sample_prompts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings, seed = snakemake.params.settings, snakemake.params.seed
    if settings["source"] == "grammar":
        prompts = grammar_prompts(settings["sizes"], seed)
    else:
        prompts = sample_prompts(read_prompts(settings["source"]), settings["sizes"], seed)
    prompts.to_parquet(snakemake.output[0], index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
