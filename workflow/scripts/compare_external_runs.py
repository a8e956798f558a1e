"""Put what was published of the external runs beside what is computed again."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.external_comparison import RunResults, compare_with_published
from refusal.external_runs import read_pins

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    summary = pd.read_parquet(snakemake.input.summary)
    runs = [_results(snakemake, name, run) for name, run in snakemake.params.runs.items()]
    tables = [compare_with_published(run, summary) for run in runs]
    pd.concat(tables, ignore_index=True).to_parquet(snakemake.output[0], index=False)


def _results(snakemake: "snakemake", name: str, run: dict) -> RunResults:
    """Read what was measured on one run."""
    inputs = snakemake.input
    paper = {}
    if run["pins"] is not None:
        paper = read_pins(run["pins"])["runs"][run["path"]].get("paper", {})
    scores = [path for path in map(Path, inputs.scores) if path.parent.name == name]
    return RunResults(
        name=name,
        interventions=run["interventions"],
        folder=_of_run(inputs.folders, name),
        prompts=pd.read_parquet(_of_run(inputs.prompts, name)),
        scores={path.stem: pd.read_parquet(path) for path in scores},
        selection=pd.read_parquet(_of_run(inputs.selection, name)),
        tensors=json.loads(_of_run(inputs.tensors, name).read_text()),
        paper=paper,
    )


def _of_run(paths: list[str], name: str) -> Path:
    """The one of these files or folders that belongs to a run."""
    return next(path for path in map(Path, paths) if path.parent.name == name)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
