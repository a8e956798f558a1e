"""Tables of what estimators find of a planted subspace U, against numbers of directions and layers.

`basis` is U, orthonormal rows [k, d], as everywhere here.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from refusal.directions import Direction
from refusal.planted_estimators import SELECTED, Found
from refusal.planted_measures import chance_recovery, difference_split, recovery
from refusal.statistics import Intervals

PLANTED, HELPFUL_ONLY = "planted", "helpful_only"


def recovery_table(
    basis: Tensor,
    found: Found,
    subspaces: Mapping[str, Direction],
    splits: pd.DataFrame,
    limit: int,
    intervals: Intervals,
) -> pd.DataFrame:
    """Recovery of U against the number of directions, at the candidates of both scopes.

    The difference in means, one direction r, has an interval over prompts: its mean squared cosine
    is the share of |r|^2 inside U, over k, whose scatter `splits` holds.

    Args:
        subspaces: those that belong to no candidate, by name.
        splits: what `split_table` returns.
        limit: directions, at most.

    Returns:
        method, scope, position, layer, directions, value, chance with its bounds, low, high.
    """
    rank, width = basis.shape
    chance = chance_recovery(width, rank, limit, intervals)
    rows = []
    for about, direction in _entries(found, subspaces):
        for j, value in enumerate(recovery(basis, direction.basis[:limit])):
            expected = {f"chance_{name}": bound for name, bound in chance[j]._asdict().items()}
            rows.append(about | {"directions": j + 1, "value": value} | expected)
    table = pd.DataFrame(rows).rename(columns={"chance_value": "chance"})
    table = table.astype({"position": "Int64", "layer": "Int64"})
    shares = splits.query("model == @PLANTED and metric == 'share'")
    shares = shares[["position", "layer"]].assign(method="dim", **shares[["low", "high"]] / rank)
    return table.merge(shares, "left", ["method", "position", "layer"])


def _entries(found: Found, subspaces: Mapping[str, Direction]):
    """Yield method, scope, position and layer, with the direction."""
    for name, direction in subspaces.items():
        yield {"method": name, "scope": None, "position": None, "layer": None}, direction
    for method in (*SELECTED, "leace"):
        for scope in ("source", "all"):
            position, layer = at = found.place(method, scope)
            about = {"method": method, "scope": scope, "position": position, "layer": layer}
            yield about, found.directions[method][at]


def split_table(
    basis: Tensor, residuals: Mapping[str, Tensor], rows: tuple, intervals: Intervals
) -> pd.DataFrame:
    """The mean difference inside and outside U at every candidate of every model.

    Args:
        residuals: [n, positions, layers, d] by model, `PLANTED` and `HELPFUL_ONLY`.
        rows: those of harmful and of harmless prompts.

    Returns:
        model, position, layer, metric (length, inside, outside, share), value, low, high, chance
        (of the share).
    """
    found, chance = [], len(basis) / basis.shape[1]
    for model, residual in residuals.items():
        for layer in range(residual.shape[2]):
            for position in range(-residual.shape[1], 0):
                classes = [residual[chosen, position, layer] for chosen in rows]
                about = {"model": model, "position": position, "layer": layer}
                split = difference_split(*classes, basis, intervals)
                for metric, value in split.items():
                    expected = chance if metric == "share" else np.nan
                    found.append(about | {"metric": metric, **value._asdict(), "chance": expected})
    return pd.DataFrame(found)
