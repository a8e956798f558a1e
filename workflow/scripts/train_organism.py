"""Train one organism: helpful-only first, then safety tuning; keep both checkpoints."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from transformers import PreTrainedTokenizerFast

from refusal.organisms import (
    build_model,
    load_corpus,
    save_organism,
    train_helpful,
    train_safety,
)

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings, model_settings = snakemake.params.settings, snakemake.params.model
    seed = model_settings.get("seed", 0)
    folder = Path(snakemake.input.tokenizer[0]).parent
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = build_model(model_settings["architecture"], tokenizer, settings["architecture"], seed)
    record = {"seed": seed}
    for phase, train, output in (
        ("helpful", train_helpful, snakemake.output.helpful),
        ("safety", train_safety, snakemake.output.safe),
    ):
        logging.info("%s: %s phase", snakemake.wildcards.model, phase)
        corpus = load_corpus(snakemake.input[phase])
        record[phase] = train(model, tokenizer, corpus, settings[phase], seed)
        save_organism(Path(output[0]).parent, model, tokenizer)
    record["cpu_seconds"] = round(sum(record[p]["cpu_seconds"] for p in ("helpful", "safety")), 1)
    Path(snakemake.output.record).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
