"""Measure what an adversarial suffix does to the direction, to attention heads and attention."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from loading import load_card, load_from_card
from refusal.directions import load_directions
from refusal.heads import attention_blocks
from refusal.statistics import Intervals
from refusal.suffix import load_suffixes, suffixed_prompts
from refusal.suffix_analysis import (
    ADVERSARIAL,
    HARMLESS,
    PLAIN,
    RANDOM,
    Condition,
    attention_frame,
    choose,
    cosine_frame,
    head_frame,
    measure_condition,
    suffix_summary,
)
from refused import refused_prompts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


class LastToken:
    """A loaded model and what is read at the last token of prompts: the direction and the heads."""

    def __init__(self, snakemake: "snakemake") -> None:
        self.card = load_card(snakemake.input.card[0])
        # Only eager attention hands its weights out.
        settings = {**snakemake.params.model, "attention": "eager"}
        self.model, self.tokenizer = load_from_card(self.card, settings)
        self.blocks = attention_blocks(self.model)
        self.max_tokens = snakemake.params.max_tokens
        chosen = pd.read_parquet(snakemake.input.selection).query("selected and scope == 'all'")
        self.layer = int(chosen.iloc[0].layer)
        candidate = int(chosen.iloc[0].position), self.layer
        self.unit = load_directions(snakemake.input.directions)[candidate].basis[0]

    def read(self, texts: list[str], suffixes: list[str] | None = None) -> Condition:
        """Return the measurements of one condition: texts, each with its suffix."""
        return measure_condition(
            self.model,
            self.blocks,
            suffixed_prompts(self.tokenizer, texts, suffixes or [""] * len(texts)),
            self.unit,
            refusal_tokens=self.card["refusal_tokens"],
            max_tokens=self.max_tokens,
        )


def main(snakemake: "snakemake") -> None:
    params, name = snakemake.params, snakemake.wildcards.model
    intervals = Intervals(
        params.statistics["confidence"], params.statistics["resamples"], params.seed
    )
    prompts = pd.read_parquet(snakemake.input.prompts[0])
    index = pd.read_parquet(snakemake.input.index)
    harmful = {
        split: refused_prompts(prompts, index, split, model=name, enabled=params.filter)
        for split in ("validation", "test")
    }
    suffixes = load_suffixes(snakemake.input.suffixes[0])
    last = LastToken(snakemake)
    validation = last.read(list(harmful["validation"].text))
    choice = choose(last.blocks, validation, last.layer, params.settings["top"])

    texts, harmless = (
        list(harmful["test"].text),
        prompts.query("label == 'harmless' and split == 'test'"),
    )
    conditions = {
        PLAIN: last.read(texts),
        RANDOM: last.read(texts, [suffixes.random_for(i).text for i in harmful["test"].number]),
        ADVERSARIAL: last.read(texts, [suffixes.found.text] * len(texts)),
        HARMLESS: last.read(list(harmless.text)),
    }
    tables = {"cosines": cosine_frame, "heads": head_frame, "attention": attention_frame}
    for frame, table in tables.items():
        rows = table(name, conditions, choice, intervals)
        rows.to_parquet(snakemake.output[frame], index=False)
    recipes = {"none": json.loads(Path(snakemake.input.recipe).read_text())}
    summary = suffix_summary(params.study, name, conditions, choice, recipes, intervals)
    summary.to_parquet(snakemake.output.summary, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
