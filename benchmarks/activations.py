"""(a) Activations and class means in one sweep, against a bare forward pass and the plain way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from measuring import Result, alternate, compare_peaks, compare_seconds, require
from subjects import Subject, random_sequences, wide_model
from torch import Tensor
from transformers import PreTrainedModel

from refusal.activations import sweep
from refusal.batching import left_pad, length_sorted_batches, position_ids
from refusal.directions import class_means
from refusal.models import block_input, decoder_layers

GROUP = "a activations"
MEANS_TOLERANCE = 1e-6


def ours(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], n_positions: int, max_tokens: int
) -> tuple[Tensor, list[Tensor]]:
    """All activations at the last positions and the mean of each class (halves of the rows)."""
    residual = sweep(model, sequences, n_positions, max_tokens=max_tokens).residual
    rows = np.arange(len(sequences))
    return residual, [class_means(residual, half) for half in np.array_split(rows, 2)]


@torch.no_grad()
def bare_forward(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], max_tokens: int
) -> None:
    """One forward pass with logits over the same batches, nothing kept."""
    for batch in length_sorted_batches([len(row) for row in sequences], max_tokens):
        ids, mask = left_pad([sequences[row] for row in batch], 0)
        model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)


@torch.no_grad()
def plain_way(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], n_positions: int, max_tokens: int
) -> tuple[Tensor, list[Tensor]]:
    """Every layer's whole sequence is copied as float32 and sliced at the end; then the means.

    The published extraction, as methods and house notes describe it, on the batches of `ours`.
    """
    blocks = decoder_layers(model)
    copies: list[list[Tensor]] = [[] for _ in blocks]

    def keep(layer: int):
        def hook(module, args, kwargs):
            copies[layer].append(block_input(args, kwargs).detach().clone().float())

        return hook

    handles = [
        block.register_forward_pre_hook(keep(layer), with_kwargs=True)
        for layer, block in enumerate(blocks)
    ]
    batches = length_sorted_batches([len(row) for row in sequences], max_tokens)
    for batch in batches:
        ids, mask = left_pad([sequences[row] for row in batch], 0)
        model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
    for handle in handles:
        handle.remove()
    sliced = [torch.cat([part[:, -n_positions:] for part in layer]) for layer in copies]
    order = torch.tensor([row for batch in batches for row in batch]).argsort()
    residual = torch.stack(sliced, dim=2)[order]
    return residual, [half.double().mean(0) for half in residual.tensor_split(2)]


def _parity(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], n_positions: int, max_tokens: int
) -> str:
    """Largest deviation of activations and means, relative to the largest entry."""
    residual, means = ours(model, sequences, n_positions, max_tokens)
    plain_residual, plain_means = plain_way(model, sequences, n_positions, max_tokens)
    deviation = float((residual - plain_residual).abs().max() / plain_residual.abs().max())
    of_means = max(
        float((one - other).abs().max() / other.abs().max())
        for one, other in zip(means, plain_means, strict=True)
    )
    require(deviation <= 1e-5, f"activations deviate by {deviation:.1e}")
    require(of_means <= MEANS_TOLERANCE, f"means deviate by {of_means:.1e}")
    return f"activations within {deviation:.0e}, means within {of_means:.0e} of the largest entry"


def measure(subject: Subject, quick: bool) -> list[Result]:
    """Time on the organism and on the wide model, peak memory on the wide one."""
    tiny = subject.sequences("harmful", "train") + subject.sequences("harmless", "train")
    wide = wide_model(quick)
    prompts = random_sequences(16 if quick else 32, 40, wide.config.vocab_size)
    many = random_sequences(64 if quick else 128, 40, wide.config.vocab_size)
    cases = [
        (subject.name, subject.model, tiny, subject.n_positions, 2048, 2 if quick else 7),
        ("wide model", wide, prompts, 3, 640, 1 if quick else 3),
    ]
    results = []
    for name, model, sequences, n_positions, max_tokens, repeats in cases:
        parity = _parity(model, sequences, n_positions, max_tokens)
        timing = alternate(
            lambda: ours(model, sequences, n_positions, max_tokens),  # noqa: B023
            lambda: bare_forward(model, sequences, max_tokens),  # noqa: B023
            repeats,
        )
        what = f"activations and means of all positions and layers / bare forward pass, {name}"
        results.append(compare_seconds(GROUP, what, timing, at_most=0.75, parity=parity))
    results.append(
        compare_peaks(
            GROUP,
            f"peak memory of the same / whole sequences copied, then sliced ({len(many)} prompts)",
            lambda: ours(wide, many, 3, 320),
            lambda: plain_way(wide, many, 3, 320),
            at_most=1 / 3,
            repeats=1,
            warm_up=lambda: (ours(wide, many[:4], 3, 320), plain_way(wide, many[:4], 3, 320)),
        )
    )
    return results
