"""Interventions: one low-rank operator, where it acts, and the recipe that says how it was made.

Every linear intervention of the literature is one operator on the residual stream,

    h <- h - alpha ((h - origin) R^T) W + shift,

with R, W of k rows: directional ablation (k = 1, alpha = 1) and activation addition (k = 0 and a
shift) of Arditi et al. 2024, section 2.4; nullspace projection (alpha = 1) and counterfactual
flipping (alpha = 2) of Rocchetti & Ferrara 2026, section 3.3; affine ablation (an origin) of
Marshall et al. 2024; LEACE (W != R) of Belrose et al. 2023. AlterRep (Ravfogel et al. 2021) also
chooses the sign of each coordinate.

    with steering(model, load_intervention("results/organisms/interventions/m/leace.json")):
        model.generate(...)
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from refusal.errors import InputError
from refusal.models import (
    block_input,
    decoder_layers,
    first_tensor,
    removing,
    residual_width,
    write_modules,
)
from refusal.recipes import SCOPES, SIDES, Scope, not_in_scope_all, options

if TYPE_CHECKING:
    from refusal.directions import Candidate, Direction

# The keys of the saved json, in this order.
_RECIPE_KEYS = (
    "name",
    "family",
    "direction",
    "operator",
    "scope",
    "selection",
    "k",
    "rank",
    "alpha",
    "strength",
    "origin",
    "side",
    "draw",
    "position",
    "layer",
    "fallback",
)

# float32 bases of a few dozen directions are orthonormal to 1e-6; anything above is another matrix.
_ORTHONORMAL_TOLERANCE = 1e-4


# --- the operator -----------------------------------------------------------------------------


class _Constants(NamedTuple):
    """An operator's tensors as the two products of a hook need them, on one device."""

    read: Tensor
    offset: Tensor | None
    write: Tensor
    shift: Tensor | None


@dataclass(frozen=True, eq=False)
class Operator:
    """h <- h - alpha ((h - origin) read^T) write + shift, without ever forming a d x d matrix.

    Computed in float32 (float64 for float64 activations) and cast back to the type of h. All
    tensors may carry one leading batch dimension b: row i of a batch then has its own operator.

    Attributes:
        read: [k, d] or [b, k, d], directions along which coordinates are read.
        write: same shape, directions along which they are written; orthogonal projections have
            write = read with orthonormal rows.
        alpha: 0 changes nothing, 1 removes the coordinates, 2 reflects them.
        origin: [d] or [b, d], the point with coordinates zero; None is the origin of the space.
        shift: [d] or [b, d], added at the end.
        side: 0, or for AlterRep -1 or +1: coordinates c become side alpha |c| instead.

    Raises:
        ValueError: shapes that do not fit, NaN or infinite entries, side not in -1, 0, +1.
    """

    read: Tensor
    write: Tensor
    alpha: float = 1.0
    origin: Tensor | None = None
    shift: Tensor | None = None
    side: int = 0
    _cache: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("read", "write", "origin", "shift"):
            value = getattr(self, name)
            if value is not None:
                value = torch.as_tensor(value).detach().to("cpu", torch.float32)
                object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if self.read.ndim not in (2, 3) or self.read.shape != self.write.shape:
            shapes = f"{tuple(self.read.shape)} and {tuple(self.write.shape)}"
            raise ValueError(f"read and write must be [k, d] or [b, k, d] alike, not {shapes}")
        vector = (*self.read.shape[:-2], self.width)
        for name in ("read", "write", "origin", "shift"):
            value = getattr(self, name)
            if value is None:
                continue
            if name in ("origin", "shift") and value.shape != vector:
                raise ValueError(f"{name} must have shape {vector}, not {tuple(value.shape)}")
            if not value.isfinite().all():
                raise ValueError(f"{name} has NaN or infinite entries")
        if not math.isfinite(self.alpha) or self.side not in (-1, 0, 1):
            raise ValueError(f"alpha must be finite and side -1, 0 or 1: {self.alpha}, {self.side}")

    @classmethod
    def identity(cls) -> "Operator":
        """The operator that returns h itself, for activations of any width."""
        return cls(torch.empty(0, 0), torch.empty(0, 0))

    @classmethod
    def project(cls, basis: Tensor, alpha: float = 1.0, origin: Tensor | None = None) -> "Operator":
        """Remove (alpha 1), reflect (2) or scale the coordinates along orthonormal rows [k, d].

        alpha = 1 is the nullspace projection, alpha = 2 the counterfactual flipping of
        Rocchetti & Ferrara 2026, section 3.3: I - alpha P_R, for row vectors h.
        """
        _require_orthonormal(basis)
        return cls(basis, basis, alpha, origin)

    @classmethod
    def add(cls, vector: Tensor) -> "Operator":
        """Add `vector`, [d] or [b, d] (activation addition, Arditi et al. 2024, section 2.4)."""
        vector = torch.as_tensor(vector)
        nothing = vector.new_empty(*vector.shape[:-1], 0, vector.shape[-1])
        return cls(nothing, nothing, shift=vector)

    @classmethod
    def alterrep(cls, basis: Tensor, side: int, alpha: float = 1.0) -> "Operator":
        """h_N + side alpha sum_i |w_i . h| w_i over orthonormal rows w_i (Ravfogel et al. 2021).

        Puts every input on one side of every classifier, whichever side it was on; alpha = 0 is
        the nullspace projection.
        """
        if side not in (-1, 1):
            raise ValueError(f"side must be -1 or +1, not {side}")
        _require_orthonormal(basis)
        return cls(basis, basis, alpha, side=side)

    @classmethod
    def erase(cls, direction: "Direction") -> "Operator":
        """Least-squares concept erasure, an oblique affine projection (Belrose et al. 2023)."""
        if direction.write is None or direction.origin is None:
            raise ValueError("erase needs a direction with write and origin (method leace)")
        return cls(direction.basis, direction.write, origin=direction.origin)

    @classmethod
    def stack(cls, operators: Sequence["Operator"]) -> "Operator":
        """One operator per row of a batch, in this order; ranks and strengths may differ.

        Raises:
            ValueError: AlterRep operators, whose strength cannot be folded into `write`, or
                operators that have a batch dimension already.
        """
        if any(one.side or one.read.ndim == 3 for one in operators):
            raise ValueError("only linear operators without a batch dimension can be stacked")
        width, rank = (max(getattr(one, name) for one in operators) for name in ("width", "rank"))
        read, write = torch.zeros(2, len(operators), rank, width)
        origin, shift = torch.zeros(2, len(operators), width)
        for row, one in enumerate(operators):
            # Rows of zeros read and write nothing, so that smaller ranks and identities fit in.
            read[row, : one.rank, : one.width] = one.read
            write[row, : one.rank, : one.width] = one.alpha * one.write
            for target, value in ((origin, one.origin), (shift, one.shift)):
                if value is not None:
                    target[row] = value
        return cls(
            read,
            write,
            origin=origin if any(one.origin is not None for one in operators) else None,
            shift=shift if any(one.shift is not None for one in operators) else None,
        )

    @property
    def width(self) -> int:
        """Width d of the activations; 0 for the identity, which takes any."""
        return self.read.shape[-1]

    @property
    def rank(self) -> int:
        """Number of directions k."""
        return self.read.shape[-2]

    @property
    def is_identity(self) -> bool:
        """Whether every activation is returned as it is, to the last bit."""
        return not self.side and self.shift is None and (self.alpha == 0 or self.rank == 0)

    @property
    def is_idempotent(self) -> bool:
        """Whether acting twice is acting once, as scope 'all' needs: only with alpha = 1."""
        return self.is_identity or (self.shift is None and self.alpha == 1)

    def _constants(self, device: torch.device, dtype: torch.dtype) -> _Constants:
        """The folded tensors on `device`, made once per device and type."""
        if (device, dtype) not in self._cache:
            offset = None
            if self.origin is not None:
                origin = self.origin.double().unsqueeze(-2)
                offset = -(origin @ self.read.double().mT)
            factor = -1.0 if self.side else -self.alpha
            tensors = (
                self.read.mT,
                offset,
                factor * self.write.double(),
                None if self.shift is None else self.shift.unsqueeze(-2),
            )
            self._cache[device, dtype] = _Constants(
                *(None if t is None else t.to(dtype).to(device) for t in tensors)
            )
        return self._cache[device, dtype]

    def __call__(self, h: Tensor) -> Tensor:
        """Transform activations [..., d], or [b, ..., d] for a batch of operators.

        Never changes `h` in place; returns `h` itself if nothing changes.
        """
        if self.is_identity:
            return h
        constants = self._constants(h.device, torch.promote_types(h.dtype, torch.float32))
        batch = self.read.shape[:-2]
        rows = h.to(constants.write.dtype).reshape(*batch, -1, h.shape[-1])
        multiply_add = torch.baddbmm if batch else torch.addmm
        if self.rank:
            if constants.offset is None:
                coordinates = rows @ constants.read
            else:
                coordinates = multiply_add(constants.offset, rows, constants.read)
            if self.side:
                coordinates = coordinates - self.side * self.alpha * coordinates.abs()
            rows = multiply_add(rows, coordinates, constants.write)
        if constants.shift is not None:
            rows = rows + constants.shift
        return rows.view(h.shape).to(h.dtype)


def _require_orthonormal(basis: Tensor) -> None:
    """Raises ValueError unless the rows of `basis` [..., k, d] are orthonormal (or zero)."""
    rows = torch.as_tensor(basis).double()
    gram = rows @ rows.mT
    # Rows of zeros are allowed: they pad a batch of operators of different rank.
    expected = torch.diag_embed((gram.diagonal(dim1=-2, dim2=-1) != 0).to(gram.dtype))
    if not torch.allclose(gram, expected, rtol=0, atol=_ORTHONORMAL_TOLERANCE):
        raise ValueError("the rows of the basis are not orthonormal")


# --- where it acts ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Intervention:
    """An operator, where it acts, and how it was made.

    Attributes:
        operator: what is done to an activation.
        scope: where; see `steering`.
        layer: the source layer (0 is the first block), None where there is none.
        recipe: name, family, direction, operator, scope, selection, k, rank, alpha, strength,
            origin, side, draw, position, layer, fallback; what is saved as json.

    Raises:
        InputError: unknown scope, scope 'source' without a layer, or an operator that scope 'all'
            would apply several times to the same activation to another effect.
    """

    operator: Operator
    scope: Scope
    layer: int | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = f"interventions.{self.recipe.get('name', '(unnamed)')}"
        if self.scope not in SCOPES:
            raise InputError(
                f"{name}.scope: unknown value '{self.scope}'. Remedy: use {options(SCOPES)}."
            )
        if self.scope == "all" and not self.operator.is_idempotent:
            raise InputError(not_in_scope_all(name))
        if self.scope == "source" and self.layer is None and not self.operator.is_identity:
            raise InputError(f"{name}.layer: scope 'source' needs one. Remedy: give the layer.")


@contextmanager
def steering(model: PreTrainedModel, intervention: Intervention) -> Iterator[None]:
    """Apply an intervention to every forward pass within the `with` block, at all tokens.

    Scopes:
        source: the input of block `layer`.
        writes: everything that is added to the residual stream, where it enters it: the embedding
            (the input of block 0) and the attention and MLP output of every block, after any
            post-norm. Equal to editing the weights.
        all: the input of every block and all writes (Arditi et al. 2024: x(l) and x~(l) of all
            layers), for alpha = 1 only.

    The hooks are removed on leaving, also after an error.

    Raises:
        InputError: the intervention was made for a model of another width or depth, or the scope
            needs the writes of an architecture with unknown blocks.
    """
    inputs, outputs = _sites(model, intervention)
    handles: list = []
    with removing(handles):
        pre_hook, hook = _hooks(intervention.operator)
        for block in inputs:
            handles.append(block.register_forward_pre_hook(pre_hook, with_kwargs=True))
        for module in outputs:
            handles.append(module.register_forward_hook(hook))
        yield


def _sites(
    model: PreTrainedModel, intervention: Intervention
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Blocks whose input, and modules whose output, the intervention changes."""
    layers, layer = decoder_layers(model), intervention.layer
    width = residual_width(model)
    name = f"interventions.{intervention.recipe.get('name', '(unnamed)')}"
    if intervention.operator.width not in (0, width):
        raise InputError(
            f"{name}: made for width {intervention.operator.width}, the model has {width}. "
            "Remedy: use an intervention made from this model."
        )
    if layer is not None and not 0 <= layer < len(layers):
        raise InputError(
            f"{name}.layer: {layer}, but the model has layers 0 to {len(layers) - 1}. "
            "Remedy: use an intervention made from this model."
        )
    if intervention.scope == "source":
        return ([] if layer is None else [layers[layer]]), []
    writes = list(itertools.chain.from_iterable(write_modules(model)))
    return (list(layers) if intervention.scope == "all" else [layers[0]]), writes


def _hooks(operator: Operator) -> tuple[Callable, Callable]:
    """A hook that changes a block's input and one that changes a module's output."""

    def change_input(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        changed = operator(block_input(args, kwargs))
        if args:
            return (changed, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": changed}

    def change_output(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        changed = operator(first_tensor(output))
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    return change_input, change_output


# --- from a recipe to an intervention ---------------------------------------------------------


def build_intervention(
    name: str,
    recipe: Mapping[str, Any],
    *,
    directions: "Mapping[Candidate, Direction] | None" = None,
    means: tuple[np.ndarray, np.ndarray] | None = None,
    candidate: "Candidate | None" = None,
    dim_norm: float = math.nan,
    fallback: bool = False,
) -> Intervention:
    """The intervention of a recipe, with the directions of a selected (position, layer).

    Args:
        name: the intervention's name.
        recipe: one value of `expand_interventions`.
        directions: directions of the recipe's method by candidate. For random controls the caller
            gives the subspace whose rank "full" stands for.
        means: harmful and harmless mean activations, each [positions, layers, width], positions
            ordered -P..-1.
        candidate: (position, layer); may be None for operator none.
        dim_norm: length of the mean difference at the candidate; additions are strength times
            this long, whatever the direction.
        fallback: whether the candidate was taken although none passed the selection.

    Raises:
        InputError: no direction at the candidate, or k above its rank where `above_rank` is error.
    """
    built = {part: recipe.get(part) for part in _RECIPE_KEYS} | {"name": name, "rank": 0}
    built |= {"position": None, "layer": None, "fallback": bool(fallback)}
    if recipe["operator"] == "none":
        return Intervention(Operator.identity(), recipe["scope"], None, built)
    position, layer = candidate
    direction = (directions or {}).get(candidate)
    basis = _first_directions(name, recipe, direction, candidate)
    built |= {"rank": len(basis), "position": int(position), "layer": int(layer)}
    harmful, harmless = (torch.as_tensor(mean[position][layer]).double() for mean in means)
    operator = _operator(recipe, direction, basis, harmful, harmless, dim_norm)
    return Intervention(operator, recipe["scope"], int(layer), built)


def _first_directions(
    name: str, recipe: Mapping[str, Any], direction: "Direction | None", candidate: "Candidate"
) -> Tensor:
    """The first k rows of a direction's basis, float64 [k, d]."""
    position, layer = candidate
    rank = 0 if direction is None else len(direction.basis)
    where = f"direction {recipe['direction']} at position {position}, layer {layer}"
    if rank == 0:
        raise InputError(
            f"interventions.{name}: {where} is empty: the classes do not differ there. "
            "Remedy: select another candidate or remove the intervention."
        )
    k = rank if recipe["k"] == "full" else recipe["k"]
    if k > rank and recipe.get("above_rank", "error") == "error":
        raise InputError(
            f"interventions.{name}.k: {k}, but {where} has rank {rank}. Remedy: use k of at most "
            f"{rank}, or above_rank: full to take all {rank}."
        )
    return torch.as_tensor(direction.basis)[:k].double()


def _operator(
    recipe: Mapping[str, Any],
    direction: "Direction",
    basis: Tensor,
    harmful: Tensor,
    harmless: Tensor,
    dim_norm: float,
) -> Operator:
    """The operator of a recipe; class means [d] at the candidate, basis [k, d]."""
    match recipe["operator"]:
        case "project":
            origins = {"harmless": harmless, "midpoint": (harmful + harmless) / 2}
            return Operator.project(basis, recipe["alpha"], origins.get(recipe["origin"]))
        case "add":
            (unit,) = _oriented(recipe, basis, harmful - harmless)
            return Operator.add(recipe["strength"] * dim_norm * unit)
        case "alterrep":
            oriented = _oriented(recipe, basis, harmful - harmless)
            return Operator.alterrep(oriented, SIDES[recipe["side"]], recipe["alpha"])
        case "erase":
            return Operator.erase(direction)
    raise InputError(f"operator: unknown value '{recipe['operator']}'. Remedy: see config.yaml.")


def _oriented(recipe: Mapping[str, Any], basis: Tensor, difference: Tensor) -> Tensor:
    """The basis with signs by which harmful prompts score higher; random ones stay as drawn."""
    if recipe["direction"] == "random":
        return basis
    return torch.where((basis @ difference < 0).unsqueeze(-1), -basis, basis)


# --- files ------------------------------------------------------------------------------------


def save_intervention(path: str | Path, intervention: Intervention) -> None:
    """Write an intervention as json (the recipe) and npz (the tensors, beside it).

    Args:
        path: the json file, with suffix .json.
    """
    path = _json_path(path)
    operator = intervention.operator
    tensors = {
        part: getattr(operator, part).numpy()
        for part in ("read", "write", "origin", "shift")
        if getattr(operator, part) is not None
    }
    recipe = {part: intervention.recipe.get(part) for part in _RECIPE_KEYS}
    recipe |= {"scope": intervention.scope, "layer": intervention.layer}
    path.write_text(json.dumps(recipe, indent=2) + "\n")
    np.savez(path.with_suffix(".npz"), alpha=operator.alpha, side=operator.side, **tensors)


def load_intervention(path: str | Path) -> Intervention:
    """Read what `save_intervention` wrote, from the path of the json file.

    Raises:
        InputError: a missing or damaged file, or tensors with NaN or shapes that do not fit.
    """
    path = _json_path(path)
    for file in (path, path.with_suffix(".npz")):
        if not file.is_file():
            raise InputError(f"{file}: no such file. Remedy: keep json and npz side by side.")
    try:
        recipe = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            scalars = {"alpha": float(arrays["alpha"]), "side": int(arrays["side"])}
            names = [name for name in arrays.files if name not in scalars]
            operator = Operator(**{n: torch.from_numpy(arrays[n]) for n in names}, **scalars)
        return Intervention(operator, recipe["scope"], recipe["layer"], recipe)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}). Remedy: make it again."
        ) from error


def _json_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".json":
        raise InputError(f"{path}: not a json file. Remedy: give the path that ends in .json.")
    return path
