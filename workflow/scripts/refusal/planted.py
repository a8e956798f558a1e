"""Planted refusal: organisms in which the subspace that mediates refusal is known exactly.

A helpful-only base is trained with a small subspace kept empty: nothing that it writes to the
residual stream has a component there. Refusal is then planted through U, k directions of that
subspace, while the base stays frozen:

- writers (early blocks) may change what they write inside U only, from their own heads and neurons
  and from new ones;
- readers (later blocks) gain a view of U and of nothing else.

Whatever the planted organism does beyond its base is thus mediated by U: with U removed from
everything that is written, it computes the base's logits. The changes are baked into the weights,
so that the checkpoint is an ordinary one. Bases are orthonormal rows [k, d], as everywhere here.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.utils.parametrize as parametrize
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from refusal.errors import InputError
from refusal.models import architecture_name, decoder_layers, removing, sub_blocks

# Norms before each sub-block and none after, separate projections: what is written is what a matrix
# writes, and what is read is what a matrix reads of a norm.
PLANTABLE = ("llama", "qwen2")


# ------------------------------------------------------------------------------------- subspaces


def reserved_basis(width: int, dimensions: int, seed: int) -> Tensor:
    """Random orthonormal rows [dimensions, width]: the subspace that a base keeps empty."""
    return _orthonormal(dimensions, width, seed)


def planted_basis(reserved: Tensor, rank: int, seed: int) -> Tensor:
    """U: `rank` random orthonormal rows [rank, d] inside the span of `reserved` [r, d].

    Raises:
        InputError: a rank above that of the reserved subspace.
    """
    if rank > len(reserved):
        raise InputError(
            f"planted.organisms: rank {rank}, but the base keeps {len(reserved)} directions empty. "
            "Remedy: raise planted.reserved."
        )
    return _orthonormal(rank, len(reserved), seed) @ reserved


def _orthonormal(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(width, rows, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(draw)[0].T.float().contiguous()


def random_bases(width: int, rank: int, draws: int, seed: int) -> list[Tensor]:
    """Random subspaces of the whole space, each orthonormal rows [rank, width]: controls."""
    generator = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**31, (draws,), generator=generator).tolist()
    return [_orthonormal(rank, width, draw) for draw in seeds]


# --------------------------------------------------------------------------------- model's parts


def require_plantable(model: PreTrainedModel) -> None:
    """Raises InputError for an architecture that refusal cannot be planted into."""
    if architecture_name(model) not in PLANTABLE:
        raise InputError(
            f"planted.bases: architecture {architecture_name(model)!r} cannot be planted. "
            f"Remedy: choose one of {', '.join(PLANTABLE)}."
        )


def writing_matrices(model: PreTrainedModel) -> list[nn.Linear]:
    """The matrices [d, in] that write to the residual stream: attention and MLP of every block."""
    return [
        matrix
        for attention, mlp in sub_blocks(model)
        for matrix in (attention.o_proj, mlp.down_proj)
    ]


def reading_matrices(block: nn.Module) -> list[tuple[Tensor, nn.Linear]]:
    """The matrices [out, d] of a block that read the residual stream, each with its norm's gain."""
    attention, mlp = block.self_attn, block.mlp
    before, between = block.input_layernorm.weight, block.post_attention_layernorm.weight
    return [
        *((before, matrix) for matrix in (attention.q_proj, attention.k_proj, attention.v_proj)),
        *((between, matrix) for matrix in (mlp.gate_proj, mlp.up_proj)),
    ]


def all_reading_matrices(model: PreTrainedModel) -> list[tuple[Tensor, nn.Linear]]:
    """Those of every block, and the output head."""
    inside = [pair for block in decoder_layers(model) for pair in reading_matrices(block)]
    return [*inside, (model.get_decoder().norm.weight, model.get_output_embeddings())]


# ------------------------------------------------------------------------------------------ base


class _WithoutRows(nn.Module):
    """A matrix [d, in] that writes nothing along `basis`."""

    def __init__(self, basis: Tensor) -> None:
        super().__init__()
        self.register_buffer("basis", basis)

    def forward(self, weight: Tensor) -> Tensor:
        return weight - self.basis.T @ (self.basis @ weight)


class _WithoutColumns(_WithoutRows):
    """An embedding [tokens, d] without a component along `basis`."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight - (weight @ self.basis.T) @ self.basis


@contextmanager
def keeping_empty(model: PreTrainedModel, reserved: Tensor) -> Iterator[None]:
    """Let nothing write to the span of `reserved` [r, d] while training; baked in on leaving."""
    require_plantable(model)
    matrices = writing_matrices(model)
    for matrix in matrices:
        parametrize.register_parametrization(matrix, "weight", _WithoutRows(reserved))
    embedding = model.get_input_embeddings()
    parametrize.register_parametrization(embedding, "weight", _WithoutColumns(reserved))
    try:
        yield
    finally:
        for module in (*matrices, embedding):
            parametrize.remove_parametrizations(module, "weight")


def widened(model: PreTrainedModel, heads: int, neurons: int) -> PreTrainedModel:
    """The same function with `heads` more attention heads and `neurons` more neurons per block.

    The new parts are zero. A new head has the size of the old ones, and shares keys and values with
    as many others.
    """
    config = copy.deepcopy(model.config)
    group = config.num_attention_heads // config.num_key_value_heads
    total = config.num_attention_heads + heads
    # The second is a rule of transformers for Llama, which would show only when it is saved.
    if heads % group or config.hidden_size % total:
        raise InputError(
            f"planted.planting.heads: {heads} makes {total} heads, which have to divide the width "
            f"({config.hidden_size}) and share keys and values by {group}. "
            f"Remedy: double the heads ({config.num_attention_heads})."
        )
    config.head_dim = decoder_layers(model)[0].self_attn.head_dim
    config.num_attention_heads = total
    config.num_key_value_heads += heads // group
    config.intermediate_size += neurons
    with torch.random.fork_rng():
        wide = transformers.AutoModelForCausalLM.from_config(config).eval()
    state = wide.state_dict()
    for name, old in model.state_dict().items():
        state[name].zero_()
        state[name][tuple(slice(size) for size in old.shape)] = old
    return wide


@torch.no_grad()
def make_blind(matrices: list[tuple[Tensor, nn.Linear]], basis: Tensor) -> None:
    """Let the matrices (each with its norm's gain) no longer read the span of `basis`, in place.

    A base never saw anything there, so its function stays as it is.
    """
    for gain, matrix in matrices:
        seen = (matrix.weight * gain) @ basis.T
        matrix.weight -= seen @ (basis / gain)


# -------------------------------------------------------------------------------------- planting


class SubspaceDropout:
    """Keeps a part of U of what the writers write, another one for every row of a batch.

    Refusal has to survive on what is kept, down to a single direction: if each direction of U
    suffices by itself, no k - 1 of them can be removed to end refusal, and the functional rank is
    k. Half of the reduced rows keep a random part of 1 to k - 1 directions. The others keep one of
    the adversaries: parts of all these sizes, which follow the gradient of the loss to where
    refusal is weakest, and now and then start anew.

    One direction can carry a signal that others cannot only if it is written elsewhere, so of other
    rows U is kept at one place alone: in the instruction, or at one token behind it.

    `settings`: share (of the rows that are reduced), adversaries (how many), active (of them, drawn
    at every step), learning_rate (of Adam), restart (chance of an adversary to start anew at every
    step); `place_share`: share of the rows with one place.
    """

    def __init__(self, rank: int, settings: Mapping, seed: int, place_share: float = 0.0) -> None:
        self.rank, self.settings, self.place_share = rank, settings, place_share
        self.generator = torch.Generator().manual_seed(seed)
        sizes = [1 + i % max(rank - 1, 1) for i in range(settings["adversaries"])]
        self.adversaries = [self._frame(size).requires_grad_(True) for size in sizes]
        self.optimizer = torch.optim.Adam(
            self.adversaries, lr=settings["learning_rate"], maximize=True
        )
        self.kept: Tensor | None = None
        self.emptied: Tensor | None = None

    def _frame(self, size: int) -> Tensor:
        """Random orthonormal columns [k, size] of coordinates."""
        return torch.linalg.qr(torch.randn(self.rank, size, generator=self.generator))[0]

    def _chance(self, rows: int, share: float) -> Tensor:
        return torch.rand(rows, generator=self.generator) < share

    def draw(self, places: Tensor) -> None:
        """Choose what is kept next; `places` [rows, tokens] as of `planted_training.places`."""
        rows, last = len(places), int(places.max())
        one_place = self._chance(rows, self.place_share)
        kept = torch.randint(max(last, 0) + 1, (rows, 1), generator=self.generator)
        emptied = (places >= 0) & (places != kept) & one_place[:, None]
        self.emptied = emptied if emptied.any() else None
        if self.rank > 1:
            self._follow_gradient()
            parts = self._parts(rows)
            self.kept = torch.where(one_place[:, None, None], torch.eye(self.rank), parts)

    def _parts(self, rows: int) -> Tensor:
        """Projections [rows, k, k] of coordinates in U: what is kept of every row."""
        reduced = self._chance(rows, self.settings["share"])[:, None, None]
        searched = self._chance(rows, 0.5)[:, None, None]
        count = min(self.settings["active"], len(self.adversaries))
        active = torch.randperm(len(self.adversaries), generator=self.generator)[:count]
        frames = [torch.linalg.qr(self.adversaries[i])[0] for i in active]
        found = torch.stack([frame @ frame.T for frame in frames])[torch.arange(rows) % count]
        parts = torch.where(searched, found, self._random_parts(rows))
        return torch.where(reduced, parts, torch.eye(self.rank))

    def _random_parts(self, rows: int) -> Tensor:
        """Projections [rows, k, k] on random parts of 1 to k - 1 directions."""
        draw = torch.randn(rows, self.rank, self.rank, generator=self.generator)
        turn = torch.linalg.qr(draw)[0]
        size = torch.randint(1, self.rank, (rows, 1, 1), generator=self.generator)
        turn = turn * (torch.arange(self.rank) < size)
        return turn @ turn.mT

    def _follow_gradient(self) -> None:
        """Move the adversaries by the gradient of the last loss; restart some."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for frame in self.adversaries:
                if torch.rand((), generator=self.generator) < self.settings["restart"]:
                    frame.copy_(self._frame(frame.shape[1]))

    def reduce(self, written: Tensor, basis: Tensor) -> Tensor:
        """What is left of writes [rows, tokens, d], of which U [k, d] is reduced."""
        if self.kept is None and self.emptied is None:
            return written
        kept = coordinates = written @ basis.T
        if self.kept is not None:
            kept = kept @ self.kept
        if self.emptied is not None:
            kept = kept.masked_fill(self.emptied[..., None], 0.0)
        return written + (kept - coordinates) @ basis


class _Writer(nn.Module):
    """A matrix [d, in] with a trained change whose output lies in U."""

    def __init__(self, basis: Tensor, inputs: int) -> None:
        super().__init__()
        self.register_buffer("basis", basis)
        self.coordinates = nn.Parameter(torch.zeros(len(basis), inputs))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.basis.T @ self.coordinates


class _Reader(nn.Module):
    """A matrix [out, d] behind a norm with a trained view of U, whatever the norm's gain."""

    def __init__(self, basis: Tensor, gain: Tensor, outputs: int, std: float) -> None:
        super().__init__()
        self.register_buffer("view", basis / gain.detach())
        self.weights = nn.Parameter(std * torch.randn(outputs, len(basis)))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.weights @ self.view


class _NewRows(nn.Module):
    """A matrix whose rows from `start` on (new heads or neurons) are trained."""

    def __init__(self, start: int, weight: Tensor, std: float) -> None:
        super().__init__()
        self.start = start
        self.rows = nn.Parameter(std * torch.randn(len(weight) - start, weight.shape[1]))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.cat([weight[: self.start], self.rows])


@contextmanager
def planting(
    base: PreTrainedModel, basis: Tensor, settings: Mapping, seed: int
) -> Iterator[tuple[PreTrainedModel, SubspaceDropout]]:
    """A wider copy of `base` in which only writers to U and readers of U are trained.

    Baked into ordinary weights on leaving. `basis`: U, orthonormal rows [k, d] in the subspace that
    the base keeps empty. `settings`: writer_blocks, heads and neurons (new ones of every block),
    reader_std and new_std (of what is trained, at the start), dropout and place_share (settings
    and `place_share` of `SubspaceDropout`).
    """
    require_plantable(base)
    model = widened(base, settings["heads"], settings["neurons"]).requires_grad_(False)
    make_blind(all_reading_matrices(model), basis)
    dropout = SubspaceDropout(
        len(basis), settings["dropout"], seed, place_share=settings["place_share"]
    )
    old, blocks = decoder_layers(base), decoder_layers(model)
    changed: list[nn.Module] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for index, block in enumerate(blocks):
            if index < settings["writer_blocks"]:
                changed += _let_write(block, old[index], basis, settings["new_std"])
            else:
                changed += _let_read(block, basis, settings["reader_std"])

    def reduce(module: nn.Linear, args: tuple, output: Tensor) -> Tensor:
        return dropout.reduce(output, basis) if model.training else output

    writers = writing_matrices(model)[: 2 * settings["writer_blocks"]]
    try:
        with removing([matrix.register_forward_hook(reduce) for matrix in writers]):
            yield model, dropout
    finally:
        model.eval()
        for module in changed:
            parametrize.remove_parametrizations(module, "weight")
        model.requires_grad_(False)


def _let_write(block: nn.Module, old: nn.Module, basis: Tensor, std: float) -> list[nn.Module]:
    """Train the new heads and neurons of a block, and what all of them write into U."""
    changed = []
    for (_, matrix), (_, before) in zip(
        reading_matrices(block), reading_matrices(old), strict=True
    ):
        if matrix.out_features > before.out_features:
            new = _NewRows(before.out_features, matrix.weight, std)
            parametrize.register_parametrization(matrix, "weight", new)
            changed.append(matrix)
    for matrix in (block.self_attn.o_proj, block.mlp.down_proj):
        writer = _Writer(basis, matrix.in_features)
        parametrize.register_parametrization(matrix, "weight", writer)
        changed.append(matrix)
    return changed


def _let_read(block: nn.Module, basis: Tensor, std: float) -> list[nn.Module]:
    """Train what a block reads of U."""
    for gain, matrix in reading_matrices(block):
        reader = _Reader(basis, gain, matrix.out_features, std)
        parametrize.register_parametrization(matrix, "weight", reader)
    return [matrix for _, matrix in reading_matrices(block)]
