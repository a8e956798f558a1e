"""Read the residual stream at the post-instruction positions of every layer, in one sweep."""

from typing import TYPE_CHECKING

from job import job

import pandas as pd

from loading import load_card, load_from_card
from refusal.activations import activation_index, save_activations, sweep
from refusal.models import encode_prompts, refusal_metric

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

LABELS = ["harmful", "harmless", "borderline"]


def main(snakemake: "snakemake") -> None:
    card = load_card(snakemake.input.card[0])
    model, tokenizer = load_from_card(card, snakemake.params.model)
    prompts = pd.read_parquet(snakemake.input.prompts[0]).query("label in @LABELS")
    result = sweep(
        model,
        encode_prompts(tokenizer, list(prompts.text)),
        len(card["post_instruction_tokens"]),
        max_tokens=snakemake.params.settings["max_tokens"],
        logits=True,
    )
    metric = refusal_metric(result.last_logits, card["refusal_tokens"])
    index = activation_index(prompts, metric)
    save_activations(snakemake.output.residual, result.residual, index)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
