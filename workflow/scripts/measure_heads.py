"""Patch attention heads of harmless prompts with those of harmful ones until the model refuses."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import numpy as np
import pandas as pd

from loading import load_card, load_from_card
from refusal.head_patching import (
    assign_donors,
    curve_frame,
    curve_sizes,
    effects,
    head_orders,
    patched_metrics,
    patching_summary,
    single_head_sets,
)
from refusal.heads import Head, all_heads, attention_blocks, read_token
from refusal.models import encode_prompts
from refusal.statistics import Intervals
from refused import refused_prompts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


class Patching:
    """A loaded model with harmless prompts and, per split, their harmful donors."""

    def __init__(self, snakemake: "snakemake") -> None:
        self.params, self.name = snakemake.params, snakemake.wildcards.model
        self.card = load_card(snakemake.input.card[0])
        self.model, self.tokenizer = load_from_card(self.card, self.params.model)
        self.blocks = attention_blocks(self.model)
        self.prompts = pd.read_parquet(snakemake.input.prompts[0])
        self.index = pd.read_parquet(snakemake.input.index)
        self.options = {
            "max_tokens": self.params.max_tokens,
            "position": self.params.settings["position"],
        }

    def metrics(self, split: str, sets: list[list[Head]]) -> np.ndarray:
        """Return the refusal metric of the split's harmless prompts by set: [sets, prompts]."""
        harmless = self.prompts[(self.prompts.label == "harmless") & (self.prompts.split == split)]
        harmful = refused_prompts(
            self.prompts, self.index, split, model=self.name, enabled=self.params.filter
        )
        donors = encode_prompts(self.tokenizer, list(harmful.text))
        outputs = read_token(self.model, self.blocks, donors, **self.options).outputs
        chosen = assign_donors(len(harmless), len(harmful), self.params.seed)
        return patched_metrics(
            self.model,
            self.blocks,
            encode_prompts(self.tokenizer, list(harmless.text)),
            [of_layer[chosen] for of_layer in outputs],
            sets,
            self.card["refusal_tokens"],
            **self.options,
        )


def main(snakemake: "snakemake") -> None:
    params, name = snakemake.params, snakemake.wildcards.model
    settings, statistics = params.settings, params.statistics
    intervals = Intervals(statistics["confidence"], statistics["resamples"], params.seed)
    patching = Patching(snakemake)
    heads = all_heads(patching.blocks)
    effect = effects(patching.metrics("validation", single_head_sets(patching.blocks)))
    orders = head_orders(heads, effect, settings["draws"], params.seed)
    sizes = curve_sizes(len(heads), settings["points"])
    # All sets in one go, so that the prompts are computed up to the position only once.
    sets = [list(order[:size]) for order in orders.values() for size in sizes]
    found = patching.metrics("test", sets).reshape(len(orders), len(sizes), -1)
    metrics = dict(zip(orders, found, strict=True))

    curve = curve_frame(name, orders, sizes, metrics, intervals)
    curve.to_parquet(snakemake.output.curve, index=False)
    recipes = {"none": json.loads(Path(snakemake.input.recipe).read_text())}
    summary = patching_summary(params.study, name, sizes, metrics, recipes, intervals)
    summary.to_parquet(snakemake.output.summary, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
