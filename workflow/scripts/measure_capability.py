"""Measure what a model can do under interventions, with tasks of the lm-evaluation-harness."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from family import run_family
from loading import load_card, load_from_card
from refusal.capability import (
    capability_estimates,
    harness_model,
    load_benchmarks,
    outcomes,
    tasks_table,
)
from refusal.statistics import BASELINE, Intervals, summary_rows

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


class Capability:
    """A loaded model in the harness's wrapper, and the tasks that it is asked."""

    def __init__(self, snakemake: "snakemake") -> None:
        settings = snakemake.params.settings
        folder, questions = (
            Path(paths[0]).parent for paths in (snakemake.input.tasks, snakemake.input.questions)
        )
        # First the tasks: a mistake in them is told before a large model is loaded.
        self.benchmarks = load_benchmarks(settings["tasks"], folder, questions)
        card = load_card(snakemake.input.card[0])
        self.model, tokenizer = load_from_card(card, snakemake.params.model)
        self.harness = harness_model(self.model, tokenizer, settings["batch_size"])
        self.limit = settings["limit"]

    def run(self) -> pd.DataFrame:
        """Return the outcomes under whatever steering is in force."""
        return outcomes(self.harness, self.benchmarks, self.limit)


def main(snakemake: "snakemake") -> None:
    model, settings = snakemake.wildcards.model, snakemake.params.statistics
    targets = snakemake.output.outcomes
    run_family(snakemake, [*snakemake.input.questions, *snakemake.input.tasks], Capability, targets)

    found = {Path(path).stem: pd.read_parquet(path) for path in targets}
    tasks = tasks_table(model, snakemake.params.settings["tasks"], found[BASELINE])
    tasks.to_parquet(snakemake.output.tasks, index=False)

    paths = [Path(path) for path in snakemake.input.interventions if path.endswith(".json")]
    recipes = {path.stem: json.loads(path.read_text()) for path in paths}
    intervals = Intervals(settings["confidence"], settings["resamples"], snakemake.params.seed)
    estimates = capability_estimates(found, intervals)
    rows = summary_rows(snakemake.params.study, model, recipes, estimates)
    rows.to_parquet(snakemake.output.summary, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
