"""The direction before safety tuning: does the axis exist before it is used?

Arditi et al. 2024, appendix J: a base model already represents what its chat model refuses by, so
fine-tuning seems to use an axis that is there. Both checkpoints read the same prompts in the same
chat template, at the position of the candidate whose direction is ablated everywhere. Quantities by
layer (`COSINES_COLUMNS`; layers are block inputs, "resid_pre"):

    cosine          of activations with the tuned model's direction r^ at its candidate
    dim_cosine      of the base's own difference in means with the tuned one of the same layer
    chance          the same of a direction drawn at random: zero, and where most of them lie
    relabelled      the same where the base's prompts have lost their labels
    separation      of harmful from harmless test prompts along r^: area under the ROC curve
    own_separation  the same along each layer's own difference in means (from training prompts)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from refusal.directions import Candidate, Direction, difference_in_means
from refusal.errors import InputError
from refusal.statistics import (
    BASELINE,
    Estimate,
    Intervals,
    bootstrap_means,
    mean_ignoring_nan,
    summary_rows,
)

FloatArray = NDArray[np.float64]
GEOMETRY_JUDGE = "geometry"
LABELS = ("harmful", "harmless")
BOTH = "both"  # the "label" of what needs both classes
TUNED, BASE = "tuned", "base"
COSINES_COLUMNS = [
    "model",
    "checkpoint",
    "quantity",
    "label",
    "layer",
    "value",
    "low",
    "high",
    "sd",
    "n",
]


@dataclass(frozen=True)
class Readings:
    """Activations of one checkpoint at one position, by label.

    train, test: label -> [n, layers, width]. Both checkpoints hold the same prompts in the same
    order, so that what is compared is paired.
    """

    train: Mapping[str, Tensor]
    test: Mapping[str, Tensor]


def require_base(name: str, path: str) -> str:
    """The configured base checkpoint; raises InputError where a loaded model names none."""
    if not path:
        raise InputError(
            f"models.{name}.base: missing, and before_tuning compares with the checkpoint before "
            "safety tuning. Remedy: give its folder or hub id, or set "
            "experiments.before_tuning: false."
        )
    return path


def check_base(
    name: str, base: Mapping[str, int], tuned: Mapping[str, int], largest_token: int
) -> None:
    """Raises InputError unless the base model can be compared with the tuned one at all.

    base, tuned: width, n_layers and vocabulary (rows of the embedding) of each; largest_token: the
    largest token id among the prompts as the tuned model's tokenizer gives them.
    """
    remedy = (
        "Remedy: give the checkpoint it was tuned from, or set experiments.before_tuning: false."
    )
    for part in ("width", "n_layers"):
        if base[part] != tuned[part]:
            raise InputError(
                f"models.{name}.base: {part} is {base[part]}, the model's {tuned[part]}. {remedy}"
            )
    if largest_token >= base["vocabulary"]:
        raise InputError(
            f"models.{name}.base: {base['vocabulary']} tokens, but the prompts in the model's "
            f"template have token {largest_token}. {remedy}"
        )


# --- pure measurements ---


def activation_cosines(h: ArrayLike, unit: ArrayLike) -> FloatArray:
    """Cosine of activations [n, layers, d] with a unit vector [d]: float64 [n, layers].

    One layer at a time, so that the float64 copy stays small. NaN for a zero activation.
    """
    unit = np.asarray(unit, dtype=np.float64)
    columns = []
    for layer in range(np.shape(h)[1]):
        rows = np.asarray(h[:, layer], dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            columns.append(rows @ unit / np.linalg.norm(rows, axis=1))
    return np.stack(columns, axis=1)


def separation(harmful: ArrayLike, harmless: ArrayLike, intervals: Intervals) -> Estimate:
    """Area under the ROC curve: P(harmful > harmless) + P(equal) / 2, of 1-d projections.

    1/2 where the classes cannot be told apart, below it where harmless prompts score higher. The
    bootstrap resamples the prompts of both classes independently. NaN for an empty class.
    """
    harmful, harmless = (np.asarray(z, dtype=np.float64) for z in (harmful, harmless))
    if not (len(harmful) and len(harmless)):
        return Estimate(np.nan, np.nan, np.nan)
    difference = harmful[:, None] - harmless[None, :]
    wins = (difference > 0) + 0.5 * (difference == 0)
    left, right = _counts(len(harmful), len(harmless), intervals)
    resampled = ((left @ wins) * right).sum(1) / wins.size
    low, high = intervals.percentiles(resampled)
    return Estimate(float(wins.mean()), float(low), float(high))


def _counts(n: int, other: int, intervals: Intervals) -> tuple[FloatArray, FloatArray]:
    """Resampling counts of two classes; a seed each, or equal sizes would go in step."""
    shifted = Intervals(intervals.confidence, intervals.resamples, intervals.seed + 1)
    return intervals.counts(n), shifted.counts(other)


def _row_cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cosines of the rows of a [r, d] with those of b [r, d] or [1, d]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def difference_cosine(
    base: Mapping[str, ArrayLike], tuned: Mapping[str, ArrayLike], intervals: Intervals
) -> Estimate:
    """Cosine of two differences in means over the same prompts, [n, d] by label and checkpoint.

    The bootstrap draws prompts of each class and forms both differences from the same draw. Noise
    of the means turns a difference away from its expectation, so bounds and value are, if
    anything, too low. NaN where a difference is zero, as at layer 0.
    """
    sides = []
    left, right = _counts(len(base["harmful"]), len(base["harmless"]), intervals)
    for readings in (base, tuned):
        harmful, harmless = (np.asarray(readings[label], dtype=np.float64) for label in LABELS)
        direction = _unit(harmful, harmless)
        if direction is None:
            return Estimate(np.nan, np.nan, np.nan)
        resampled = left @ harmful / len(harmful) - right @ harmless / len(harmless)
        sides.append((direction[None], resampled))
    low, high = intervals.percentiles(_row_cosines(sides[0][1], sides[1][1]))
    value = float(_row_cosines(sides[0][0], sides[1][0])[0])
    return Estimate(value, float(low), float(high))


def _unit(harmful: ArrayLike, harmless: ArrayLike) -> FloatArray | None:
    """Difference in means as everywhere in the study: float64 [d], None where it is zero."""
    means = (
        torch.as_tensor(np.asarray(rows, dtype=np.float64).mean(0)) for rows in (harmful, harmless)
    )
    basis = difference_in_means(*means).basis.double().numpy()
    return basis[0] if len(basis) else None


def relabelled_cosine(
    base: Mapping[str, ArrayLike], tuned_unit: ArrayLike, intervals: Intervals
) -> Estimate:
    """Cosine of a difference in means over randomly relabelled prompts [n, d] with a unit vector.

    A stricter chance level than random directions: activations vary along few axes, so even
    meaningless differences of theirs may be far from orthogonal to a given one.
    """
    rows = np.concatenate([np.asarray(base[label], dtype=np.float64) for label in LABELS])
    harmful = len(base["harmful"])
    generator = np.random.default_rng(intervals.seed)
    order = np.argsort(generator.random((intervals.resamples, len(rows))), axis=1)
    weights = np.where(order < harmful, 1 / harmful, -1 / (len(rows) - harmful))
    # Centred, because large common coordinates would leave their rounding in the difference.
    differences = weights @ (rows - rows.mean(0))
    cosines = _row_cosines(differences, np.asarray(tuned_unit, dtype=np.float64)[None])
    low, high = intervals.percentiles(cosines)
    return Estimate(float(mean_ignoring_nan(cosines)), float(low), float(high))


def chance_cosine(width: int, confidence: float) -> Estimate:
    """Cosine of a direction drawn uniformly in `width` dimensions with a fixed one.

    Mean zero; cos^2 follows Beta(1/2, (width - 1)/2), whose quantile bounds |cos| (about
    1.96 / sqrt(width) at .95).
    """
    bound = float(np.sqrt(stats.beta.ppf(confidence, 0.5, (width - 1) / 2)))
    return Estimate(0.0, -bound, bound)


# --- the table ---


def cosines_table(
    model: str,
    checkpoints: Mapping[str, Readings],
    directions: Mapping[Candidate, Direction],
    candidate: Candidate,
    intervals: Intervals,
) -> pd.DataFrame:
    """All quantities of the module's docstring by layer (`COSINES_COLUMNS`).

    checkpoints: readings of "tuned" and "base" at the candidate's position; directions: difference
    in means of the tuned model. `sd` is the standard deviation over prompts of `cosine`, else NaN;
    n counts the prompts that an estimate rests on.
    """
    unit = directions[candidate].basis[0].double().numpy()
    rows = []
    for checkpoint, readings in checkpoints.items():
        rows += _cosine_rows(checkpoint, readings.test, unit, intervals)
        rows += _separation_rows(checkpoint, readings, unit, intervals)
    own = {layer: one for (position, layer), one in directions.items() if position == candidate[0]}
    rows += _difference_rows(checkpoints[BASE].train, checkpoints[TUNED].train, own, intervals)
    return pd.DataFrame(rows, columns=COSINES_COLUMNS[1:]).assign(model=model)[COSINES_COLUMNS]


def _cosine_rows(
    checkpoint: str, test: Mapping[str, Tensor], unit: FloatArray, intervals: Intervals
) -> list[list]:
    rows = []
    for label in LABELS:
        values = activation_cosines(test[label], unit)
        low, high = intervals.percentiles(bootstrap_means(values.T, intervals))
        sd = values.std(0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
        estimates = zip(mean_ignoring_nan(values.T), low, high, sd, strict=True)
        for layer, (value, lower, upper, spread) in enumerate(estimates):
            rows.append(
                [checkpoint, "cosine", label, layer, value, lower, upper, spread, len(values)]
            )
    return rows


def _separation_rows(
    checkpoint: str, readings: Readings, unit: FloatArray, intervals: Intervals
) -> list[list]:
    rows = []
    n = sum(len(readings.test[label]) for label in LABELS)
    for layer in range(readings.test["harmful"].shape[1]):
        own = _unit(*(readings.train[label][:, layer] for label in LABELS))
        for quantity, axis in (("separation", unit), ("own_separation", own)):
            estimate = Estimate(np.nan, np.nan, np.nan)
            if axis is not None:
                at = (np.asarray(readings.test[label][:, layer], np.float64) for label in LABELS)
                estimate = separation(*(h @ axis for h in at), intervals)
            rows.append([checkpoint, quantity, BOTH, layer, *estimate, np.nan, n])
    return rows


def _difference_rows(
    base: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    directions: Mapping[int, Direction],
    intervals: Intervals,
) -> list[list]:
    rows = []
    n = sum(len(base[label]) for label in LABELS)
    width = base["harmful"].shape[-1]
    chance = chance_cosine(width, intervals.confidence)
    for layer in range(base["harmful"].shape[1]):
        here, there = ({label: h[:, layer] for label, h in side.items()} for side in (base, tuned))
        estimates = {"dim_cosine": difference_cosine(here, there, intervals), "chance": chance}
        if layer in directions and directions[layer].rank:
            unit = directions[layer].basis[0].double().numpy()
            estimates["relabelled"] = relabelled_cosine(here, unit, intervals)
        for quantity, estimate in estimates.items():
            rows.append([BASE, quantity, BOTH, layer, *estimate, np.nan, n])
    return rows


def cosines_summary(
    study: str, table: pd.DataFrame, candidate: Candidate, recipes: Mapping[str, Mapping]
) -> pd.DataFrame:
    """Summary rows at the candidate's layer, intervention "none", judge geometry.

    Metrics `<checkpoint>_cosine` (datasets harmful and harmless), and for dataset both
    `dim_cosine`, `<checkpoint>_separation`, `<checkpoint>_own_separation` and `dim_cosine_chance`:
    the upper bound of where cosines with relabelled prompts lie, itself without an interval.
    """
    names = {"dim_cosine": "dim_cosine", "relabelled": "dim_cosine_chance"}
    here = table[(table["layer"] == candidate[1]) & (table["quantity"] != "chance")]
    chance = here["quantity"] == "relabelled"
    here = here.assign(value=here["value"].where(~chance, here["high"]))
    here[["low", "high"]] = here[["low", "high"]].where(~chance)
    estimates = pd.DataFrame(
        {
            "intervention": BASELINE,
            "dataset": here["label"],
            "metric": [
                names.get(row.quantity, f"{row.checkpoint}_{row.quantity}")
                for row in here.itertuples()
            ],
            "judge": GEOMETRY_JUDGE,
            **{column: here[column] for column in ("value", "low", "high", "n")},
            "reason": [
                None if np.isfinite(value) else "the class means coincide in one checkpoint"
                for value in here["value"]
            ],
        }
    )
    return summary_rows(study, str(table["model"].iloc[0]), recipes, estimates)
