"""One knob: refusal against over-refusal when steering along the direction of each kind.

The controlled test of Joad et al. 2026 (arXiv 2602.02132, section 3.2, Tables 2, 11 and 12) has as
many prompts that are harmful or benign and refused or complied with by the unsteered model. Here
every rate is the mean of the rates of two such cells,

    RR = (refused in harmful-refused + refused in harmful-complied) / 2,   ORR likewise for benign,
    accuracy = (RR + 1 - ORR) / 2,

which for full cells are the paper's HR'/100, BR'/100 and (HR' + BC')/200, and which are .5 for the
unsteered model whatever the sizes of the cells.

The trade-off curve of a direction joins its points (ORR, RR) over strengths, from ablation to the
strongest addition, with (0, 0) and (1, 1) as ends. The area under it does not depend on how
strengths are counted: .5 means that steering turns a knob, all prompts alike; more means that it
sorts harmful from benign.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from refusal.kind_directions import REFUSED_MINUS_COMPLIED
from refusal.kind_responses import CELLS
from refusal.statistics import Estimate, Intervals

FloatArray = NDArray[np.float64]

ABLATION = "ablation"  # in place of a strength
MIN_CELL = 4  # a rate of fewer prompts says nothing
METRICS = ("refusal", "over_refusal", "accuracy")
Strength = float | str


@dataclass(frozen=True)
class Sweep:
    """Whether each prompt of each cell was refused under each direction and strength.

    Attributes:
        directions: names, [D].
        strengths: `ABLATION` and numbers in rising order, [S].
        refused: float64 [D, S, n] by cell.
    """

    directions: tuple[str, ...]
    strengths: tuple[Strength, ...]
    refused: Mapping[str, FloatArray]

    def rates(self) -> FloatArray:
        """RR, ORR and accuracy: [3, D, S]; NaN where a cell is too small."""
        return _combined({cell: self._mean(cell) for cell in CELLS})

    def resampled(self, intervals: Intervals) -> FloatArray:
        """The same for bootstrap resamples of the prompts of each cell: [3, R, D, S].

        A prompt is drawn together with all that was done to it; cells are resampled on their own.
        """
        means = {}
        for index, cell in enumerate(CELLS):
            values = self.refused[cell]
            n = values.shape[-1]
            if n < MIN_CELL:
                means[cell] = np.full((intervals.resamples, *values.shape[:2]), np.nan)
                continue
            own = Intervals(intervals.confidence, intervals.resamples, intervals.seed + index)
            means[cell] = np.moveaxis(values @ own.counts(n).T / n, -1, 0)
        return _combined(means)

    def _mean(self, cell: str) -> FloatArray:
        values = self.refused[cell]
        few = values.shape[-1] < MIN_CELL
        return np.full(values.shape[:2], np.nan) if few else values.mean(-1)


def _combined(means: Mapping[str, FloatArray]) -> FloatArray:
    refusal = (means["harmful-refused"] + means["harmful-complied"]) / 2
    over_refusal = (means["benign-refused"] + means["benign-complied"]) / 2
    return np.stack([refusal, over_refusal, (refusal + 1 - over_refusal) / 2])


def draw_cells(responses: pd.DataFrame, cell: pd.Series, size: int, seed: int) -> pd.DataFrame:
    """A seeded sample of at most `size` prompts of each cell, with the column `cell`."""
    table = responses.assign(cell=cell.to_numpy()).dropna(subset="cell")
    parts = [
        rows.sample(min(size, len(rows)), random_state=seed)
        for _, rows in table.groupby("cell", sort=True)
    ]
    return pd.concat(parts) if parts else table


def sweep_of(scores: pd.DataFrame) -> Sweep:
    """The sweep from one row per completion: direction, strength, cell, id, refused.

    Every prompt must have been asked under every direction and strength.
    """
    directions = tuple(pd.unique(scores.direction))
    strengths = tuple(sorted(pd.unique(scores.strength), key=_order))
    refused = {}
    for cell in CELLS:
        rows = scores[scores.cell == cell]
        wide = rows.pivot(index="id", columns=["direction", "strength"], values="refused")
        wide = wide.reindex(columns=pd.MultiIndex.from_product([directions, strengths]))
        shape = (len(wide), len(directions), len(strengths))
        refused[cell] = np.moveaxis(wide.to_numpy(np.float64).reshape(shape), 0, -1)
    return Sweep(directions, strengths, refused)


def _order(strength: Strength) -> float:
    return -np.inf if strength == ABLATION else float(strength)


def curves_frame(sweep: Sweep, intervals: Intervals) -> pd.DataFrame:
    """Rates of every direction and strength with intervals.

    Returns:
        direction, strength (text), metric, value, low, high, n (prompts behind the value).
    """
    rates, resampled = sweep.rates(), sweep.resampled(intervals)
    low, high = intervals.percentiles(np.moveaxis(resampled, 1, -1))
    sizes = {cell: values.shape[-1] for cell, values in sweep.refused.items()}
    harmful = sizes["harmful-refused"] + sizes["harmful-complied"]
    n = {"refusal": harmful, "over_refusal": sum(sizes.values()) - harmful}
    rows = [
        (direction, str(strength), metric, *(x[m, d, s] for x in (rates, low, high)), n.get(metric))
        for m, metric in enumerate(METRICS)
        for d, direction in enumerate(sweep.directions)
        for s, strength in enumerate(sweep.strengths)
    ]
    frame = pd.DataFrame(
        rows, columns=["direction", "strength", "metric", "value", "low", "high", "n"]
    )
    return frame.assign(n=frame.n.fillna(sum(sizes.values())).astype(int))


class Choice(NamedTuple):
    """The strength chosen for a direction, and what validation prompts said of it."""

    direction: str
    strength: float
    satisfied: bool
    refusal: float
    over_refusal: float


def choose_strengths(
    validation: Sweep, refusal_min: float, over_refusal_max: float
) -> list[Choice]:
    """The smallest strength with enough refusal and little enough over-refusal on validation.

    The rule of Joad et al., section 3.2; they leave the bound on over-refusal open. Where no
    strength satisfies both, the one with enough refusal and the least over-refusal is taken, or
    else the one that refuses most (the smaller at equal values), and `satisfied` is False.
    """
    refusal, over_refusal, _ = validation.rates()
    added = [i for i, strength in enumerate(validation.strengths) if strength != ABLATION]
    choices = []
    for d, direction in enumerate(validation.directions):
        enough = [s for s in added if refusal[d, s] >= refusal_min]
        good = [s for s in enough if over_refusal[d, s] <= over_refusal_max]
        least_harm = sorted(enough, key=lambda s: over_refusal[d, s])
        most = sorted(added, key=lambda s: -np.nan_to_num(refusal[d, s]))
        chosen = (good or least_harm or most)[0]
        values = refusal[d, chosen], over_refusal[d, chosen]
        strength = float(validation.strengths[chosen])
        choices.append(Choice(direction, strength, bool(good), *map(float, values)))
    return choices


def areas(rates: FloatArray) -> FloatArray:
    """Area under the trade-off curves of [3, ..., S] (RR, ORR, accuracy): [...].

    Points are joined in the order of over-refusal, ties in that of refusal.
    """
    refusal, over_refusal = rates[0], rates[1]
    order = np.lexsort((refusal, over_refusal), axis=-1)
    ends = np.zeros((*refusal.shape[:-1], 1))
    x = np.concatenate([ends, np.take_along_axis(over_refusal, order, -1), ends + 1], -1)
    y = np.concatenate([ends, np.take_along_axis(refusal, order, -1), ends + 1], -1)
    return np.trapezoid(y, x, axis=-1)


class Spread(NamedTuple):
    """How far curves lie apart, against what resampling alone makes of one curve."""

    observed: float
    expected: float
    ratio: Estimate
    excess: Estimate


def spread(area: FloatArray, resampled: FloatArray, intervals: Intervals) -> Spread:
    """Standard deviation of areas [K] between directions against that expected from resampling.

    If all directions shared one curve, the areas would still differ, since each curve is measured
    on few prompts. That expected spread is the standard deviation, between directions, of the
    deviations of the resampled areas [R, K] from the measured ones, each centred over directions
    (so that what the prompts do to all curves alike does not count). The ratio is about 1 if there
    is one curve. The excess is the root of the difference of the squares, with its sign.

    A resample holds the sampling noise twice, hence its expected square is subtracted once before
    the percentiles are taken.
    """
    deviations = _centred(resampled) - _centred(area)
    degrees = area.shape[-1] - 1
    noise = float((deviations**2).sum(-1).mean() / degrees)
    observed = float((_centred(area) ** 2).sum() / degrees)
    squares = (_centred(resampled) ** 2).sum(-1) / degrees - noise
    low, high = intervals.percentiles(squares)
    if not noise > 0:
        undefined = Estimate(np.nan, np.nan, np.nan)
        return Spread(float(np.sqrt(observed)), 0.0, undefined, undefined)
    ratio = [np.sqrt(max(value, 0.0) / noise) for value in (observed, low, high)]
    excess = [_signed_root(value - noise) for value in (observed, low, high)]
    return Spread(
        float(np.sqrt(observed)), float(np.sqrt(noise)), Estimate(*ratio), Estimate(*excess)
    )


def _centred(areas_of: FloatArray) -> FloatArray:
    return areas_of - areas_of.mean(-1, keepdims=True)


def _signed_root(value: float) -> float:
    return float(np.sign(value) * np.sqrt(abs(value)))


def knob_scalars(
    sweep: Sweep, choices: Sequence[Choice], kinds: Sequence[str], intervals: Intervals
) -> dict[str, tuple[Estimate, int]]:
    """Numbers of the sweep on test prompts, by metric.

    knob_spread_ratio, knob_spread_excess: of the areas of the kinds (see `spread`).
    knob_area, knob_random_area, knob_dim_area, knob_refused_minus_complied_area: areas, the first
        two averaged over directions.
    knob_refusal, knob_over_refusal, knob_accuracy: at the chosen strength, mean over kinds.
    knob_random_refusal: RR of the random directions at the median strength of the kinds, and
        knob_random_gap, by how much the kinds at their strengths refuse more harmful prompts.
    knob_ablation_refusal, knob_ablation_over_refusal: after ablation, mean over kinds.
    knob_best_accuracy: greatest accuracy over strengths (in sample), mean over kinds.
    knob_satisfied: share of kinds whose strength satisfies the rule.
    """
    # Row 0 of the second axis is the estimate, the others are its resamples.
    values = np.concatenate([sweep.rates()[:, None], sweep.resampled(intervals)], axis=1)
    place = {name: index for index, name in enumerate(sweep.directions)}
    rows = [place[kind] for kind in kinds]
    area = areas(values)
    chosen = _at_choices(values, sweep, choices, kinds)
    ablated = values[..., rows, sweep.strengths.index(ABLATION)].mean(-1)
    found = {
        "knob_area": area[:, rows].mean(-1),
        **dict(zip(["knob_refusal", "knob_over_refusal", "knob_accuracy"], chosen, strict=True)),
        "knob_ablation_refusal": ablated[0],
        "knob_ablation_over_refusal": ablated[1],
        "knob_best_accuracy": values[2][:, rows].max(-1).mean(-1),
        **{
            f"knob_{n}_area": area[:, place[n]]
            for n in ("dim", REFUSED_MINUS_COMPLIED)
            if n in place
        },
    }
    if random := [place[name] for name in place if name.startswith("random-")]:
        median = _median_strength(sweep, choices, kinds)
        found["knob_random_area"] = area[:, random].mean(-1)
        found["knob_random_refusal"] = values[0][:, random, median].mean(-1)
        found["knob_random_gap"] = chosen[0] - found["knob_random_refusal"]
    n = sum(outcomes.shape[-1] for outcomes in sweep.refused.values())
    result = {name: (_estimate(resampled, intervals), n) for name, resampled in found.items()}
    measured = spread(area[0, rows], area[1:, rows], intervals)
    satisfied = np.mean([choice.satisfied for choice in choices if choice.direction in kinds])
    return result | {
        "knob_spread_ratio": (measured.ratio, n),
        "knob_spread_excess": (measured.excess, n),
        "knob_satisfied": (Estimate(float(satisfied), np.nan, np.nan), len(kinds)),
    }


def _at_choices(values, sweep: Sweep, choices: Sequence[Choice], kinds) -> FloatArray:
    """Rates at each kind's chosen strength, mean over kinds: [3, 1 + R]."""
    at = {choice.direction: sweep.strengths.index(choice.strength) for choice in choices}
    each = [values[:, :, sweep.directions.index(kind), at[kind]] for kind in kinds]
    return np.mean(each, axis=0)


def _median_strength(sweep: Sweep, choices: Sequence[Choice], kinds: Sequence[str]) -> int:
    """Index of the lower median of the kinds' chosen strengths."""
    chosen = sorted(choice.strength for choice in choices if choice.direction in kinds)
    return sweep.strengths.index(chosen[(len(chosen) - 1) // 2])


def _estimate(values: FloatArray, intervals: Intervals) -> Estimate:
    """The first value, with percentiles of the others."""
    low, high = intervals.percentiles(values[1:])
    return Estimate(float(values[0]), float(low), float(high))
