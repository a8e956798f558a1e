"""Questions that authors and readers of Arditi et al. 2024 discuss on LessWrong.

Does ablation help more where harmless prompts project near zero, so that zero means "as harmless"?
The answer is a correlation over models, of which there are few: its interval says how few.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from refusal.reading import estimates, find, models_of, project_recipe, recipes
from refusal.statistics import Estimate

# Fisher's z has variance 1 / (n - 3).
LEAST_MODELS = 4
OFFSET_COLUMNS = [
    "model",
    "offset",
    "offset_low",
    "offset_high",
    "reduction",
    "reduction_low",
    "reduction_high",
]


def fisher_correlation(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Pearson's correlation of paired values [n] with the interval of Fisher's z transform.

    Pairs with a NaN are left out. NaN with fewer than `LEAST_MODELS` pairs, where the interval is
    not defined, or if one side does not vary; a correlation of one has no interval beside itself.
    """
    pairs = np.stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    pairs = pairs[:, np.isfinite(pairs).all(0)]
    n = pairs.shape[1]
    if n < LEAST_MODELS or (np.ptp(pairs, axis=1) == 0).any():
        return Estimate(math.nan, math.nan, math.nan)
    r = float(np.clip(np.corrcoef(pairs)[0, 1], -1, 1))
    if abs(r) == 1:
        return Estimate(r, r, r)
    half = stats.norm.ppf((1 + confidence) / 2) / math.sqrt(n - 3)
    centre = math.atanh(r)
    return Estimate(r, math.tanh(centre - half), math.tanh(centre + half))


def offset_table(summary: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Harmless offset and effect of ablation per model, with intervals (`OFFSET_COLUMNS`).

    The offset is the mean harmless over the mean harmful projection onto DiM; the reduction is how
    many fewer of the harmful prompts are refused when DiM is ablated at all layers.
    """
    names = find(recipes(summary), **project_recipe("dim", "1", scope="all"))
    rows = []
    for model in models_of(summary):
        offset = estimates(summary, "projection_ratio", "harmless", "geometry", model)
        change = estimates(summary, "refused_change", "harmful", judge, model)
        if not names or "none" not in offset.index or names[0] not in change.index:
            continue
        value, low, high = change.loc[names[0], ["value", "low", "high"]]
        rows.append([model, *offset.loc["none", ["value", "low", "high"]], -value, -high, -low])
    table = pd.DataFrame(rows, columns=OFFSET_COLUMNS)
    return table.dropna(subset=["offset", "reduction"]).reset_index(drop=True)


def offset_correlation(table: pd.DataFrame, confidence: float = 0.95) -> Estimate:
    """Correlation over the models of an offset table; NaN with fewer than `LEAST_MODELS`."""
    return fisher_correlation(table["offset"], table["reduction"], confidence)
