"""Language models that judge texts: a fine-tuned classifier or a chat model, asked in batches.

They write their verdict greedily, or it is read off the probabilities of the next token. A batch
gives what single prompts give: rows are sorted by length, padded on the left and at the positions
that they have alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from refusal.batching import in_batches
from refusal.errors import InputError
from refusal.generations import completions_table, generate
from refusal.models import clear_errors, end_logits

RATINGS = ("1", "2", "3", "4", "5")
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class JudgeModel:
    """A loaded judge: its model and tokenizer, the tokens that end a verdict, the token budget of a
    batch (padding and new tokens included)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_ids: Sequence[int]
    max_tokens: int

    def write(self, sequences: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Greedy verdicts on tokenised prompts, in their order, without special tokens."""
        answers = generate(
            self.model,
            sequences,
            eos_ids=self.eos_ids,
            pad_id=self.tokenizer.pad_token_id,
            max_new_tokens=max_new_tokens,
            max_tokens=self.max_tokens,
        )
        numbers = list(range(len(sequences)))
        return list(completions_table(self.tokenizer, numbers, answers).completion)

    def rate(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Probability of each of `RATINGS` as the next token, [prompts][ratings], float64.

        They sum to less than 1 by what the judge would write instead of a rating.
        """
        ids = rating_ids(self.tokenizer)
        rated: list[list[float] | None] = [None] * len(sequences)
        lengths = [len(sequence) for sequence in sequences]

        def run(rows: list[int]) -> list[list[float]]:
            return self._next_token([sequences[row] for row in rows])[:, ids].tolist()

        for rows, found in in_batches(run, lengths, self.max_tokens, what="ratings"):
            for row, ratings in zip(rows, found, strict=True):
                rated[row] = ratings
        return rated

    @torch.no_grad()
    def _next_token(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Probabilities of the next token [rows, vocabulary], float64, on the CPU."""
        logits = end_logits(self.model, sequences)[:, -1]
        return logits.double().softmax(-1).cpu()


def rating_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of `RATINGS`.

    Raises:
        InputError: the tokenizer has no token of its own for one of them.
    """
    ids = tokenizer.convert_tokens_to_ids(list(RATINGS))
    if None in ids or tokenizer.unk_token_id in ids:
        raise InputError(
            f"judges: {tokenizer.name_or_path} has no tokens for the ratings 1 to 5. Remedy: use "
            "the parse rule `strongreject` with the StrongREJECT judge only."
        )
    return ids


def add_adapter(
    model: PreTrainedModel, path: str | Path, revision: str | None = None
) -> PreTrainedModel:
    """The model with a low-rank adapter (folder or hub id) beside its unchanged weights.

    Raises:
        InputError: no such adapter, or one that does not fit the model.
    """
    local = Path(path).is_dir()
    if local and not (Path(path) / ADAPTER_WEIGHTS).is_file():
        raise InputError(
            f"{path}: no {ADAPTER_WEIGHTS} in it. Remedy: give the folder that save_pretrained of "
            "peft wrote (weights in other formats are not read)."
        )
    with clear_errors(path, local, "adapter"), warnings.catch_warnings():
        # peft asks transformers about gradient checkpointing by a name that will be removed.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = PeftModel.from_pretrained(model, str(path), revision=revision)
    # The layers were replaced within the model itself; the wrapper adds nothing to a forward pass.
    return adapted.get_base_model().eval().requires_grad_(False)
