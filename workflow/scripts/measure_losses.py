"""Measure cross-entropy, capability and KL under every intervention."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from job import job

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from family import run_family
from loading import load_card, load_from_card, stop_tokens
from refusal.activations import last_position_logits
from refusal.corpora import build_corpora
from refusal.losses import completion_losses, kl_divergence
from refusal.models import encode_prompts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


class Losses:
    """A loaded model with everything that is measured on it, tokenised once per job."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: pd.DataFrame,
        own: pd.DataFrame,
        settings: Mapping,
    ) -> None:
        self.model, self.max_tokens = model, settings["max_tokens"]
        prompts = prompts.query("split == 'test'")
        end_token = stop_tokens(model, tokenizer)[0]
        self.corpora = build_corpora(tokenizer, prompts, own, end_token, settings["text_tokens"])
        self.harmless = prompts[prompts.label == "harmless"]
        self.requests = encode_prompts(tokenizer, list(self.harmless.text))
        self.unsteered = self._last_logits()

    def _last_logits(self):
        return last_position_logits(self.model, self.requests, max_tokens=self.max_tokens)

    def run(self) -> pd.DataFrame:
        """Return the losses under whatever steering is in force."""
        pairs = list(zip(self.corpora.given, self.corpora.predicted, strict=True))
        losses = completion_losses(self.model, pairs, max_tokens=self.max_tokens)
        losses = pd.concat([self.corpora[["corpus", "id"]], losses], axis=1)
        divergence = kl_divergence(self.unsteered, self._last_logits()).cpu().numpy()
        kl = pd.DataFrame({"corpus": "kl", "id": list(self.harmless.id), "nll": divergence})
        return pd.concat([losses.astype({"exact": object}), kl.assign(tokens=1, exact=None)])


def prepare(snakemake: "snakemake") -> Losses:
    """Load the model and the texts of a job."""
    card, params = load_card(snakemake.input.card[0]), snakemake.params
    model, tokenizer = load_from_card(card, params.model)
    prompts = pd.read_parquet(snakemake.input.prompts[0])
    own = pd.read_parquet(snakemake.input.own)
    return Losses(model, tokenizer, prompts, own, params.settings)


def main(snakemake: "snakemake") -> None:
    inputs = [snakemake.input.prompts[0], snakemake.input.own]
    run_family(snakemake, inputs, prepare)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
