"""Directions found by gradient descent: one direction, or the orthonormal basis of a cone.

After Wollschlaeger et al. 2025, The Geometry of Refusal (arXiv 2502.17420). A direction r of norm 1
is asked for three things at once, with weights 1, 0.2 and 1:

- ablation: harmful prompts are answered when r is removed from all that is written;
- addition: harmless prompts are refused when r, as long as the mean difference, is added to the
  input of one block;
- retain: removing r leaves the answers to harmless prompts as they are (Kullback-Leibler
  divergence per token).

Of a cone, all directions between its basis vectors are asked for them: those vectors themselves and
normalised combinations with weights |N(0, 1)|, drawn anew at every step.

Departures from the paper: every prompt of a batch has a drawn direction of its own, so that a step
costs what it costs for one direction; the basis is a QR factor of free parameters instead of being
made orthogonal after every step; learning rate and step are those of least validation loss; the
divergence is taken over the tokens of the answer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from refusal.directions import Direction
from refusal.errors import InputError
from refusal.interventions import operating
from refusal.losses import completion_logits
from refusal.models import decoder_layers, write_modules

Pairs = Sequence[tuple[Sequence[int], Sequence[int]]]


@dataclass(frozen=True)
class Targets:
    """What the losses ask for, as pairs of prompt and completion (token ids).

    Attributes:
        answers: harmful prompts with answers that do not refuse.
        refusals: harmless prompts with refusals.
        retained: harmless prompts with the model's own answers.
        unsteered: logits of these answers (`unsteered_logits`); computed where they are not given.
    """

    answers: Pairs
    refusals: Pairs
    retained: Pairs
    unsteered: Sequence[Tensor] = ()


@dataclass(frozen=True)
class GradientSettings:
    """Settings of the descent (`planted.estimators.gradient` in the configuration).

    Attributes:
        steps: steps of Adam at every learning rate.
        check_every: steps between two looks at the validation loss.
        batch_size: prompts per loss and step.
        learning_rates: those that are tried.
        ablation_weight, addition_weight, retain_weight: weights of the losses.
        seed: seed of the start, of the batches and of the directions drawn from a cone.
    """

    steps: int = 40
    check_every: int = 10
    batch_size: int = 16
    learning_rates: tuple[float, ...] = (0.02, 0.1)
    ablation_weight: float = 1.0
    addition_weight: float = 0.2
    retain_weight: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Addition:
    """Where a direction is added and how long it is then: those of the mean difference."""

    layer: int
    length: float


# ------------------------------------------------------------------------------------- directions


def orthonormal_rows(free: Tensor) -> Tensor:
    """Gram-Schmidt of the rows of `free` [k, d], with gradients; row 0 keeps its direction."""
    frame, triangle = torch.linalg.qr(free.T)
    return (frame * triangle.diagonal().sign()).T


def cone_directions(basis: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """Unit vectors [rows, d] of the cone between orthonormal rows [k, d].

    Every other one is a row of the basis, in turn; the others are drawn. Of a single direction all
    are that direction.
    """
    weights = torch.randn(rows, len(basis), generator=generator).abs()
    turns = torch.arange(0, rows, 2) // 2 % len(basis)
    weights[::2] = torch.eye(len(basis))[turns]
    return F.normalize(weights @ basis, dim=1)


@contextmanager
def ablating(model: PreTrainedModel, directions: Tensor) -> Iterator[None]:
    """Remove from all that is written row i of `directions` [rows, d] in row i of a batch."""

    def remove(states: Tensor) -> Tensor:
        along = torch.einsum("btd,bd->bt", states, directions)
        return states - along.unsqueeze(-1) * directions.unsqueeze(1)

    writes = [module for modules in write_modules(model) for module in modules]
    with operating(decoder_layers(model)[:1], writes, remove):
        yield


@contextmanager
def adding(model: PreTrainedModel, vectors: Tensor, layer: int) -> Iterator[None]:
    """Add row i of `vectors` [rows, d] to every token of row i at the input of block `layer`."""
    with operating([decoder_layers(model)[layer]], [], lambda h: h + vectors.unsqueeze(1)):
        yield


# ----------------------------------------------------------------------------------------- losses


def direction_loss(
    model: PreTrainedModel,
    basis: Tensor,
    targets: Targets,
    addition: Addition,
    settings: GradientSettings,
    generator: torch.Generator,
) -> Tensor:
    """The weighted sum of the three losses, nats per token, with gradients to `basis` [k, d]."""
    parts = (targets.answers, targets.refusals, targets.retained)
    answers, refusals, retained = (cone_directions(basis, len(p), generator) for p in parts)
    with ablating(model, torch.cat([answers, retained])):
        logits, tokens = completion_logits(model, [*targets.answers, *targets.retained])
    wanted = sum(len(completion) for _, completion in targets.answers)
    with adding(model, addition.length * refusals, addition.layer):
        refused = completion_logits(model, targets.refusals)
    unsteered = torch.cat(list(targets.unsteered or unsteered_logits(model, targets.retained)))
    return (
        settings.ablation_weight * F.cross_entropy(logits[:wanted], tokens[:wanted])
        + settings.addition_weight * F.cross_entropy(*refused)
        + settings.retain_weight * _divergence(unsteered, logits[wanted:])
    )


@torch.no_grad()
def unsteered_logits(model: PreTrainedModel, pairs: Pairs) -> list[Tensor]:
    """Logits [tokens, vocabulary] of every completion without a direction."""
    logits, _ = completion_logits(model, pairs)
    return list(logits.split([len(completion) for _, completion in pairs]))


def _divergence(unsteered: Tensor, steered: Tensor) -> Tensor:
    """Mean KL(unsteered || steered) over tokens, logits [tokens, vocabulary]."""
    base, changed = unsteered.log_softmax(-1), steered.log_softmax(-1)
    return F.kl_div(changed, base, log_target=True, reduction="batchmean")


# ---------------------------------------------------------------------------------------- descent


def gradient_directions(
    model: PreTrainedModel,
    size: int,
    training: Targets,
    validation: Targets,
    addition: Addition,
    settings: GradientSettings,
) -> Direction:
    """The basis of `size` directions with the least validation loss of all steps and rates.

    The parameters of the model get no gradient.

    Raises:
        InputError: something has no prompts.
    """
    parts = [part for asked in (training, validation) for part in list(vars(asked).values())[:3]]
    if not all(parts):
        raise InputError(
            "planted.estimators.gradient: a split has no harmful or no harmless prompts with an "
            "answer. Remedy: raise prompts.sizes."
        )
    training, validation = (
        replace(asked, unsteered=unsteered_logits(model, asked.retained))
        for asked in (training, validation)
    )
    width = model.get_input_embeddings().embedding_dim
    best, least = None, float("inf")
    for rate in settings.learning_rates:
        for basis in _descend(model, (size, width), training, addition, settings, rate):
            generator = torch.Generator().manual_seed(settings.seed)
            with torch.no_grad():
                loss = direction_loss(model, basis, validation, addition, settings, generator)
            if best is None or float(loss) < least:
                best, least = basis, float(loss)
    return Direction(basis=best.contiguous())


def _descend(
    model: PreTrainedModel,
    shape: tuple[int, int],
    targets: Targets,
    addition: Addition,
    settings: GradientSettings,
    rate: float,
) -> Iterator[Tensor]:
    """Yield the basis after every `check_every` steps and after the last."""
    generator = torch.Generator().manual_seed(settings.seed)
    # Of norm 1 by row, so that a learning rate means the same in every width.
    free = F.normalize(torch.randn(shape, generator=generator), dim=1).requires_grad_(True)
    optimizer = torch.optim.Adam([free], lr=rate)
    # Retained prompts and their logits are as many, and thus drawn in the same order.
    batches = [_batches(part, settings) for part in vars(targets).values()]
    for step in range(1, settings.steps + 1):
        batch = Targets(*(next(pairs) for pairs in batches))
        loss = direction_loss(model, orthonormal_rows(free), batch, addition, settings, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % settings.check_every == 0 or step == settings.steps:
            yield orthonormal_rows(free.detach())


def _batches(part: Sequence, settings: GradientSettings) -> Iterator[list]:
    """Yield batches for ever, every entry once in each round."""
    rng, size = np.random.default_rng(settings.seed), settings.batch_size
    while True:
        order = rng.permutation(len(part))
        for start in range(0, len(part), size):
            yield [part[row] for row in order[start : start + size]]
