"""The estimators that are run on planted organisms, as interventions.

Each method takes the (position, layer) that its own selection chooses on validation prompts, in the
scope in which it then acts. Subspaces that belong to no layer (per-kind differences in means,
gradient directions, the oracle) are removed from all that is written, where removing U is exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refusal.directions import Candidate, Direction, Means, random_subspace
from refusal.estimators import Directions
from refusal.gradient_directions import orthonormal_rows
from refusal.interventions import Intervention, build_intervention
from refusal.operators import Operator
from refusal.planted_measures import recovery, split
from refusal.recipes import SELECTED_LIKE, UNSTEERED, expand_interventions

ORACLE = "oracle"
# The mean difference where it is nearest to U.
NEAREST = "dim_nearest"
# U itself in place of directions found, to see what the filters of a method say of it.
TRUTH = "truth"
# Methods whose candidates are chosen by selections of their own.
SELECTED = ("dim", "inlp_faithful", "inlp_corrected")


def estimator_recipes(rank: int, k: int, draws: int) -> dict[str, dict[str, Any]]:
    """Recipes of all estimators that belong to a (position, layer), and of random controls.

    Args:
        rank: rank of U; with 1 and `k` one of the numbers of directions that are removed.
        draws: draws of the random controls.
    """
    sizes = sorted({1, rank, k})
    at_layer = {"scope": "source"}
    removed = {"operator": "project", "scope": "writes"}
    dim = {"direction": "dim"}
    inlp = {"direction": "inlp_corrected", "above_rank": "full"}
    drawn = {"direction": "random", "draw": list(range(draws))}
    centred = {**at_layer, "operator": "project", "origin": ["harmless", "midpoint"]}
    found = {
        "none": {"operator": "none"},
        "dim_removal": {**dim, **removed},
        "dim_removal_source": {**dim, **at_layer, "operator": "project"},
        "dim_flipping": {**dim, **at_layer, "operator": "project", "alpha": 2},
        "dim_affine": {**dim, **centred},
        "inlp_affine": {**inlp, **centred, "alpha": [1, 2], "k": "full"},
        "alterrep": {**inlp, **at_layer, "operator": "alterrep", "k": [*sizes, "full"]},
        "leace": {**at_layer, "direction": "leace", "operator": "erase"},
        "random_removal": {**drawn, **removed, "k": sizes},
        "random_addition": {**drawn, **at_layer, "operator": "add", "strength": [-1, 1]},
    }
    found["alterrep"] |= {"side": "harmless"}
    found["random_addition"] |= {"selection": "all"}
    for variant in ("faithful", "corrected"):
        name = f"inlp_{variant}"
        several = {**inlp, "direction": name, "k": [*sizes, "full"]}
        found[f"{name}_removal"] = {**several, **removed}
        found[f"{name}_flipping"] = {**several, **at_layer, "operator": "project", "alpha": 2}
    return expand_interventions(found, draws)


@dataclass(frozen=True)
class Found:
    """What was estimated of one organism.

    Attributes:
        directions: by method and candidate.
        means: class means.
        chosen: the candidate of every method in the selection scopes `source` and `all`.
    """

    directions: Mapping[str, Directions]
    means: Means
    chosen: Mapping[tuple[str, str], Candidate]

    def place(self, method: str, selection: str) -> Candidate:
        """The candidate of a method."""
        return self.chosen[SELECTED_LIKE.get(method, method), selection]

    def difference(self) -> tuple[Candidate, Direction]:
        """The difference in means as Arditi et al. select it, with its candidate."""
        at = self.place("dim", "all")
        return at, self.directions["dim"][at]


def candidate_interventions(
    found: Found, recipes: Mapping[str, Mapping[str, Any]], seed: int
) -> dict[str, Intervention]:
    """The interventions of the recipes, each at the candidate of its method."""
    return {name: _built(name, recipe, found, seed) for name, recipe in recipes.items()}


def _built(name: str, recipe: Mapping[str, Any], found: Found, seed: int) -> Intervention:
    if recipe["operator"] in UNSTEERED:
        return build_intervention(name, recipe)
    at = found.place(recipe["direction"], recipe["selection"])
    directions = found.directions.get(recipe["direction"])
    if directions is None:
        width = found.means.harmful.shape[-1]
        directions = {at: random_subspace(width, recipe["k"], [seed, recipe["draw"]])}
    return build_intervention(
        name,
        recipe,
        directions=directions,
        means=(found.means.harmful, found.means.harmless),
        candidate=at,
        dim_norm=found.directions["dim"][at].norm,
    )


# ------------------------------------------------------------------------------------- subspaces


def removal_of(name: str, basis: Tensor) -> Intervention:
    """Removes orthonormal rows [k, d] from all that is written; named `<name>_removal-k<k>`."""
    recipe = {"name": f"{name}_removal-k{len(basis)}", "direction": name, "operator": "project"}
    recipe |= {"scope": "writes", "k": len(basis), "rank": len(basis), "alpha": 1.0}
    return Intervention(Operator.project(basis), "writes", None, recipe)


def removals(subspaces: Mapping[str, Direction], sizes: Sequence[int]) -> dict[str, Intervention]:
    """Removal of the first k directions of every subspace, for those sizes and for all."""
    found = {}
    for name, direction in subspaces.items():
        for k in sorted({*(size for size in sizes if size < direction.rank), direction.rank}):
            intervention = removal_of(name, direction.basis[:k])
            found[intervention.recipe["name"]] = intervention
    return found


def kinds_span(vectors: Mapping[str, np.ndarray]) -> Direction:
    """Orthonormal basis of the span of per-kind differences in means, in the order given.

    A row that adds less than a thousandth of its length to the earlier ones is left out.
    """
    basis = np.empty((0, len(next(iter(vectors.values())))))
    for vector in vectors.values():
        rest = vector - (vector @ basis.T) @ basis
        rest -= (rest @ basis.T) @ basis  # once leaves a residue of the size of the cancellation
        if np.linalg.norm(rest) > 1e-3 * np.linalg.norm(vector):
            basis = np.vstack([basis, rest / np.linalg.norm(rest)])
    return Direction(basis=torch.from_numpy(basis).float())


def leading_first(basis: Tensor, vector: Tensor) -> Tensor:
    """The same subspace [k, d] with the part of `vector` [d] in it as first row."""
    coordinates = basis.double() @ vector.double()
    if float(coordinates.norm()) == 0:
        return basis
    # The axis that the vector is most like gives way, so that the rows stay independent.
    axes = torch.eye(len(basis), dtype=torch.float64)
    others = axes[torch.arange(len(basis)) != int(coordinates.abs().argmax())]
    turned = orthonormal_rows(torch.cat([coordinates[None], others]))
    return (turned @ basis.double()).float()


def truth(basis: Tensor, differences: Directions) -> Directions:
    """U as the direction of every candidate, its first row the part of the mean difference in it.

    Candidates where the classes do not differ stay empty.
    """
    return {
        at: Direction(basis=leading_first(basis, dim.basis[0]), norm=dim.norm) if dim.rank else dim
        for at, dim in differences.items()
    }


def nearest_difference(differences: Directions, basis: Tensor) -> Direction:
    """The mean difference of the candidate at which most of it lies in U [k, d].

    What a selection that knew U would take: tells what is missed by the estimator from what is
    missed by the choice of the place.
    """
    return max(
        (dim for dim in differences.values() if dim.rank),
        key=lambda dim: recovery(basis, dim.basis)[0],
    )


def parts_of_difference(found: Found, basis: Tensor) -> dict[str, Intervention]:
    """Removing, adding and subtracting the mean difference, its part in U and the rest of it.

    All three are added and subtracted at the same length, that of the mean difference, at its own
    layer. A part without length is left out.
    """
    at, dim = found.difference()
    inside, outside = (torch.from_numpy(x).float() for x in split(dim.basis[0], basis))
    parts = {"whole": dim.basis[0], "inside": inside, "outside": outside}
    interventions = {}
    for part, vector in parts.items():
        if float(vector.norm()) < 1e-4:
            continue
        name, unit = f"dim_{part}", vector / vector.norm()
        interventions[f"{name}_removal-k1"] = removal_of(name, unit[None])
        for strength in (-1, 1):
            recipe = {"name": f"{name}_addition-strength{strength}", "direction": name}
            recipe |= {"operator": "add", "scope": "source", "strength": float(strength)}
            recipe |= {"position": at[0], "layer": at[1], "k": 1, "rank": 1}
            operator = Operator.add(strength * dim.norm * unit)
            interventions[recipe["name"]] = Intervention(operator, "source", at[1], recipe)
    return interventions
