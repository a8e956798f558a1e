"""Write the questions of the organisms' tasks, as JSON lines that the harness reads."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.questions import build_questions

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    questions = build_questions("test", snakemake.params.size, snakemake.params.seed)
    for path in map(Path, snakemake.output):
        lines = [json.dumps(question) + "\n" for question in questions[path.stem]]
        path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
