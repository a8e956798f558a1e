"""Estimate everything with intervals: the summary, paired comparisons, agreement of judges."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.claims import load_claims, required_comparisons
from refusal.statistics import Intervals, ModelResults, agreement, compare, summarise

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings = snakemake.params.settings
    intervals = Intervals(settings["confidence"], settings["resamples"], snakemake.params.seed)
    models = {name: _results(snakemake, name) for name in snakemake.params.models}
    measured = [*snakemake.input.geometry, *snakemake.input.experiments]
    extra = [pd.read_parquet(path) for path in measured]
    study = snakemake.params.study
    summary = summarise(study, models, intervals, extra)
    summary.to_parquet(snakemake.output.summary, index=False)
    asked = [tuple(pair) for pair in settings["comparisons"]]
    claimed = required_comparisons(load_claims(snakemake.input.claims), _names(models))
    pairs = list(dict.fromkeys(asked + claimed))
    comparisons = compare(study, models, pairs, intervals)
    comparisons.to_parquet(snakemake.output.comparisons, index=False)
    agreement(models, intervals).to_parquet(snakemake.output.agreement, index=False)


def _names(models: dict[str, ModelResults]) -> set[str]:
    """Return the interventions that any model has."""
    return {name for results in models.values() for name in results.recipes}


def _results(snakemake: "snakemake", model: str) -> ModelResults:
    """Read the recipes, scores and losses of a model, by intervention."""

    def files(paths: list[str]) -> dict[str, Path]:
        return {path.stem: path for path in map(Path, paths) if path.parent.name == model}

    recipes, scores, losses = (
        files(snakemake.input[kind]) for kind in ("recipes", "scores", "losses")
    )
    return ModelResults(
        {name: json.loads(path.read_text()) for name, path in recipes.items()},
        {name: pd.read_parquet(path) for name, path in scores.items()},
        {name: pd.read_parquet(path) for name, path in losses.items()},
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
