"""Write the report on planted organisms: the section of the paper as a PDF of its own."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import yaml

from planted_context import figure_records, read_planted
from refusal.numbers import claim_numbers
from refusal.paper import compile_pdf, render

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    inputs, output = snakemake.input, snakemake.output
    planted = read_planted(inputs.planted)
    context = {
        "config": yaml.safe_load(Path(inputs.config).read_text()),
        "figures": figure_records(inputs.planted_shown),
        "planted": planted,
    }
    template = Path(inputs.templates[0])
    numbers = claim_numbers(planted["claims"])
    text, definitions = render(template.parent, numbers, context, template.name)
    source = Path(output.source)
    source.write_text(text)
    Path(output.numbers).write_text(definitions)
    shutil.copyfile(inputs.bibliography, source.with_name("references.bib"))
    compile_pdf(source, Path(output.pdf))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
