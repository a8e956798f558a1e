"""Write the report on the external runs: published beside recomputed, as a PDF."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd
import yaml

from refusal.external_comparison import reproduced_counts
from refusal.external_runs import read_pins
from refusal.paper import compile_pdf, intervention_labels, render
from refusal.tables.external_runs import (
    files_table,
    geometry_table,
    judges_table,
    overview_table,
    paired_table,
    published_table,
)

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    inputs, output = snakemake.input, snakemake.output
    runs = list(snakemake.params.runs)
    comparison, summary = map(pd.read_parquet, (inputs.comparison, inputs.summary))
    records = {run: json.loads(_of_run(inputs.files, run).read_text()) for run in runs}
    counts = reproduced_counts(comparison)
    context = {
        "config": yaml.safe_load(Path(inputs.config).read_text()),
        "runs": runs,
        "tables": _tables(snakemake, comparison, summary, records),
        "counts": counts.groupby("part")[["compared", "reproduced"]].sum().to_dict("index"),
        "unpinned": [run for run in runs if any(r["status"] == "unpinned" for r in records[run])],
        "pins": [read_pins(path) for path in inputs.pins],
    }
    templates = Path(inputs.template).parent
    text, _ = render(templates, {}, context, Path(inputs.template).name)
    source = Path(output.source)
    source.write_text(text)
    source.with_name("references.bib").write_bytes(Path(inputs.bibliography).read_bytes())
    compile_pdf(source, Path(output.pdf))


def _tables(
    snakemake: "snakemake",
    comparison: pd.DataFrame,
    summary: pd.DataFrame,
    records: dict[str, list[dict]],
) -> dict[str, str]:
    """The LaTeX of every table of the report."""
    inputs, runs = snakemake.input, list(snakemake.params.runs)
    labels = intervention_labels(summary)
    geometry = {run: pd.read_parquet(_of_run(inputs.geometry, run)) for run in runs}
    selection = {run: pd.read_parquet(_of_run(inputs.selection, run)) for run in runs}
    return {
        "overview": overview_table(comparison),
        "files": files_table(records),
        "results": published_table(comparison, labels, ("rates", "selection", "tensors", "losses")),
        "paper": published_table(comparison, labels, ("paper",), "In the files"),
        "judges": judges_table(summary, runs, labels),
        "paired": paired_table(pd.read_parquet(inputs.comparisons), runs, labels),
        "geometry": geometry_table(geometry, {run: _chosen(selection[run]) for run in runs}),
    }


def _chosen(selection: pd.DataFrame) -> tuple[int, int] | None:
    """(position, layer) of the selected candidate, None if there is none."""
    chosen = selection[selection["selected"].astype(bool)]
    return None if chosen.empty else (int(chosen["position"].iloc[0]), int(chosen["layer"].iloc[0]))


def _of_run(paths: list[str], name: str) -> Path:
    """The one of these files that belongs to a run."""
    return next(path for path in map(Path, paths) if path.parent.name == name)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
