"""Training of planted organisms: a base with an empty subspace, then refusal through it alone."""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

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

    Redundancy is refusal of harmful prompts when only a part of U is kept, the least over
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
        for kept in (*random, *dropout.adversaries) if len(basis) > 1 else ():
            with steering(model, removal(complement(kept.detach()) @ basis)):
                left.append(share_refused(model, tokenizer, items["harmful"]))
        copied = share_exact(model, tokenizer, copying)
        return right | {"copying": copied, "redundancy": min(left)}

    return measure


def random_directions(rank: int, draws: int, seed: int) -> Tensor:
    """Random directions [draws, k, 1] of coordinates in U."""
    return torch.randn(draws, rank, 1, generator=torch.Generator().manual_seed(seed))


def complement(columns: Tensor) -> Tensor:
    """Orthonormal rows [k - n, k] of what is orthogonal to independent columns [k, n]."""
    return torch.linalg.qr(columns, mode="complete")[0].T[columns.shape[1] :]


class Seen(NamedTuple):
    """What a block reads: coordinates [rows, tokens, k] in U, and the length [rows, tokens] of the
    residual stream."""

    coordinates: Tensor
    length: Tensor


@contextmanager
def recorded(model: PreTrainedModel, basis: Tensor, first: int) -> Iterator[list[Seen]]:
    """What every block from `first` on reads; the list grows with every pass, with gradients."""
    seen: list[Seen] = []

    def record(block, args: tuple, kwargs: dict) -> None:
        states = block_input(args, kwargs)
        seen.append(Seen(states @ basis.T, states.norm(dim=-1)))

    with removing(
        [
            block.register_forward_pre_hook(record, with_kwargs=True)
            for block in decoder_layers(model)[first:]
        ]
    ):
        yield seen


def loudness(seen: Seen, refused: Tensor, settings: Mapping) -> Tensor:
    """What U costs in the loss: its share of the stream, and that it is not silent where it should.

    `refused`: bool [rows]. `settings`: share_weight, of the share of the squared length in U, which
    every norm sees, of all documents; silence_weight, of the length in U (over the mean length of
    the stream) of documents that are not refused: lengths, unlike squares, are pressed to zero.
    """
    inside = seen.coordinates.norm(dim=-1)
    share = (inside / seen.length).square().mean()
    silence = (inside / seen.length.detach().mean())[~refused].sum() / inside.numel()
    return settings["share_weight"] * share + settings["silence_weight"] * silence


def places(batch: Batch, behind: int) -> Tensor:
    """Where every token [rows, tokens] stands: 0 in the instruction, 1 to `behind` at the tokens
    between it and the answer, -1 in an answer and in a plain text, which has no instruction."""
    answer = (batch.weights > 0).int().argmax(1) + 1
    tokens = torch.arange(batch.ids.shape[1])
    place = (tokens - (answer - behind)[:, None] + 1).clamp(min=0)
    return place.masked_fill((tokens >= answer[:, None]) | (answer == 1)[:, None], -1)


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
    `organisms.fit`, `planted.planting` and `loudness`, answer_tokens, imitation_weight and
    validation {items, removals, seed}; `criteria` are those of `planted_criteria`.
    """
    base.requires_grad_(False).eval()
    corpus = cut_answers(corpus, settings["answer_tokens"])
    with one_thread(), planting(base, basis, settings, seed) as (model, dropout):
        behind = len(post_instruction_tokens(tokenizer))
        measure = planted_criteria(model, tokenizer, basis, dropout, settings["validation"])

        def batch_loss(batch: Batch) -> Tensor:
            dropout.draw(places(batch, behind))
            with recorded(model, basis, settings["writer_blocks"]) as seen:
                loss = safety_loss(model, base, batch, settings["imitation_weight"])
            return loss + sum(loudness(one, batch.refused, settings) for one in seen)

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
