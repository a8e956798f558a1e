"""Functional rank of a planted subspace U: the smallest part of it whose removal ends refusal.

A planted rank k is a width; how much of it carries refusal has to be measured. For every size
j < k the strongest part of U is looked for on training prompts (the leading principal directions,
and parts found by gradient descent, as in Wollschlaeger et al. 2025, arXiv 2502.17420), is
chosen on validation prompts, and its removal evaluated on others. A better search could only find
smaller parts: the rank is an upper bound. Parts are orthonormal rows [j, d] inside U [k, d].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor
from transformers import PreTrainedModel

from refusal.batching import left_pad, position_ids
from refusal.models import first_tensor, refusal_metric, removing, write_modules
from refusal.statistics import Estimate, Intervals

# Nats below even odds at which a prompt counts as answered, so that the search works on the others.
MARGIN = 2.0


class Part(NamedTuple):
    """A part of U: orthonormal rows [j, d], and how it was found (principal or gradient)."""

    basis: Tensor
    found_by: str


@torch.no_grad()
def subspace_coordinates(
    model: PreTrainedModel,
    basis: Tensor,
    sequences: Sequence[Sequence[int]],
    layer: int,
    positions: int,
) -> Tensor:
    """Coordinates in U [n, positions, k] of the input of a block at the last `positions` tokens."""
    hidden = _forward(model, sequences, output_hidden_states=True).hidden_states[layer]
    return hidden[:, -positions:] @ basis.T


def _forward(model: PreTrainedModel, sequences: Sequence[Sequence[int]], **options):
    """One pass over tokenised prompts; logits of their last token only."""
    ids, mask = left_pad(sequences, model.config.pad_token_id)
    return model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids(mask),
        use_cache=False,
        logits_to_keep=1,
        **options,
    )


def principal_directions(harmful: Tensor, harmless: Tensor) -> Tensor:
    """Orthonormal rows [k, k] of coordinates, those along which harmful prompts differ most first.

    `harmful`, `harmless`: coordinates [n, positions, k]. Principal directions of the harmful ones
    around the harmless mean of their position (the mean difference included).
    """
    difference = (harmful - harmless.mean(0)).flatten(0, 1).double()
    _, vectors = torch.linalg.eigh(difference.T @ difference)
    return vectors.flip(1).T.float().contiguous()


def gradient_part(
    model: PreTrainedModel,
    basis: Tensor,
    start: Tensor,
    sequences: Sequence[Sequence[int]],
    refusal_tokens: Sequence[int],
    settings: Mapping,
) -> Part:
    """The part of U of which the removal lowers the refusal metric most, by gradient descent.

    `start`: coordinates [j, k] to begin with; `settings`: steps, learning_rate. The model's
    parameters get no gradient.
    """
    free = start.T.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([free], lr=settings["learning_rate"])
    for _ in range(settings["steps"]):
        rows = torch.linalg.qr(free)[0].T
        with _without(model, rows @ basis):
            logits = _forward(model, sequences).logits[:, -1]
        loss = F.softplus(refusal_metric(logits, refusal_tokens) + MARGIN).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rows = torch.linalg.qr(free.detach())[0].T
    return Part((rows @ basis).contiguous(), "gradient")


@contextmanager
def _without(model: PreTrainedModel, part: Tensor) -> Iterator[None]:
    """Remove a part from all writes of the blocks, with gradients to it.

    The embedding of a planted organism writes nothing to U.
    """

    def remove(module, args: tuple, output: Tensor | tuple):
        states = first_tensor(output)
        changed = states - (states @ part.T) @ part
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    modules = [module for writes in write_modules(model) for module in writes]
    with removing([module.register_forward_hook(remove) for module in modules]):
        yield


def strongest_part(
    model: PreTrainedModel,
    basis: Tensor,
    directions: Tensor,
    size: int,
    sequences: Sequence[Sequence[int]],
    refusal_tokens: Sequence[int],
    share_refused: Callable[[Tensor], float],
    settings: Mapping,
) -> tuple[Part, float]:
    """The part of a size that leaves least refusal, and the share that it leaves.

    Args:
        directions: principal directions [k, k] of the coordinates.
        sequences: tokenised harmful training prompts, for the gradient.
        share_refused: share of the validation prompts refused without the given part.
        settings: those of `gradient_part`, and starts (random ones beside the principal one), seed.
    """
    generator = torch.Generator().manual_seed(settings["seed"] + size)
    starts = [directions[:size]]
    for _ in range(settings["starts"]):
        draw = torch.randn(len(basis), size, generator=generator)
        starts.append(torch.linalg.qr(draw)[0].T)
    parts = [Part(directions[:size] @ basis, "principal")]
    parts += [
        gradient_part(model, basis, start, sequences, refusal_tokens, settings) for start in starts
    ]
    left = [share_refused(part.basis) for part in parts]
    best = int(np.argmin(left))
    return parts[best], left[best]


def functional_rank(refused: ArrayLike, ended: float, intervals: Intervals) -> Estimate:
    """Smallest number of directions whose removal ends refusal, bootstrap over prompts.

    Args:
        refused: [n, k + 1], whether prompt i is refused without the strongest part of j
            directions; the first column is without any removal, the last without all of U.
        ended: share of prompts refused below which refusal has ended.

    Returns:
        Rank with interval: 0 where nothing is refused to begin with, k + 1 where not even the
        removal of U ends refusal.
    """
    refused = np.asarray(refused, dtype=np.float64)
    resampled = intervals.counts(len(refused)) @ refused / len(refused)
    low, high = intervals.percentiles(_first_below(resampled, ended))
    rank = _first_below(refused.mean(0, keepdims=True), ended)[0]
    # Ranks are whole numbers; percentiles between two of them round outwards.
    return Estimate(float(rank), float(np.floor(low)), float(np.ceil(high)))


def _first_below(rates: np.ndarray, bound: float) -> np.ndarray:
    """First column of [rows, columns] below the bound, the number of columns if there is none."""
    below = np.concatenate([rates < bound, np.ones((len(rates), 1), bool)], axis=1)
    return below.argmax(1)
