"""A loaded model with the prompts of the kinds of refusal, for the jobs that steer it."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from loading import load_card, load_from_card, stop_tokens
from refusal.activations import sweep, token_activations
from refusal.generations import completions_table, generate
from refusal.kind_responses import judged, require_kinds
from refusal.models import encode_prompts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


class KindModel:
    """The model of a job, all prompts of the study, and those of the kinds."""

    def __init__(self, snakemake: "snakemake", experiment: str) -> None:
        params, inputs = snakemake.params, snakemake.input
        self.model, self.tokenizer = load_from_card(load_card(inputs.card[0]), params.model)
        self.prompts = pd.read_parquet(inputs.prompts[0])
        self.kind_prompts = require_kinds(self.prompts, experiment)
        self.grammar, self.generations = params.grammar, params.generations

    def responses(self, prompts: pd.DataFrame) -> pd.DataFrame:
        """Return greedy completions under whatever steering is in force, and what they did."""
        completions = generate(
            self.model,
            encode_prompts(self.tokenizer, list(prompts.text)),
            eos_ids=stop_tokens(self.model, self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
            max_new_tokens=self.generations["max_new_tokens"],
            max_tokens=self.generations["max_tokens"],
        )
        table = completions_table(self.tokenizer, list(prompts.id), completions)
        return judged(prompts, table, self.grammar)

    def activations(
        self, prompts: pd.DataFrame, position: int, layer: int, max_tokens: int
    ) -> np.ndarray:
        """Return the residual stream at one position and layer, float64 [n, d]."""
        sequences = encode_prompts(self.tokenizer, list(prompts.text))
        read = sweep(self.model, sequences, -position, max_tokens=max_tokens, layers=[layer])
        return read.residual[:, 0, 0].double().numpy()

    def token_activations(self, prompts: pd.DataFrame, layer: int, max_tokens: int) -> Tensor:
        """Return the residual stream at every token of the prompts, float32 [tokens, d]."""
        sequences = encode_prompts(self.tokenizer, list(prompts.text))
        return token_activations(self.model, sequences, layer, max_tokens=max_tokens)
