"""Features of a sparse autoencoder that separate refused from answered requests, kind by kind.

Joad et al. 2026 (arXiv 2602.02132, section 5, Tables 3 to 5): a feature's separation is its firing
rate on the noncompliant prompts of a kind minus that on contrasts; lists of the most separating
features of all kinds share a core. Here the overlap stands beside that of lists made from shuffled
labels, which share whatever fires often.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from refusal.kind_directions import Group, kinds_of, negative_class
from refusal.statistics import Estimate

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
SHUFFLES = 200


def separation(fires: Mapping[Group, BoolArray]) -> pd.DataFrame:
    """Separation of every feature by kind: rows kinds, columns features.

    Args:
        fires: whether each feature fires on each prompt, bool [n, features] by (kind, side).
    """
    rows = {
        kind: fires[kind, "noncompliant"].mean(0)
        - fires[negative_class(kind, False, fires)].mean(0)
        for kind in kinds_of(fires)
    }
    return pd.DataFrame(rows).T


def top_features(separations: FloatArray, top: int) -> NDArray[np.int64]:
    """Indices of the `top` most separating features of each row, most first; ties by index."""
    return np.argsort(-separations, axis=-1, kind="stable")[..., :top]


def features_frame(separations: pd.DataFrame, top: int) -> pd.DataFrame:
    """The lists: kind, rank, feature, separation."""
    values = separations.to_numpy(np.float64)
    chosen = top_features(values, top)
    rows = [
        (kind, rank, int(feature), values[row, feature])
        for row, kind in enumerate(separations.index)
        for rank, feature in enumerate(chosen[row], start=1)
    ]
    return pd.DataFrame(rows, columns=["kind", "rank", "feature", "separation"])


def shared_by(lists: NDArray[np.int64], features: int) -> FloatArray:
    """How many features are in exactly m of the K lists, m = 0..K: [K + 1]."""
    member = np.zeros((len(lists), features))
    np.put_along_axis(member, lists, 1.0, axis=1)
    return np.bincount(member.sum(0).astype(int), minlength=len(lists) + 1).astype(np.float64)


def sharing_frame(fires: Mapping[Group, BoolArray], top: int, seed: int) -> pd.DataFrame:
    """How many features are in at least m lists, against lists from shuffled labels.

    A shuffle permutes, within each kind, who is noncompliant and who contrast.

    Returns:
        lists (m = 1..K), value, null (mean over shuffles), low, high (95 % of shuffles), p_value.
    """
    kinds, separations = kinds_of(fires), separation(fires)
    features = separations.shape[1]
    found = _at_least(top_features(separations.to_numpy(np.float64), top), features)
    generator = np.random.default_rng(seed)
    null = np.stack(
        [
            _at_least(_shuffled_lists(fires, kinds, top, generator), features)
            for _ in range(SHUFFLES)
        ]
    )
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    p_value = (1 + (null >= found).sum(0)) / (1 + SHUFFLES)
    return pd.DataFrame(
        {
            "lists": np.arange(1, len(kinds) + 1),
            "value": found,
            "null": null.mean(0),
            "low": low,
            "high": high,
            "p_value": p_value,
        }
    )


def _at_least(lists: NDArray[np.int64], features: int) -> FloatArray:
    """Features in at least m lists, m = 1..K."""
    exactly = shared_by(lists, features)
    return exactly[::-1].cumsum()[::-1][1:]


def _shuffled_lists(fires, kinds, top: int, generator) -> NDArray[np.int64]:
    rows = []
    for kind in kinds:
        positive = fires[kind, "noncompliant"]
        both = np.concatenate([positive, fires[negative_class(kind, False, fires)]])
        order = generator.permutation(len(both))
        first, second = both[order[: len(positive)]], both[order[len(positive) :]]
        rows.append(first.mean(0) - second.mean(0))
    return top_features(np.stack(rows), top)


def overlap_frame(separations: pd.DataFrame, top: int) -> pd.DataFrame:
    """Jaccard index of the lists of every pair of kinds (a, b, value)."""
    chosen = top_features(separations.to_numpy(np.float64), top)
    lists = dict(zip(separations.index, map(set, chosen.tolist()), strict=True))
    rows = [
        (a, b, len(lists[a] & lists[b]) / len(lists[a] | lists[b]))
        for a, b in combinations(lists, 2)
    ]
    return pd.DataFrame(rows, columns=["a", "b", "value"])


def feature_directions(
    separations: pd.DataFrame, decoder: FloatArray, top: int
) -> dict[str, FloatArray]:
    """Mean decoder row of the most separating features of every kind, unit norm [d]."""
    chosen = top_features(separations.to_numpy(np.float64), top)
    means = {
        kind: decoder[rows].mean(0) for kind, rows in zip(separations.index, chosen, strict=True)
    }
    return {kind: mean / np.linalg.norm(mean) for kind, mean in means.items()}


def sharing_scalars(
    sharing: pd.DataFrame, overlap: pd.DataFrame, top: int
) -> dict[str, tuple[Estimate, int]]:
    """The shared core in numbers (claim C5).

    feature_core_share: features in all lists, as a share of a list; feature_core_null: the same of
        shuffled labels; feature_core_gain: their difference, its interval from the shuffles;
        feature_jaccard: mean Jaccard index of two lists.
    """
    last = sharing.iloc[-1]
    core, null = last.value / top, last.null / top
    gain = Estimate(core - null, core - last.high / top, core - last.low / top)
    plain = {"feature_core_share": core, "feature_core_null": null}
    plain["feature_jaccard"] = overlap.value.mean()
    found = {name: (Estimate(float(value), np.nan, np.nan), top) for name, value in plain.items()}
    return found | {"feature_core_gain": (gain, SHUFFLES)}
