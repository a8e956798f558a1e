"""Where activations land, how directions relate, and what the projections onto DiM look like.

All of it is computed from saved activations and saved operators; no model is run. Positions are
negative token positions, as in a candidate (position, layer), so `residual[:, position, layer]` is
the residual stream that an intervention at that candidate reads. Tables follow `LANDING_COLUMNS`,
`COSINE_COLUMNS`, `ANGLE_COLUMNS` and `PROJECTION_COLUMNS`; `landing_summary` and
`projection_summary` turn the first and last into rows of the summary table, from which the claims
read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from refusal.directions import Candidate
from refusal.errors import InputError
from refusal.off_distribution import Distribution
from refusal.statistics import (
    BASELINE,
    Intervals,
    bootstrap_means,
    mean_ignoring_nan,
    summary_rows,
    wilson_interval,
)

FloatArray = NDArray[np.float64]
GEOMETRY_JUDGE = "geometry"

LANDING_COLUMNS = [
    "model",
    "intervention",
    "operator",
    "k",
    "alpha",
    "origin",
    "position",
    "layer",
    "id",
    "label",
    "position_along_dim",
    "nearest",
    "distance",
    "outside",
    "pc1",
    "pc2",
]
# Metric, column, and why there may be no value.
_LANDING_MEANS = (
    ("landing_t", "position_along_dim", "the class means coincide at this candidate"),
    ("off_distribution", "distance", "the activations do not vary at this candidate"),
)
COSINE_COLUMNS = [
    "model",
    "method",
    "position",
    "layer",
    "index",
    "cosine",
    "energy_share",
    "accuracy",
]
ANGLE_COLUMNS = [
    "model",
    "other_model",
    "method",
    "layer",
    "other_layer",
    "k",
    "angle_index",
    "angle_degrees",
    "chance_degrees",
]
PROJECTION_COLUMNS = ["model", "id", "label", "position", "layer", "projection"]


class SteeringLike(Protocol):
    """An intervention: its recipe and its operator, h -> h' on [n, d] float32 tensors."""

    recipe: Mapping[str, object]
    operator: Callable[[torch.Tensor], torch.Tensor]


class DirectionLike(Protocol):
    """An ordered orthonormal basis [k, d] and the accuracy of each step [k]."""

    basis: ArrayLike
    accuracies: ArrayLike


class MeansLike(Protocol):
    """Class means of the training data: [positions, layers, width] each."""

    harmful: ArrayLike
    harmless: ArrayLike


class ClassMeans(NamedTuple):
    """Means of the two classes at one candidate: float64 [width] each."""

    harmful: FloatArray
    harmless: FloatArray

    @classmethod
    def at(cls, means: MeansLike, candidate: Candidate) -> ClassMeans:
        """The two means at one candidate."""
        both = (np.asarray(mean)[candidate] for mean in (means.harmful, means.harmless))
        return cls(*(mean.astype(np.float64) for mean in both))


def position_along_dim(h: ArrayLike, means: ClassMeans) -> FloatArray:
    """Signed position t along difference in means: 0 at the harmless mean, 1 at the harmful mean.

    t = (z - z_harmless) / (z_harmful - z_harmless), z = h . r^ (methods: claim B4). h: [n, d];
    means: [d]. NaN where the means coincide (layer 0, where DiM is zero).
    """
    difference = means.harmful - means.harmless
    with np.errstate(invalid="ignore", divide="ignore"):
        return (
            (np.asarray(h, dtype=np.float64) - means.harmless)
            @ difference
            / (difference @ difference)
        )


def nearest_centroid(h: ArrayLike, means: ClassMeans) -> NDArray:
    """The class mean at the smaller full Euclidean distance, per row of h [n, d]; ties harmless."""
    h = np.asarray(h, dtype=np.float64)
    to_harmful = np.linalg.norm(h - means.harmful, axis=1)
    to_harmless = np.linalg.norm(h - means.harmless, axis=1)
    return np.where(to_harmful < to_harmless, "harmful", "harmless").astype(object)


class Plane(NamedTuple):
    """First two principal components: mean [d], axes [2, d]."""

    mean: FloatArray
    axes: FloatArray

    def coordinates(self, h: ArrayLike) -> FloatArray:
        """Coordinates of h [n, d] in the plane: [n, 2]."""
        return (np.asarray(h, dtype=np.float64) - self.mean) @ self.axes.T


def principal_plane(h: ArrayLike, is_harmful: NDArray[np.bool_]) -> Plane:
    """PCA plane of untransformed activations [n, d], with signs that do not depend on the solver.

    The first axis points from the harmless to the harmful rows, the second has its largest entry
    positive. Raises InputError for fewer than two rows or dimensions.
    """
    h = np.asarray(h, dtype=np.float64)
    if min(h.shape) < 2:
        raise InputError(
            f"geometry: a PCA plane needs two prompts and two dimensions, not {h.shape}. "
            "Enlarge prompts.sizes.test."
        )
    pca = PCA(n_components=2, svd_solver="full").fit(h)
    axes = pca.components_.copy()
    harmful, harmless = (
        h[rows].mean(0) if rows.any() else pca.mean_ for rows in (is_harmful, ~is_harmful)
    )
    signs = (axes[0] @ (harmful - harmless), axes[1, np.abs(axes[1]).argmax()])
    for axis, sign in enumerate(signs):
        axes[axis] *= -1 if sign < 0 else 1
    return Plane(pca.mean_, axes)


def landing(
    model: str,
    residual: torch.Tensor | NDArray,
    index: pd.DataFrame,
    means: MeansLike,
    interventions: Mapping[str, SteeringLike],
    labels: Sequence[str] = ("harmful", "harmless", "borderline"),
) -> pd.DataFrame:
    """Where every intervention with scope `source` puts the test activations of its candidate.

    residual: [n, positions, layers, width]; index: one row per prompt, in that order, with id,
    label and split; means: of the training data, [positions, layers, width] per class. The PCA
    plane of a candidate is fitted once, on the untransformed harmful and harmless test activations,
    and shared by all interventions there. The intervention "none" gives its rows once for every
    candidate that occurs, so compare it with others of the same (position, layer) only.
    """
    rows = np.flatnonzero((index["split"] == "test") & index["label"].isin(labels))
    chosen = index.iloc[rows]
    by_candidate: dict[Candidate, list[str]] = {}
    for name, intervention in interventions.items():
        recipe = intervention.recipe
        # What training changes is no operator on the activations of the unsteered model.
        if recipe.get("operator") == "fine_tune":
            continue
        # Steering some tokens only is the same operator: it would land on the same places.
        whole = recipe.get("tokens") in (None, "all")
        if name != BASELINE and recipe["scope"] == "source" and whole:
            by_candidate.setdefault(_candidate(name, recipe), []).append(name)
    parts = []
    for candidate, names in by_candidate.items():
        h = _at(residual, candidate, rows)
        harmful = (chosen["label"] == "harmful").to_numpy()
        fitted = harmful | (chosen["label"] == "harmless").to_numpy()
        plane = principal_plane(h[fitted], harmful[fitted])
        at = ClassMeans.at(means, candidate)
        unsteered = _distribution(residual, index, candidate, at)
        for name in [BASELINE, *names] if BASELINE in interventions else names:
            moved = interventions[name].operator(h)
            parts.append(
                _landing_rows(
                    name,
                    interventions[name].recipe,
                    candidate,
                    chosen,
                    moved.numpy(),
                    at,
                    plane,
                    unsteered,
                )
            )
    if not parts:
        return pd.DataFrame(columns=LANDING_COLUMNS)
    return pd.concat(parts, ignore_index=True).assign(model=model)[LANDING_COLUMNS]


def _candidate(name: str, recipe: Mapping[str, object]) -> Candidate:
    if recipe.get("position") is None or recipe.get("layer") is None:
        raise InputError(
            f"interventions.{name}: scope is source but the recipe names no position and layer. "
            "Build the intervention again."
        )
    return int(recipe["position"]), int(recipe["layer"])


def _at(residual: torch.Tensor | NDArray, candidate: Candidate, rows: NDArray) -> torch.Tensor:
    """Activations of some rows at a candidate: float32 [rows, width]."""
    position, layer = candidate
    return torch.as_tensor(residual[:, position, layer][rows], dtype=torch.float32)


def _distribution(
    residual: torch.Tensor | NDArray, index: pd.DataFrame, candidate: Candidate, means: ClassMeans
) -> Distribution:
    """Where the unsteered prompts of both classes lie at a candidate."""
    splits = [
        [
            _at(
                residual,
                candidate,
                np.flatnonzero((index["split"] == split) & (index["label"] == label)),
            ).numpy()
            for label in means._fields
        ]
        for split in ("train", "test")
    ]
    return Distribution.fit(np.stack(means), *splits)


def _landing_rows(
    name: str,
    recipe: Mapping[str, object],
    candidate: Candidate,
    index: pd.DataFrame,
    h: NDArray,
    means: ClassMeans,
    plane: Plane,
    unsteered: Distribution,
) -> pd.DataFrame:
    pc1, pc2 = plane.coordinates(h).T
    k = recipe.get("k")
    return pd.DataFrame(
        {
            "intervention": name,
            "operator": recipe.get("operator"),
            "k": None if k is None else str(k),
            "alpha": recipe.get("alpha"),
            "origin": recipe.get("origin"),
            "position": candidate[0],
            "layer": candidate[1],
            "id": index["id"].to_numpy(),
            "label": index["label"].to_numpy(),
            "position_along_dim": position_along_dim(h, means),
            "nearest": nearest_centroid(h, means),
            "distance": unsteered.relative_distance(h),
            "outside": unsteered.outside(h),
            "pc1": pc1,
            "pc2": pc2,
        }
    )


def landing_summary(
    study: str,
    model: str,
    table: pd.DataFrame,
    recipes: Mapping[str, Mapping[str, object]],
    intervals: Intervals,
) -> pd.DataFrame:
    """Summary rows of a landing table: where prompts land, and how far off the distribution.

    Per intervention and label, means with bootstrap over prompts of the position t (`landing_t`)
    and of the relative distance from the nearer class mean (`off_distribution`), and shares with
    Wilson's interval nearest to the harmless mean (`nearest_harmless`) and off both classes
    (`outside`). "none" is left out: it has one mean per candidate, not one.
    """
    estimates = []
    steered = table[table["intervention"] != BASELINE]
    for (name, label), rows in steered.groupby(["intervention", "label"], sort=False):
        for metric, column, undefined in _LANDING_MEANS:
            values = rows[column].to_numpy(dtype=np.float64)
            low, high = intervals.percentiles(bootstrap_means(values, intervals))
            known = int(np.isfinite(values).sum())
            why = None if known else undefined
            mean = mean_ignoring_nan(values)
            estimates.append([name, label, metric, mean, low, high, known, why])
        near, n = rows["nearest"] == "harmless", len(rows)
        for metric, hits in (("nearest_harmless", near), ("outside", rows["outside"])):
            count = int(hits.sum())
            bounds = wilson_interval(count, n, intervals.confidence)
            estimates.append([name, label, metric, count / n, *bounds, n, None])
    return _summary(study, model, recipes, estimates)


def _summary(
    study: str, model: str, recipes: Mapping[str, Mapping[str, object]], estimates: list[list]
) -> pd.DataFrame:
    columns = ["intervention", "dataset", "metric", "value", "low", "high", "n", "reason"]
    table = pd.DataFrame(estimates, columns=columns).assign(judge=GEOMETRY_JUDGE)
    return summary_rows(study, model, recipes, table)


# --- directions against each other ---


def cosines(
    model: str,
    method: str,
    dim: Mapping[Candidate, DirectionLike],
    directions: Mapping[Candidate, DirectionLike],
) -> pd.DataFrame:
    """DiM against each direction of an ordered orthonormal basis, at every shared candidate.

    energy_share: cumulative share of DiM's squared norm that lies in the first `index` directions.
    Candidates where DiM is empty (the class means coincide) give NaN.
    """
    parts = []
    for (position, layer), direction in directions.items():
        if (position, layer) not in dim:
            continue
        basis = np.asarray(direction.basis, dtype=np.float64)
        unit = np.asarray(dim[position, layer].basis, dtype=np.float64)
        # DiM has no direction where the class means coincide, as at layer 0.
        cosine = basis @ unit[0] if len(unit) else np.full(len(basis), np.nan)
        parts.append(
            pd.DataFrame(
                {
                    "model": model,
                    "method": method,
                    "position": position,
                    "layer": layer,
                    "index": np.arange(1, len(basis) + 1),
                    "cosine": cosine,
                    "energy_share": np.cumsum(cosine**2),
                    "accuracy": np.asarray(direction.accuracies, dtype=np.float64),
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COSINE_COLUMNS)


def principal_angles(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Principal angles between the row spaces of a [k, d] and b [m, d], degrees, ascending."""
    a, b = (np.asarray(rows, dtype=np.float64).T for rows in (a, b))
    return np.degrees(np.sort(subspace_angles(a, b)))


@lru_cache(maxsize=256)
def chance_angles(width: int, k: int, draws: int = 200, seed: int = 42) -> tuple[float, ...]:
    """Expected principal angles (degrees, ascending) between two random k-dimensional subspaces.

    Seeded Monte Carlo mean. By rotational symmetry one subspace may be fixed to the first k axes;
    the cosines are then the singular values of the other's first k coordinates.
    """
    generator = np.random.default_rng(seed)
    bases = (np.linalg.qr(generator.normal(size=(width, k)))[0] for _ in range(draws))
    cosine = np.array([np.linalg.svd(basis[:k], compute_uv=False) for basis in bases])
    return tuple(np.degrees(np.arccos(np.clip(cosine, 0, 1))).mean(0))


def subspace_table(
    method: str,
    subspaces: Mapping[tuple[str, int], ArrayLike],
    ks: Iterable[int],
    draws: int = 200,
    seed: int = 42,
) -> pd.DataFrame:
    """Principal angles between the first k directions of subspaces, and what chance would give.

    subspaces: basis [r, d] by (model, layer). Compared are layers of one model, and different
    models of equal width whatever their layers. k above either rank is left out. Note that models
    trained from different seeds share no basis of the residual stream, so angles at chance level
    are what one expects between them; angles below it would be the finding.
    """
    bases = {key: np.asarray(basis, dtype=np.float64) for key, basis in subspaces.items()}
    parts = []
    for (key, a), (other, b) in combinations(bases.items(), 2):
        if a.shape[1] != b.shape[1]:
            continue
        for k in (k for k in ks if k <= min(len(a), len(b))):
            parts.append(
                pd.DataFrame(
                    {
                        "model": key[0],
                        "other_model": other[0],
                        "method": method,
                        "layer": key[1],
                        "other_layer": other[1],
                        "k": k,
                        "angle_index": np.arange(1, k + 1),
                        "angle_degrees": principal_angles(a[:k], b[:k]),
                        "chance_degrees": chance_angles(a.shape[1], k, draws, seed),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=ANGLE_COLUMNS)


# --- projections onto DiM (claim D1) ---


def projections(
    model: str,
    residual: torch.Tensor | NDArray,
    index: pd.DataFrame,
    direction: DirectionLike,
    candidate: Candidate,
    labels: Sequence[str] = ("harmful", "harmless", "borderline"),
) -> pd.DataFrame:
    """a . r^ of every test prompt at DiM's selected candidate: the data of the D1 histogram."""
    rows = np.flatnonzero((index["split"] == "test") & index["label"].isin(labels))
    h = _at(residual, candidate, rows).numpy().astype(np.float64)
    unit = np.asarray(direction.basis, dtype=np.float64)[0]
    return pd.DataFrame(
        {
            "model": model,
            "id": index["id"].to_numpy()[rows],
            "label": index["label"].to_numpy()[rows],
            "position": candidate[0],
            "layer": candidate[1],
            "projection": h @ unit,
        }
    )[PROJECTION_COLUMNS]


def projection_summary(
    study: str,
    model: str,
    table: pd.DataFrame,
    recipes: Mapping[str, Mapping[str, object]],
    intervals: Intervals,
) -> pd.DataFrame:
    """Summary row of claim D1: mean harmless projection over mean harmful projection onto r^.

    Metric `projection_ratio` (dataset harmless, intervention "none"); the bootstrap resamples the
    prompts of both classes independently.
    """
    value, resampled, n = {}, {}, 0
    for shift, label in enumerate(("harmless", "harmful")):
        z = table.loc[table["label"] == label, "projection"].to_numpy(dtype=np.float64)
        value[label], n = float(mean_ignoring_nan(z)), n + len(z)
        # A seed of its own: with one seed, classes of equal size would be resampled in step.
        own = Intervals(intervals.confidence, intervals.resamples, intervals.seed + shift)
        resampled[label] = bootstrap_means(z, own)
    ratio, why = np.nan, "no harmful or no harmless test prompt"
    if np.isfinite(list(value.values())).all() and value["harmful"] != 0:
        ratio, why = value["harmless"] / value["harmful"], None
    low, high = intervals.percentiles(resampled["harmless"] / resampled["harmful"])
    estimate = [BASELINE, "harmless", "projection_ratio", ratio, low, high, n, why]
    return _summary(study, model, recipes, [estimate])
