"""Turn the completions of one external run into our tables of prompts and generations."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.external_completions import (
    GENERATION_COLUMNS,
    prompts_table,
    published_scores,
    read_run,
)

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    run, recipes = snakemake.params.run, snakemake.params.recipes
    folder, output = Path(snakemake.input.folder), snakemake.output
    completions = read_run(run, folder)
    prompts_table(completions, snakemake.params.name).to_parquet(output.prompts, index=False)
    published = published_scores(run, folder, completions)
    targets = (output.generations, output.published, output.recipes)
    for name, *paths in zip(completions, *targets, strict=True):
        generations, scores, recipe = map(Path, paths)
        assert generations.stem == scores.stem == recipe.stem == name
        completions[name][GENERATION_COLUMNS].to_parquet(generations, index=False)
        published[name].to_parquet(scores, index=False)
        recipe.write_text(json.dumps(recipes[name], indent=1) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
