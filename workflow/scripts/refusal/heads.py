"""Attention heads, read from the model itself: what they write, where they look, and patching.

The output projection W_O of an attention block reads the outputs z_h of all its query heads side by
side, so head h writes z_h W_O[:, h]^T, and all heads together (plus the bias) are the block's write
to the residual stream. The direct feature attribution of a head is its write at the last token
dotted with a unit direction (Arditi et al. 2024, section 5.2 and appendix H). Query heads are
counted, so grouped-query attention needs nothing of its own.

Where a block normalises the attention output (Gemma 2 and 3, OLMo 2), the norm's elementwise factor
at that token is measured and held fixed, which keeps the sum over heads equal to the actual write.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from refusal.batching import in_batches
from refusal.errors import InputError
from refusal.models import (
    architecture_name,
    block_input,
    decoder_layers,
    end_logits,
    first_tensor,
    refusal_metric,
    removing,
    run_random_tokens,
    sub_blocks,
    write_modules,
)

Head = tuple[int, int]
"""(layer, query head), both counted from 0."""

FloatArray = NDArray[np.float64]

# Regions of a suffixed chat prompt, in order.
REGIONS = ("template before", "instruction", "suffix", "template after")
_NO_REGION = -1
# Relative error up to which a post-norm counts as an elementwise factor.
_FACTOR_TOLERANCE = 1e-4


@dataclass(frozen=True)
class AttentionBlock:
    """The attention of one block.

    Attributes:
        module: the attention module; the second entry of its output are the attention weights.
        projection: W_O, [width, heads * head width].
        write: module whose output is added to the residual stream: `module` or its post-norm.
        n_heads: number of query heads.
    """

    module: nn.Module
    projection: nn.Linear
    write: nn.Module
    n_heads: int

    @property
    def head_width(self) -> int:
        """Width of one head's output."""
        return self.projection.in_features // self.n_heads

    @property
    def post_norm(self) -> nn.Module | None:
        """The norm between the projection and the residual stream, if there is one."""
        return None if self.write is self.module else self.write


def attention_blocks(model: PreTrainedModel) -> list[AttentionBlock]:
    """The attention of every block, found by names and proved on a short random forward pass.

    Raises:
        InputError: no attention module, or none of its linear maps gives its output.
    """
    modules = [attention for attention, _ in sub_blocks(model)]
    projections = _output_projections(model, modules)
    writes = [attention for attention, _ in write_modules(model)]
    found = zip(modules, projections, writes, strict=True)
    return [
        AttentionBlock(module, projection, write, _n_heads(model, module, projection))
        for module, projection, write in found
    ]


def _unsupported(model: PreTrainedModel, what: str) -> InputError:
    return InputError(
        f"{architecture_name(model)}: {what}. Remedy: extend refusal/heads.py, or set "
        "experiments.suffix: false and experiments.heads: false."
    )


@torch.no_grad()
def _output_projections(model: PreTrainedModel, modules: Sequence[nn.Module]) -> list[nn.Linear]:
    """The linear map of every attention module whose output is the module's own output."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        outputs[module] = first_tensor(output)

    linear = [[m for m in module.modules() if isinstance(m, nn.Linear)] for module in modules]
    handles: list = []
    with removing(handles):
        for module, inside in zip(modules, linear, strict=True):
            handles.extend(part.register_forward_hook(keep) for part in (module, *inside))
        run_random_tokens(model)
    found = []
    for module, inside in zip(modules, linear, strict=True):
        same = [part for part in inside if _equal(outputs.get(part), outputs[module])]
        if len(same) != 1:
            raise _unsupported(model, f"{len(same)} linear maps give the output of its attention")
        found.append(same[0])
    return found


def _equal(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.equal(one, other)


def _n_heads(model: PreTrainedModel, module: nn.Module, projection: nn.Linear) -> int:
    """Query heads of a block: the projection's input divided by the width of a head."""
    config = model.config.get_text_config(decoder=True)
    head_width = getattr(module, "head_dim", None) or getattr(config, "head_dim", None)
    n_heads = projection.in_features // head_width if head_width else config.num_attention_heads
    if n_heads < 1 or projection.in_features % n_heads:
        raise _unsupported(model, f"{projection.in_features} inputs of its attention output")
    return n_heads


def all_heads(blocks: Sequence[AttentionBlock]) -> list[Head]:
    """Every (layer, head), in order: the columns of all tables of heads."""
    return [(layer, head) for layer, block in enumerate(blocks) for head in range(block.n_heads)]


# --- reading one token of every prompt ----------------------------------------------------------


@dataclass(frozen=True)
class TokenReading:
    """What one sweep has read at one token of n prompts, on the CPU, float32 or wider.

    Attributes:
        residual: [n, layers + 1, width], the inputs of all blocks and the output of the last one.
        outputs: per layer [n, heads * head width], the outputs z of all heads side by side.
        writes: per layer [n, width], what attention added to the residual stream.
        attention: float64 [n, heads of all layers, regions], attention from that token, or None.
        refusal: float64 [n], refusal metric after the last token, or None.
    """

    residual: Tensor
    outputs: list[Tensor]
    writes: list[Tensor]
    attention: Tensor | None = None
    refusal: Tensor | None = None


class _Tables:
    """Tables [n, ...], made when their width first is known and filled batch by batch."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.rows: list[int] = []
        self.tables: dict[object, Tensor] = {}

    def put(self, key: object, values: Tensor) -> None:
        """Keep `values` [batch, ...] for the rows of the current batch."""
        values = values.to(torch.promote_types(values.dtype, torch.float32)).cpu()
        if key not in self.tables:
            shape = (self.n_rows, *values.shape[1:])
            self.tables[key] = torch.empty(shape, dtype=values.dtype)
        self.tables[key][self.rows] = values


@torch.no_grad()
def read_token(
    model: PreTrainedModel,
    blocks: Sequence[AttentionBlock],
    sequences: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    position: int = -1,
    regions: Sequence[Sequence[int]] | None = None,
    refusal_tokens: Sequence[int] | None = None,
) -> TokenReading:
    """Residual stream, head outputs and attention at one position of every prompt.

    Args:
        blocks: see `attention_blocks`.
        sequences: token ids of the prompts, at least one.
        max_tokens: budget of one batch, see `in_batches`.
        position: token position, counted from the end (negative).
        regions: per token of every prompt the number of its region in `REGIONS`; with them the
            attention weights are read and summed over each region.
        refusal_tokens: also compute the refusal metric at the last position.

    Raises:
        InputError: attention weights are wanted, but the model does not return any.
    """
    tables, n_layers = _Tables(len(sequences)), len(blocks)
    one_hot: list[Tensor] = []  # regions of the current batch
    handles: list = []
    with removing(handles):
        handles += _state_hooks(model, blocks, tables, position)
        if regions is not None:
            handles += _attention_hooks(model, blocks, tables, position, one_hot)

        def run(batch: list[int]) -> Tensor:
            tables.rows = batch
            if regions is not None:
                one_hot[:] = [_one_hot([regions[row] for row in batch])]
            return end_logits(model, [sequences[row] for row in batch])[:, -1]

        lengths = [len(row) for row in sequences]
        for _, logits in in_batches(run, lengths, max_tokens, what="attention heads"):
            if refusal_tokens is not None:
                tables.put("refusal", refusal_metric(logits, refusal_tokens))
    read = tables.tables
    layers = range(n_layers)
    return TokenReading(
        residual=torch.stack([read["residual", layer] for layer in range(n_layers + 1)], dim=1),
        outputs=[read["outputs", layer] for layer in layers],
        writes=[read["writes", layer] for layer in layers],
        attention=None
        if regions is None
        else torch.cat([read["attention", layer] for layer in layers], dim=1),
        refusal=read.get("refusal"),
    )


def _state_hooks(
    model: PreTrainedModel, blocks: Sequence[AttentionBlock], tables: _Tables, position: int
) -> Iterator:
    """Hooks that keep residual stream, head outputs and attention writes; sliced first."""

    def keep_input(key: object):
        def hook(module, args, kwargs):
            tables.put(key, block_input(args, kwargs)[:, position])

        return hook

    def keep_output(key: object):
        def hook(module, args, output):
            tables.put(key, first_tensor(output)[:, position])

        return hook

    layers = decoder_layers(model)
    for layer, (module, block) in enumerate(zip(layers, blocks, strict=True)):
        hook = keep_input(("residual", layer))
        yield module.register_forward_pre_hook(hook, with_kwargs=True)
        hook = keep_input(("outputs", layer))
        yield block.projection.register_forward_pre_hook(hook, with_kwargs=True)
        yield block.write.register_forward_hook(keep_output(("writes", layer)))
    yield layers[-1].register_forward_hook(keep_output(("residual", len(blocks))))


# --- attention weights --------------------------------------------------------------------------


def _one_hot(regions: Sequence[Sequence[int]]) -> Tensor:
    """Regions of left-padded rows as 0 and 1, float64 [rows, longest, regions]; padding in none."""
    numbers = torch.tensor(left_padded_regions(regions))
    return (numbers.unsqueeze(-1) == torch.arange(len(REGIONS))).double()


def left_padded_regions(regions: Sequence[Sequence[int]]) -> list[list[int]]:
    """Regions of a batch, padded on the left as its tokens are."""
    longest = max(map(len, regions))
    return [[_NO_REGION] * (longest - len(row)) + list(row) for row in regions]


def _attention_hooks(
    model: PreTrainedModel,
    blocks: Sequence[AttentionBlock],
    tables: _Tables,
    position: int,
    one_hot: Sequence[Tensor],
) -> Iterator:
    """Hooks that sum the attention weights of one query over every region.

    Only that row of a block's weights outlives the block.
    """

    def sum_regions(layer: int, n_heads: int):
        def hook(module, args, output):
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if not isinstance(weights, Tensor) or weights.shape[1] != n_heads:
                raise InputError(
                    f"{architecture_name(model)}: its attention returns no weights. Remedy: set "
                    "models.<name>.attention: eager, or experiments.suffix: false."
                )
            row = weights[:, :, position].double()
            tables.put(("attention", layer), row @ one_hot[0].to(row.device))

        return hook

    for layer, block in enumerate(blocks):
        yield block.module.register_forward_hook(sum_regions(layer, block.n_heads))


# --- direct feature attribution -----------------------------------------------------------------


@torch.no_grad()
def head_attributions(
    blocks: Sequence[AttentionBlock], reading: TokenReading, unit: Tensor
) -> tuple[Tensor, Tensor]:
    """What every head writes along a direction, and what the biases of W_O do.

    Args:
        unit: unit direction [width].

    Returns:
        float64 [n, heads of all layers] and [n, layers]; for every layer the sum over its heads
        plus its bias is the attention write of the token dotted with `unit`.

    Raises:
        InputError: a post-norm that is no elementwise factor (it shifts or centres).
    """
    unit = unit.double().cpu()
    heads, biases = [], []
    for block, z, write in zip(blocks, reading.outputs, reading.writes, strict=True):
        weight = block.projection.weight.double().cpu()
        bias = block.projection.bias
        bias = torch.zeros(len(weight)).double() if bias is None else bias.double().cpu()
        z = z.double()
        scale, gain = _post_norm_factor(block, z @ weight.T + bias, write.double())
        along = gain * unit
        each = (z * (along @ weight)).unflatten(-1, (block.n_heads, -1)).sum(-1)
        heads.append(scale * each)
        biases.append(scale * (bias @ along))
    return torch.cat(heads, dim=-1), torch.cat(biases, dim=-1)


def _post_norm_factor(block: AttentionBlock, before: Tensor, after: Tensor) -> tuple:
    """Factor of a block's post-norm at every token: scale [n, 1] times gain [width].

    An RMS norm multiplies by gain / root mean square. What it makes of ones is proportional to its
    gain, so only one number per token is fitted, and checked: scale * gain * before == after.
    """
    norm = block.post_norm
    if norm is None:
        return torch.ones(len(before), 1).double(), torch.ones(before.shape[-1]).double()
    parameter = next(norm.parameters(), torch.empty(0))
    ones = torch.ones(1, before.shape[-1], dtype=parameter.dtype, device=parameter.device)
    gain = first_tensor(norm(ones))[0].double().cpu()
    scaled = gain * before
    scale = (after * scaled).sum(-1, keepdim=True) / (scaled * scaled).sum(-1, keepdim=True)
    error = (scale * scaled - after).norm(dim=-1)
    tolerance = _FACTOR_TOLERANCE + 8 * torch.finfo(parameter.dtype).eps
    if not bool((error <= tolerance * after.norm(dim=-1)).all()):
        raise InputError(
            f"{type(norm).__name__}: this post-norm is no elementwise factor, so heads have no "
            "attribution of their own. Remedy: set experiments.suffix: false."
        )
    return scale, gain


def ranked(heads: Sequence[Head], effects: FloatArray) -> list[Head]:
    """Heads from the largest effect [heads] to the smallest; ties in order of layer and head."""
    order = sorted(range(len(heads)), key=lambda index: (-effects[index], heads[index]))
    return [heads[index] for index in order]


# --- patching -----------------------------------------------------------------------------------


@contextmanager
def patching(
    blocks: Sequence[AttentionBlock],
    heads: Sequence[Head],
    outputs: Sequence[Tensor],
    position: int = -1,
) -> Iterator[None]:
    """Within it `heads` give, at one position, the outputs that they had in other prompts.

    Args:
        outputs: per layer [rows, heads * head width], the donors' head outputs (see
            `TokenReading`), in the order of the rows of the batch.
        position: token position, counted from the end of the forward pass's tokens.
    """

    def patch(columns: Tensor, donors: Tensor):
        def hook(module, args):
            changed = args[0].clone()
            changed[:, position, columns] = donors[:, columns].to(changed)
            return (changed, *args[1:])

        return hook

    handles: list = []
    with removing(handles):
        for layer, of_layer in _by_layer(heads).items():
            block = blocks[layer]
            columns = torch.zeros(block.n_heads, block.head_width, dtype=torch.bool)
            columns[of_layer] = True
            hook = patch(columns.flatten(), outputs[layer])
            handles.append(block.projection.register_forward_pre_hook(hook))
        yield


def _by_layer(heads: Sequence[Head]) -> Mapping[int, list[int]]:
    """Heads grouped by layer."""
    grouped: dict[int, list[int]] = {}
    for layer, head in heads:
        grouped.setdefault(layer, []).append(head)
    return grouped
