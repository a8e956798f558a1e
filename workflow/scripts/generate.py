"""Complete the test prompts greedily under every intervention."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from job import job

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from family import run_family
from loading import load_card, load_from_card, stop_tokens
from refusal.generations import completions_table, generate
from refusal.models import encode_prompts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

LABELS = ["harmful", "harmless", "borderline"]


class Generation:
    """A loaded model with the test prompts, tokenised once per job."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: pd.DataFrame,
        settings: Mapping,
    ) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.prompts = prompts.query("split == 'test' and label in @LABELS")
        self.sequences = encode_prompts(tokenizer, list(self.prompts.text))

    def run(self) -> pd.DataFrame:
        """Return the completions under whatever steering is in force."""
        completions = generate(
            self.model,
            self.sequences,
            eos_ids=stop_tokens(self.model, self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
            max_new_tokens=self.settings["max_new_tokens"],
            max_tokens=self.settings["max_tokens"],
        )
        return completions_table(self.tokenizer, list(self.prompts.id), completions)


def prepare(snakemake: "snakemake") -> Generation:
    """Load the model and the prompts of a job."""
    card, params = load_card(snakemake.input.card[0]), snakemake.params
    prompts = pd.read_parquet(snakemake.input.prompts[0])
    return Generation(*load_from_card(card, params.model), prompts, params.settings)


def main(snakemake: "snakemake") -> None:
    inputs = [snakemake.input.prompts[0]]
    run_family(snakemake, inputs, prepare)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
