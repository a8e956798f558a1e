"""Let every judge score every completion of a model; join what judges that are models said."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.grammar import is_refusal
from refusal.scores import SCORE_COLUMNS, answers, build_judges, score

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    prompts = pd.read_parquet(snakemake.input.prompts[0])
    # Only of the grammar's own prompts is it known what a refusal of them looks like.
    judges = build_judges(snakemake.params.judges, is_refusal if snakemake.params.grammar else None)
    judged = [pd.read_parquet(path) for path in snakemake.input.judgements]
    for source, target in zip(snakemake.input.generations, snakemake.output, strict=True):
        name = Path(source).stem
        assert name == Path(target).stem
        own = score(answers(prompts, pd.read_parquet(source)), judges)
        models = [table[table.intervention == name][SCORE_COLUMNS] for table in judged]
        pd.concat([own, *models], ignore_index=True).to_parquet(target, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
