"""Render the templates of the paper and compile the PDF."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd
import yaml

from planted_context import figure_records, read_planted
from refusal.numbers import claim_numbers
from refusal.paper import compile_pdf, intervention_labels, render
from refusal.reading import judge_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    inputs = snakemake.input
    summary = pd.read_parquet(inputs.summary)
    planted = read_planted(inputs.planted)
    context = {
        "config": yaml.safe_load(Path(inputs.config).read_text()),
        "cards": [json.loads(Path(path).read_text()) for path in inputs.cards],
        "claims": json.loads(Path(inputs.claims).read_text()),
        "labels": intervention_labels(summary),
        "figures": figure_records([*inputs.figures, *inputs.planted_shown]),
        "judge": judge_of(summary),
        "organisms": snakemake.params.organisms,
        "planted": planted,
    }
    numbers = json.loads(Path(inputs.numbers).read_text())
    numbers |= claim_numbers(planted["claims"]) if planted else {}
    templates = Path(inputs.templates[0]).parent
    text, definitions = render(templates, numbers, context)
    source = Path(snakemake.output.source)
    source.write_text(text)
    Path(snakemake.output.numbers).write_text(definitions)
    shutil.copyfile(inputs.bibliography, source.with_name("references.bib"))
    compile_pdf(source, Path(snakemake.output.pdf))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
