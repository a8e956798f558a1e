"""Fine-tune a model on compliant answers and measure it like an intervention; saves no weights."""

import logging
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from generate import Generation
from loading import load_card, load_from_card, stop_tokens
from measure_losses import Losses
from refusal.fine_tuning import fine_tune, training_pairs

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    card, params = load_card(snakemake.input.card[0]), snakemake.params
    model, tokenizer = load_from_card(card, params.model)
    prompts = pd.read_parquet(snakemake.input.prompts[0])
    own = pd.read_parquet(snakemake.input.own)
    pairs = training_pairs(
        tokenizer,
        prompts,
        end_token=stop_tokens(model, tokenizer)[0],
        limit=params.settings["pairs"],
        seed=params.seed,
    )
    logging.info("%d pairs", len(pairs))
    # Prepared before the training: KL is measured against the model as it was.
    generation = Generation(model, tokenizer, prompts, params.generations)
    losses = Losses(model, tokenizer, prompts, own, params.losses)
    fine_tune(model, pairs, params.settings, params.seed)
    generation.run().to_parquet(snakemake.output.generations, index=False)
    losses.run().to_parquet(snakemake.output.losses, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
