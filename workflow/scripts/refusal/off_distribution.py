"""How far off the distribution an intervention puts activations.

Arditi et al. 2024, appendix I.1 and Figure 22, show principal components: subtracting difference in
means moves harmful prompts onto harmless ones, but harmless ones off both. Here this is a number:
the Mahalanobis distance to the two class means in the spread within the classes, against that of
unsteered prompts. Unlike a plain distance it sees a step along an axis that hardly varies.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

FloatArray = NDArray[np.float64]

# The share of a class's unsteered prompts that counts as where the class lies.
INSIDE = 0.95


class Spread(NamedTuple):
    """Inverse covariance (1 - a) S + a tr(S)/d I without a d x d matrix.

    axes: [r, d], principal axes of S; precision: [r], along them; rest: along all others.
    """

    axes: FloatArray
    precision: FloatArray
    rest: float

    @classmethod
    def fit(cls, centred: ArrayLike) -> "Spread":
        """From rows [n, d] about their own class means; a after Ledoit & Wolf 2004.

        Shrinkage makes the distance well defined with fewer rows than dimensions. Without any
        spread all distances are NaN.
        """
        centred = np.asarray(centred, dtype=np.float64)
        n, width = centred.shape
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        variances = singular**2 / n
        total = float(variances.sum())
        if total == 0:
            return cls(axes, np.full(len(axes), np.nan), np.nan)
        shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
        floor = max(shrinkage * total / width, np.finfo(float).eps * total)
        return cls(axes, 1 / ((1 - shrinkage) * variances + floor), 1 / floor)

    def distances(self, h: ArrayLike, mean: FloatArray) -> FloatArray:
        """Mahalanobis distance of rows h [n, d] from a mean [d]: [n]."""
        away = np.asarray(h, dtype=np.float64) - mean
        along = away @ self.axes.T
        rest = np.clip((away**2).sum(1) - (along**2).sum(1), 0, None)
        return np.sqrt((along**2) @ self.precision + self.rest * rest)


class Distribution(NamedTuple):
    """Where the unsteered prompts of both classes lie at one candidate.

    means: [2, d]; typical: mean distance of each class's test prompts from their own mean [2];
    radius: the distance within which `INSIDE` of them lie [2].
    """

    means: FloatArray
    spread: Spread
    typical: FloatArray
    radius: FloatArray

    @classmethod
    def fit(
        cls, means: FloatArray, train: list[FloatArray], test: list[FloatArray]
    ) -> "Distribution":
        """From the class means [2, d] and the activations [n, d] per class of both splits.

        The spread comes from training prompts, the distances that others are measured against
        from test prompts, which the spread was not fitted to.
        """
        centred = [np.asarray(h, np.float64) - np.mean(h, axis=0, dtype=np.float64) for h in train]
        spread = Spread.fit(np.concatenate(centred))
        own = [spread.distances(h, mean) for h, mean in zip(test, means, strict=True)]
        typical = np.array([distances.mean() if len(distances) else np.nan for distances in own])
        radius = [np.quantile(distances, INSIDE) if len(distances) else np.nan for distances in own]
        return cls(np.asarray(means, dtype=np.float64), spread, typical, np.array(radius))

    def distances(self, h: ArrayLike) -> FloatArray:
        """Distances of rows h [n, d] from the class means: [n, 2]."""
        return np.stack([self.spread.distances(h, mean) for mean in self.means], axis=1)

    def relative_distance(self, h: ArrayLike) -> FloatArray:
        """Distance from the nearer class mean in units of that class's typical one: [n].

        About 1 for unsteered prompts, whatever the model.
        """
        return (self.distances(h) / self.typical).min(1)

    def outside(self, h: ArrayLike) -> NDArray[np.bool_]:
        """Whether rows h [n, d] lie outside the radius of BOTH classes: [n]."""
        return (self.distances(h) > self.radius).all(1)
