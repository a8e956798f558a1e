"""Measure whether edited weights do what hooks do."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from loading import load_card, load_from_card
from refusal.equivalence import compare_with_hooks, equivalence_summary, prompts_table
from refusal.interventions import load_intervention
from refusal.models import encode_prompts
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    name, settings = snakemake.wildcards.model, snakemake.params.settings
    intervals = Intervals(settings["confidence"], settings["resamples"], snakemake.params.seed)
    recipes = [path for path in snakemake.input.interventions if path.endswith(".json")]
    interventions = {Path(path).stem: load_intervention(path) for path in recipes}
    prompts = pd.read_parquet(snakemake.input.prompts[0])
    prompts = prompts.query("split == 'test' and label in ('harmful', 'harmless')")
    model, tokenizer = load_from_card(load_card(snakemake.input.card[0]), snakemake.params.model)
    compared = compare_with_hooks(
        model,
        encode_prompts(tokenizer, list(prompts.text)),
        {key: intervention.operator for key, intervention in interventions.items()},
        max_tokens=snakemake.params.max_tokens,
    )
    table = prompts_table(name, model, compared, prompts)
    table.to_parquet(snakemake.output.prompts, index=False)
    used = {key: intervention.recipe for key, intervention in interventions.items()}
    rows = equivalence_summary(snakemake.params.study, table, used, intervals)
    rows.to_parquet(snakemake.output.summary, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
