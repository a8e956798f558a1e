"""Generations: what a model, steered or not, answers by greedy decoding.

`generate` decodes batches of prompts over a key-value cache. It is exact: every row of a batch
gets the tokens that it would get alone, and that `model.generate(do_sample=False)` would give.
Wrap the call in `refusal.interventions.steering` to steer the prompt and every generated token
(Arditi et al. 2024, section 2.4: interventions act at all token positions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from refusal.batching import in_batches, left_pad, position_ids
from refusal.errors import InputError
from refusal.models import input_device

# Asking an accelerator whether rows have finished makes it wait for the host; this many tokens
# pass between two such questions. On a CPU the question is free.
STEPS_BETWEEN_CHECKS = 8
# Finished rows are dropped from the cache once less than this share of its rows still runs.
KEEP_ABOVE = 7 / 8


@dataclass(frozen=True)
class Completion:
    """Generated tokens, stop token included, and why generation stopped."""

    tokens: list[int]
    stop_reason: Literal["eos", "length"]


def generate(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    *,
    eos_ids: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    max_tokens: int,
    first_logits: Tensor | None = None,
) -> list[Completion]:
    """Greedy completions of tokenised prompts, in the order of `sequences`.

    `max_tokens` bounds rows x (longest prompt + `max_new_tokens`) of a batch, that is the size of
    its cache; one that runs out of memory all the same is halved (`in_batches`). Generation of a
    row stops at the first token of `eos_ids` or after `max_new_tokens` tokens. `first_logits`
    [n, vocabulary], where it is given, is filled with the logits of the first token of every row.

    Raises InputError for an empty prompt or a limit below one token.
    """
    if max_new_tokens < 1:
        raise InputError("generations.max_new_tokens: must be at least 1. Remedy: raise it.")
    if not all(len(sequence) for sequence in sequences):
        raise InputError(
            "prompts: a tokenised prompt is empty. Remedy: remove it or give it a text."
        )
    eos = torch.tensor(list(eos_ids), dtype=torch.long, device=input_device(model))

    def decode(rows: list[int]) -> list[list[int]]:
        prompts = [sequences[row] for row in rows]
        generated, first = _decode_batch(model, prompts, eos, pad_id, max_new_tokens)
        if first_logits is not None:
            first_logits[rows] = first.to(first_logits)
        return generated.tolist()

    completions: list[Completion | None] = [None] * len(sequences)
    lengths = [len(sequence) + max_new_tokens for sequence in sequences]
    for batch, decoded in in_batches(decode, lengths, max_tokens, what="generations"):
        for row, tokens in zip(batch, decoded, strict=True):
            completions[row] = _cut(tokens, set(eos_ids))
    return completions


@torch.no_grad()
def _decode_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    eos: Tensor,
    pad_id: int,
    max_new_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Greedy tokens [rows, max_new_tokens], and logits [rows, vocabulary] of the first ones.

    What follows a row's first stop token means nothing.
    """
    device = eos.device
    input_ids, prompt_mask = left_pad(prompts, pad_id, device)
    width = input_ids.shape[1]
    mask = torch.nn.functional.pad(prompt_mask, (0, max_new_tokens), value=1)
    positions = position_ids(prompt_mask)
    cache = DynamicCache(config=model.config)
    generated = torch.full((len(prompts), max_new_tokens), pad_id, device=device)
    rows = torch.arange(len(prompts), device=device)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    check_every = 1 if device.type == "cpu" else STEPS_BETWEEN_CHECKS
    for step in range(max_new_tokens):
        logits = model(
            input_ids=input_ids,
            attention_mask=mask[:, : width + step],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        if step == 0:
            first = logits[:, -1]
        tokens = logits[:, -1].argmax(-1).to(device)
        generated[rows, step] = tokens
        finished |= torch.isin(tokens, eos)
        input_ids, positions = tokens[:, None], positions[:, -1:] + 1
        if (step + 1) % check_every == 0:
            running = (~finished).nonzero().flatten()
            if len(running) == 0:
                break
            # The library copies the cache at every step anyway, so dropping rows soon pays.
            if len(running) <= KEEP_ABOVE * len(finished):
                cache.batch_select_indices(running)
                input_ids, positions, mask = input_ids[running], positions[running], mask[running]
                rows, finished = rows[running], finished[running]
    return generated, first


def _cut(tokens: list[int], eos_ids: set[int]) -> Completion:
    """The tokens up to and including the first stop token."""
    for index, token in enumerate(tokens):
        if token in eos_ids:
            return Completion(tokens[: index + 1], "eos")
    return Completion(tokens, "length")


def completions_table(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[str], completions: Sequence[Completion]
) -> pd.DataFrame:
    """Generations as stored: id, completion (text without special tokens), tokens, stop_reason.

    `tokens` counts the generated tokens, stop token included. Prompt `ids[i]` belongs to
    `completions[i]`.
    """
    texts = tokenizer.batch_decode([c.tokens for c in completions], skip_special_tokens=True)
    return pd.DataFrame(
        {
            "id": list(ids),
            "completion": texts,
            "tokens": [len(completion.tokens) for completion in completions],
            "stop_reason": [completion.stop_reason for completion in completions],
        }
    )
