"""A planted organism as the jobs on it see it: loaded, with its prompts and its judged answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loading import stop_tokens
from refusal.generations import completions_table, generate
from refusal.kind_responses import judged
from refusal.kinds import CORE, wordings
from refusal.models import (
    encode_prompts,
    load_model,
    load_tokenizer,
    post_instruction_tokens,
)
from refusal.planted_training import load_subspace

if TYPE_CHECKING:
    from snakemake.iocontainers import InputFiles

LABELS = ("harmful", "harmless")


class Answers(NamedTuple):
    """Judged answers (`refusal.kind_responses.judged`), their tokens, logits of the first ones."""

    responses: pd.DataFrame
    tokens: list[list[int]]
    first_logits: Tensor


@dataclass(frozen=True)
class Organism:
    """A planted organism with its base.

    Attributes:
        basis: U, orthonormal rows [k, d].
        prompts: those of the study.
        limits: max_new_tokens of an answer, and max_tokens of a batch.
    """

    model: PreTrainedModel
    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    basis: Tensor
    prompts: pd.DataFrame
    limits: Mapping[str, int]
    # The same prompts are asked under every intervention.
    _encoded: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False)

    @property
    def rank(self) -> int:
        """Rank of U."""
        return len(self.basis)

    @property
    def max_tokens(self) -> int:
        """Tokens of a forward pass."""
        return self.limits["max_tokens"]

    @cached_property
    def n_positions(self) -> int:
        """Positions behind the instruction."""
        return len(post_instruction_tokens(self.tokenizer))

    @cached_property
    def refusal_tokens(self) -> list[int]:
        """First tokens of the wordings in which harmful requests are refused."""
        starts = (wording.partition("{")[0] for wording in wordings(CORE))
        return sorted({self.tokenizer.encode(s, add_special_tokens=False)[0] for s in starts})

    def chosen(self, splits: Sequence[str], labels: Sequence[str] = LABELS) -> pd.DataFrame:
        """Prompts of some splits and labels, in the order of the study."""
        return self.prompts.query("split in @splits and label in @labels")

    def encode(self, rows: pd.DataFrame) -> list[list[int]]:
        """Token ids of prompts in the chat template."""
        texts = list(rows.text)
        new = [text for text in dict.fromkeys(texts) if text not in self._encoded]
        self._encoded.update(zip(new, encode_prompts(self.tokenizer, new), strict=True))
        return [self._encoded[text] for text in texts]

    def answer(self, rows: pd.DataFrame, model: PreTrainedModel | None = None) -> Answers:
        """Return the answers of the organism, or another model, under any steering in force."""
        model = model or self.model
        first_logits = torch.empty(len(rows), model.get_input_embeddings().num_embeddings)
        completions = generate(
            model,
            self.encode(rows),
            eos_ids=stop_tokens(model, self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
            max_new_tokens=self.limits["max_new_tokens"],
            max_tokens=self.max_tokens,
            first_logits=first_logits,
        )
        table = completions_table(self.tokenizer, list(rows.id), completions)
        responses = judged(rows, table, grammar=True)
        return Answers(responses, [c.tokens for c in completions], first_logits)


def load_organism(inputs: "InputFiles", limits: Mapping[str, int]) -> Organism:
    """Load an organism and its base: checkpoint, base, subspace and prompts of a job."""
    folder = Path(inputs.checkpoint[0]).parent
    return Organism(
        model=load_model(folder),
        base=load_model(Path(inputs.base[0]).parent),
        tokenizer=load_tokenizer(folder),
        basis=load_subspace(inputs.subspace),
        prompts=pd.read_parquet(inputs.prompts),
        limits=limits,
    )
