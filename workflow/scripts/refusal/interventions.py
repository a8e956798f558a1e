"""Interventions: an operator, where it acts, and the recipe that says how it was made.

with steering(model, load_intervention("results/organisms/interventions/m/leace.json")):
    model.generate(...)
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from refusal.operators import Operator
from refusal.recipes import (
    SCOPES,
    SIDES,
    TOKENS,
    UNSTEERED,
    Scope,
    Tokens,
    not_in_scope_all,
    options,
)
from refusal.weights import edited_weights

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
    "length",
    "origin",
    "side",
    "tokens",
    "draw",
    "position",
    "layer",
    "fallback",
)


# --- where it acts ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Intervention:
    """An operator, where it acts, and how it was made.

    Attributes:
        operator: what is done to an activation.
        scope: where; see `steering`.
        layer: the source layer (0 is the first block), None where there is none.
        recipe: name, family, direction, operator, scope, selection, k, rank, alpha, strength,
            length, origin, side, tokens, draw, position, layer, fallback; what is saved as json.
        tokens: which tokens are steered: all, those of the prompt, its last one, or the generated.
        window: (first block, number of blocks) outside which scopes `writes` and `all` leave the
            model alone; None is the whole model.

    Raises:
        InputError: unknown scope or tokens, scope 'source' without a layer, or an operator that
            scope 'all' would apply several times to the same activation to another effect.
    """

    operator: Operator
    scope: Scope
    layer: int | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    tokens: Tokens = "all"
    window: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        name = f"interventions.{self.recipe.get('name', '(unnamed)')}"
        for part, value, known in (
            ("scope", self.scope, SCOPES),
            ("tokens", self.tokens, TOKENS),
        ):
            if value not in known:
                raise InputError(
                    f"{name}.{part}: unknown value '{value}'. Remedy: use {options(known)}."
                )
        if self.scope == "all" and not self.operator.is_idempotent:
            raise InputError(not_in_scope_all(name))
        if self.scope == "source" and self.layer is None and not self.operator.is_identity:
            raise InputError(f"{name}.layer: scope 'source' needs one. Remedy: give the layer.")


@contextmanager
def steering(model: PreTrainedModel, intervention: Intervention) -> Iterator[None]:
    """Apply an intervention to every forward pass within the `with` block.

    Scopes:
        source: the input of block `layer`.
        writes: everything that is added to the residual stream, where it enters it: the embedding
            (the input of block 0) and the attention and MLP output of every block, after any
            post-norm. Equal to editing the weights of models without post-norms.
        all: the input of every block and all writes (Arditi et al. 2024: x(l) and x~(l) of all
            layers), for alpha = 1 only.
        weights: the matrices that write, edited in memory; see `refusal.weights`.

    A pass without cache, or with an empty one, is the prompt's; passes over a filled cache are of
    generated tokens. The last prompt token is the last column (padding on the left). What is
    changed is changed back on leaving, also after an error.

    Raises:
        InputError: the intervention was made for a model of another width or depth, the scope
            needs the writes of an architecture with unknown blocks, or the weights cannot be
            edited to that effect; or the intervention is a fine-tuning, which no hook can apply.
    """
    if intervention.recipe.get("operator") == "fine_tune":
        raise InputError(
            f"interventions.{intervention.recipe.get('name', '(unnamed)')}: made by training, not "
            "by hooks. Remedy: use refusal.fine_tuning.fine_tune on the model instead."
        )
    if intervention.scope == "weights":
        _check_fit(model, intervention)
        with edited_weights(model, intervention.operator):
            yield
        return
    inputs, outputs = _sites(model, intervention)
    handles: list = []
    with removing(handles):
        operate = intervention.operator
        if intervention.tokens != "all":
            operate = _AtTokens(operate, intervention.tokens)
            handles.append(model.register_forward_pre_hook(operate.see, with_kwargs=True))
        with operating(inputs, outputs, operate):
            yield


@contextmanager
def operating(
    inputs: Iterable[nn.Module],
    outputs: Iterable[nn.Module],
    operate: Callable[[Tensor], Tensor],
) -> Iterator[None]:
    """Apply a function of activations [..., d] to the inputs of blocks and outputs of modules.

    Gradients flow through it. `steering` chooses the modules by a scope.
    """
    pre_hook, hook = _hooks(operate)
    handles: list = []
    with removing(handles):
        for block in inputs:
            handles.append(block.register_forward_pre_hook(pre_hook, with_kwargs=True))
        for module in outputs:
            handles.append(module.register_forward_hook(hook))
        yield


class _AtTokens:
    """An operator that acts on some tokens only."""

    def __init__(self, operator: Operator, tokens: Tokens) -> None:
        self.operator, self.tokens = operator, tokens
        self.generating = False

    def see(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Forward pre-hook of the model: is this pass over generated tokens?"""
        cache = kwargs.get("past_key_values")
        self.generating = cache is not None and cache.get_seq_length() > 0

    def __call__(self, h: Tensor) -> Tensor:
        """Transform activations [..., tokens, d] where they are to be steered."""
        if (self.tokens == "generated") != self.generating:
            return h
        if self.tokens == "last":
            return torch.cat([h[..., :-1, :], self.operator(h[..., -1:, :])], dim=-2)
        return self.operator(h)


def _check_fit(model: PreTrainedModel, intervention: Intervention) -> None:
    """Raises InputError if the intervention was made for a model of another width or depth."""
    n_layers, width = len(decoder_layers(model)), residual_width(model)
    name = f"interventions.{intervention.recipe.get('name', '(unnamed)')}"
    if intervention.operator.width not in (0, width):
        raise InputError(
            f"{name}: made for width {intervention.operator.width}, the model has {width}. "
            "Remedy: use an intervention made from this model."
        )
    layer = intervention.layer
    if layer is not None and not 0 <= layer < n_layers:
        raise InputError(
            f"{name}.layer: {layer}, but the model has layers 0 to {n_layers - 1}. "
            "Remedy: use an intervention made from this model."
        )


def _sites(
    model: PreTrainedModel, intervention: Intervention
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Blocks whose input, and modules whose output, the intervention changes."""
    _check_fit(model, intervention)
    layers, layer = decoder_layers(model), intervention.layer
    if intervention.scope == "source":
        return ([] if layer is None else [layers[layer]]), []
    start, length = intervention.window or (0, len(layers))
    inside = slice(start, start + length)
    writes = list(itertools.chain.from_iterable(write_modules(model)[inside]))
    # The embedding is written before the first block: it belongs to a window that starts there.
    inputs = layers[inside] if intervention.scope == "all" else layers[: 1 if start == 0 else 0]
    return list(inputs), writes


def _hooks(operate: Callable[[Tensor], Tensor]) -> tuple[Callable, Callable]:
    """A hook that changes a block's input and one that changes a module's output."""

    def change_input(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        changed = operate(block_input(args, kwargs))
        if args:
            return (changed, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": changed}

    def change_output(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        changed = operate(first_tensor(output))
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
        candidate: (position, layer); may be None for operators none and fine_tune.
        dim_norm: length of the mean difference at the candidate; additions are strength times
            this long, whatever the direction, unless the recipe's `length` says otherwise.
        fallback: whether the candidate was taken although none passed the selection.

    Raises:
        InputError: no direction at the candidate, or k above its rank where `above_rank` is error.
    """
    built = {part: recipe.get(part) for part in _RECIPE_KEYS} | {"name": name, "rank": 0}
    built |= {"position": None, "layer": None, "fallback": bool(fallback)}
    if recipe["operator"] in UNSTEERED:
        return Intervention(Operator.identity(), recipe["scope"], None, built)
    position, layer = candidate
    direction = (directions or {}).get(candidate)
    basis = _first_directions(name, recipe, direction, candidate)
    built |= {"rank": len(basis), "position": int(position), "layer": int(layer)}
    harmful, harmless = (torch.as_tensor(mean[position][layer]).double() for mean in means)
    operator = _operator(recipe, direction, basis, harmful, harmless, dim_norm)
    return Intervention(operator, recipe["scope"], int(layer), built, recipe.get("tokens") or "all")


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
            midpoint = (harmful + harmless) / 2
            origins = {"harmless": harmless, "midpoint": midpoint, "harmful": harmful}
            return Operator.project(basis, recipe["alpha"], origins.get(recipe["origin"]))
        case "add":
            (unit,) = _oriented(recipe, basis, harmful - harmless)
            # A harmless prompt projects near zero, so that adding the harmful average is nearly
            # setting it (Arditi in the discussion of the LessWrong post).
            length = harmful @ unit if recipe.get("length") == "harmful" else dim_norm
            return Operator.add(recipe["strength"] * length * unit)
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
        tokens = recipe.get("tokens") or "all"
        return Intervention(operator, recipe["scope"], recipe["layer"], recipe, tokens)
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
