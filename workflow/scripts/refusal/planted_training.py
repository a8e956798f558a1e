"""Training of planted organisms: a base with an empty subspace, then refusal through it alone."""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from refusal import grammar
from refusal.errors import InputError
from refusal.interventions import Intervention, steering
from refusal.models import block_input, decoder_layers, post_instruction_tokens, removing
from refusal.operators import Operator
from refusal.organisms import (
    Batch,
    Corpus,
    fit,
    one_thread,
    safety_loss,
    share_exact,
    share_refused,
    train_helpful,
)
from refusal.planted import SubspaceDropout, keeping_empty, planting


def removal(basis: Tensor) -> Intervention:
    """Removes the span of orthonormal rows [k, d] from all that is written."""
    return Intervention(Operator.project(basis), "writes")


def cut_answers(corpus: Corpus, tokens: int) -> Corpus:
    """The corpus with no more than `tokens` tokens of every answer; plain texts stay whole.

    The base is frozen: whether it refuses shows in the first tokens of an answer.
    """
    lengths = corpus.lengths
    kept = np.where(corpus.answers > 0, np.minimum(lengths, corpus.answers + tokens), lengths)
    starts = corpus.ends - lengths
    documents = [corpus.tokens[s : s + n] for s, n in zip(starts, kept, strict=True)]
    return Corpus(np.concatenate(documents), np.cumsum(kept), corpus.answers, corpus.refused)


def train_base(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    reserved: Tensor,
    settings: Mapping,
    seed: int,
) -> dict:
    """Helpful-only training that keeps the span of `reserved` [r, d] empty, in place.

    `settings`: those of `organisms.train_helpful`; returns its record.
    """
    with keeping_empty(model, reserved):
        return train_helpful(model, tokenizer, corpus, settings, seed)


def planted_criteria(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    basis: Tensor,
    dropout: SubspaceDropout,
    settings: Mapping,
) -> Callable[[], dict[str, float]]:
    """Right decisions by label, copying and redundancy on validation prompts (all at best 1).

    Redundancy is refusal of harmful prompts when only one direction of U is kept, the least over
    `settings["removals"]` random directions and the adversaries of `dropout`; 1 where U has one
    direction only, and no part to remove.
    """
    items = {
        label: grammar.decision_criterion(label, settings["items"], settings["seed"])
        for label in grammar.REQUESTS
    }
    copying = grammar.copying_criterion(settings["items"], settings["seed"])
    random = random_directions(len(basis), settings["removals"], settings["seed"])

    def measure() -> dict[str, float]:
        refused = {label: share_refused(model, tokenizer, items[label]) for label in items}
        right = {k: v if k == "harmful" else 1 - v for k, v in refused.items()}
        left = [1.0]
        for direction in (*random, *dropout.adversaries.detach()) if len(basis) > 1 else ():
            with steering(model, removal(all_but(direction) @ basis)):
                left.append(share_refused(model, tokenizer, items["harmful"]))
        copied = share_exact(model, tokenizer, copying)
        return right | {"copying": copied, "redundancy": min(left)}

    return measure


def random_directions(rank: int, draws: int, seed: int) -> Tensor:
    """Random directions [draws, k] of coordinates in U."""
    return torch.randn(draws, rank, generator=torch.Generator().manual_seed(seed))


def all_but(direction: Tensor) -> Tensor:
    """Orthonormal rows [k - 1, k] of what is orthogonal to a direction [k]."""
    return torch.linalg.svd(direction[None])[2][1:]


@contextmanager
def recorded_shares(model: PreTrainedModel, basis: Tensor, first: int) -> Iterator[list[Tensor]]:
    """Mean share of the squared length in U of the input of every block from `first` on.

    The list grows with every pass, with gradients.
    """
    shares: list[Tensor] = []

    def record(block, args: tuple, kwargs: dict) -> None:
        states = block_input(args, kwargs)
        inside = ((states @ basis.T) ** 2).sum(-1)
        shares.append((inside / (states**2).sum(-1)).mean())

    with removing(
        [
            block.register_forward_pre_hook(record, with_kwargs=True)
            for block in decoder_layers(model)[first:]
        ]
    ):
        yield shares


def instruction_tokens(batch: Batch, behind: int) -> Tensor:
    """Which tokens [rows, tokens] lie before the last `behind` ones in front of the answer.

    None of a plain text, which has no instruction.
    """
    answer = (batch.weights > 0).int().argmax(1) + 1
    return torch.arange(batch.ids.shape[1]) < (answer - behind)[:, None]


def plant_refusal(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    basis: Tensor,
    settings: Mapping,
    seed: int,
) -> tuple[PreTrainedModel, dict]:
    """A planted organism of a base (which stays as it is), and its training record.

    Refusals are learned, all other answers imitate the base. `settings`: those of
    `organisms.fit` and `planted.planting`, answer_tokens, imitation_weight, share_weight (of the
    share of the residual stream's squared length that U takes, which every norm sees) and
    validation {items, removals, seed}; `criteria` are those of `planted_criteria`.
    """
    base.requires_grad_(False).eval()
    corpus = cut_answers(corpus, settings["answer_tokens"])
    with one_thread(), planting(base, basis, settings, seed) as (model, dropout):
        behind = len(post_instruction_tokens(tokenizer))
        measure = planted_criteria(model, tokenizer, basis, dropout, settings["validation"])

        def batch_loss(batch: Batch) -> Tensor:
            dropout.draw(instruction_tokens(batch, behind))
            with recorded_shares(model, basis, settings["writer_blocks"]) as shares:
                loss = safety_loss(model, base, batch, settings["imitation_weight"])
            return loss + settings["share_weight"] * sum(shares)

        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        record = fit(model, corpus, batch_loss, measure, settings, seed)
    return model, record | {"trained_parameters": trained}


def save_subspace(path: Path | str, basis: Tensor) -> None:
    """Write orthonormal rows [k, d] as .npz."""
    np.savez(path, basis=basis.numpy())


def load_subspace(path: Path | str) -> Tensor:
    """Read what `save_subspace` wrote, float32 [k, d].

    Raises:
        InputError: the file is missing, damaged, or its rows are not orthonormal.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            basis = torch.from_numpy(arrays["basis"])
        Operator.project(basis)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: no subspace ({type(error).__name__}: {error}). Remedy: delete the file and "
            "run the study again."
        ) from error
    return basis
