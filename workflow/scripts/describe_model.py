"""Write the card of a model: layers, template, post-instruction tokens, refusal tokens."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from loading import fetched
from refusal.activations import last_position_logits
from refusal.models import (
    check_write_modules,
    encode_prompts,
    find_refusal_tokens,
    load_model,
    load_tokenizer,
    model_card,
)

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings = snakemake.params.model
    path, revision = fetched(snakemake.params.path, snakemake.input.get("commit"))
    tokenizer = load_tokenizer(path, revision)
    model = load_model(
        path,
        dtype=settings.get("dtype", "float32"),
        device=settings.get("device", "cpu"),
        revision=revision,
        attention=settings.get("attention"),
    )
    check_write_modules(model)
    tokens = settings.get("refusal_tokens")
    if tokens is None:
        prompts = pd.read_parquet(snakemake.input.prompts[0]).query("split == 'validation'")
        logits = {
            label: last_position_logits(
                model,
                encode_prompts(tokenizer, list(prompts.query("label == @label").text)),
                max_tokens=snakemake.params.max_tokens,
            )
            for label in ("harmful", "harmless")
        }
        tokens = find_refusal_tokens(logits["harmful"], logits["harmless"])
    record = snakemake.input.get("training")
    card = model_card(
        model,
        tokenizer,
        name=snakemake.wildcards.model,
        path=path,
        refusal_tokens=tokens,
        revision=revision,
        trained=json.loads(Path(record).read_text()) if record else None,
    )
    Path(snakemake.output[0]).write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
