"""Let our judges score the completions of one external run, beside the judgements it came with."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.scores import answers, build_judges, score

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    inputs = snakemake.input
    prompts = pd.read_parquet(inputs.prompts)
    judges = build_judges(snakemake.params.judges)
    for source, given, target in zip(
        inputs.generations, inputs.published, snakemake.output, strict=True
    ):
        assert Path(source).stem == Path(given).stem == Path(target).stem
        ours = score(answers(prompts, pd.read_parquet(source)), judges)
        published = pd.read_parquet(given)
        both = pd.concat([ours, published], ignore_index=True) if len(published) else ours
        both.to_parquet(target, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
