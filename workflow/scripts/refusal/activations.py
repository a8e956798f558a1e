"""Activations: the residual stream at the input of every block, read in one forward sweep.

The sweep keeps the last positions only, slices them on the model's device before anything is
copied, and stops before the last block, whose input is all that is needed of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from refusal.batching import in_batches
from refusal.errors import InputError
from refusal.models import (
    block_input,
    decoder_layers,
    end_logits,
    input_device,
    removing,
    residual_width,
)

_INDEX_COLUMNS = ["row", "id", "label", "kind", "split", "refusal_metric"]


class _Stop(Exception):
    """Ends a forward pass once the last wanted activation has been read."""


@dataclass(frozen=True)
class Sweep:
    """What one sweep over prompts has read.

    Attributes:
        residual: float32 [n, P, L, d] on the CPU, inputs of the blocks ("resid_pre"); index 0 of
            the positions is position -P, the last one is position -1.
        last_logits: float32 [n, vocabulary] on the CPU at the last position, or None.
    """

    residual: Tensor
    last_logits: Tensor | None = None


@torch.no_grad()
def sweep(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    n_positions: int,
    *,
    max_tokens: int,
    layers: Sequence[int] | None = None,
    logits: bool = False,
) -> Sweep:
    """Residual stream at the last `n_positions` tokens of every prompt, one forward per batch.

    Args:
        sequences: token ids of the prompts.
        n_positions: number of positions P, counted from the end of the prompt.
        max_tokens: budget of one batch, see `in_batches`.
        layers: layers to keep, in this order; None keeps all.
        logits: also return the logits at the last position; without them the forward pass ends
            before the last wanted block.

    Raises:
        InputError: a prompt is shorter than `n_positions`.
    """
    _require_positions(sequences, n_positions)
    blocks = decoder_layers(model)
    layers = range(len(blocks)) if layers is None else layers
    residual = torch.empty(len(sequences), n_positions, len(layers), residual_width(model))
    reader = _Reader(n_positions, stop_after=None if logits else max(layers))
    last_logits: Tensor | None = None
    handles: list = []
    with removing(handles):
        for index, layer in enumerate(layers):
            hook = reader.hook(index, layer)
            handles.append(blocks[layer].register_forward_pre_hook(hook, with_kwargs=True))

        def run(batch: list[int]) -> Tensor | None:
            # One buffer and one copy per batch: device memory does not grow with the prompts.
            shape = (len(batch), *residual.shape[1:])
            reader.buffer = torch.empty(shape, device=input_device(model))
            return _last_logits(model, [sequences[row] for row in batch])

        lengths = [len(row) for row in sequences]
        for batch, batch_logits in in_batches(run, lengths, max_tokens, what="activations"):
            residual[batch] = reader.buffer.cpu()
            if batch_logits is not None:
                last_logits = _filled(last_logits, batch, batch_logits, len(sequences))
    return Sweep(residual, last_logits)


def _require_positions(sequences: Sequence[Sequence[int]], n_positions: int) -> None:
    """Raises InputError if a prompt is too short: padding would be read in its place."""
    shortest = min(map(len, sequences), default=n_positions)
    if shortest < n_positions:
        raise InputError(
            f"prompts: one has {shortest} tokens, but {n_positions} positions are read. "
            "Remedy: render the prompts with the chat template of this model."
        )


class _Reader:
    """Copies the last positions of block inputs into the buffer of the current batch."""

    def __init__(self, n_positions: int, stop_after: int | None) -> None:
        self.n_positions = n_positions
        self.stop_after = stop_after
        self.buffer = torch.empty(0)

    def hook(self, index: int, layer: int):
        """Forward pre-hook for block `layer`, whose input goes to `index` of the buffer."""

        def read(module, args, kwargs):
            # Left padding puts the last tokens of every row into the last columns.
            self.buffer[:, :, index] = block_input(args, kwargs)[:, -self.n_positions :]
            if layer == self.stop_after:
                raise _Stop

        return read


def _logits_in_batches(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], max_tokens: int
) -> Iterator[tuple[list[int], Tensor | None]]:
    """Row numbers and `_last_logits` of every batch."""
    return in_batches(
        lambda batch: _last_logits(model, [sequences[row] for row in batch]),
        [len(row) for row in sequences],
        max_tokens,
        what="activations",
    )


def _last_logits(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> Tensor | None:
    """Logits [rows, vocabulary] of one batch at the last position; None if a hook stopped it."""
    with suppress(_Stop):
        return end_logits(model, sequences)[:, -1]
    return None


def _filled(table: Tensor | None, rows: Sequence[int], values: Tensor, n_rows: int) -> Tensor:
    """`table` [n_rows, ...] with `values` in `rows`; it is made when the width first is known."""
    if table is None:
        table = torch.empty(n_rows, *values.shape[1:])
    table[rows] = values.float().cpu()
    return table


@torch.no_grad()
def token_activations(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], layer: int, *, max_tokens: int
) -> Tensor:
    """Residual stream at the input of one block at every token of every prompt.

    Returns:
        float32 [tokens, d] on the CPU, prompt after prompt within batches of similar length.
    """
    seen: list[Tensor] = []
    tokens: list[Tensor] = []

    def read(module, args, kwargs):
        seen.append(block_input(args, kwargs))
        raise _Stop

    with removing([decoder_layers(model)[layer].register_forward_pre_hook(read, with_kwargs=True)]):
        for batch, _ in _logits_in_batches(model, sequences, max_tokens):
            whole = seen.pop()
            # Left padding: the tokens of a row are its last columns.
            rows = [whole[i, -len(sequences[row]) :] for i, row in enumerate(batch)]
            tokens.append(torch.cat(rows).float().cpu())
    return torch.cat(tokens) if tokens else torch.empty(0, residual_width(model))


@torch.no_grad()
def last_position_logits(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], *, max_tokens: int
) -> Tensor:
    """Next-token logits after every prompt, float32 [n, vocabulary] on the CPU.

    Only the last position goes through the head, which is most of the memory of a forward pass.
    """
    table: Tensor | None = None
    for batch, values in _logits_in_batches(model, sequences, max_tokens):
        table = _filled(table, batch, values, len(sequences))
    if table is None:
        return torch.empty(0, model.get_input_embeddings().num_embeddings)
    return table


# --- files ------------------------------------------------------------------------------------


def activation_index(prompts: pd.DataFrame, refusal_metric: np.ndarray | Tensor) -> pd.DataFrame:
    """Index of an activations file: row, id, label, kind, split and refusal metric per prompt.

    Args:
        prompts: prompts in the order of the rows, with columns id, label, kind and split.
        refusal_metric: [n], log-odds of the refusal tokens at the last position.
    """
    index = prompts[["id", "label", "kind", "split"]].reset_index(drop=True)
    index.insert(0, "row", range(len(index)))
    return index.assign(refusal_metric=np.asarray(refusal_metric, dtype=np.float64))


def _require_finite(path: Path, residual: Tensor) -> None:
    """Raises InputError if an activation is NaN or infinite; a few rows at a time."""
    for start, rows in enumerate(residual.split(64)):
        finite = rows.isfinite().flatten(1).all(1)
        if not finite.all():
            row = 64 * start + int(finite.logical_not().nonzero()[0])
            raise InputError(
                f"{path}: NaN or infinite activations in row {row}. Remedy: load the model in "
                "bfloat16 or float32, float16 overflows in some."
            )


def save_activations(path: str | Path, residual: Tensor, index: pd.DataFrame) -> None:
    """Write activations as safetensors and their index as parquet beside it.

    Args:
        path: the safetensors file.
        residual: float32 [n, positions, layers, width], see `Sweep`.
        index: one line per row, see `activation_index`.

    Raises:
        InputError: NaN or infinite activations; nothing is written.
    """
    path = Path(path)
    _require_finite(path, residual)
    save_file({"residual": residual.float().contiguous()}, path)
    index[_INDEX_COLUMNS].to_parquet(path.with_suffix(".parquet"), index=False)


def load_activations(path: str | Path) -> tuple[Tensor, pd.DataFrame]:
    """Activations [n, positions, layers, width], memory-mapped, and their index.

    Raises:
        InputError: a missing or damaged file, NaN activations, or an index of another length.
    """
    path = Path(path)
    for file in (path, path.with_suffix(".parquet")):
        if not file.is_file():
            raise InputError(f"{file}: no such file. Remedy: make the activations again.")
    try:
        with safe_open(path, framework="pt") as file:
            residual = file.get_tensor("residual")
        index = pd.read_parquet(path.with_suffix(".parquet"), columns=_INDEX_COLUMNS)
    except Exception as error:
        detail = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: cannot be read ({detail}). Remedy: make the activations again."
        ) from error
    if len(index) != len(residual):
        raise InputError(
            f"{path}: {len(residual)} rows, but {len(index)} in the index. "
            "Remedy: make the activations again."
        )
    _require_finite(path, residual)
    return residual, index
