"""Every estimator of a refusal direction at every position and layer."""

import logging

import numpy as np
from torch import Tensor

from refusal.directions import (
    Candidate,
    Direction,
    Means,
    class_means,
    difference_in_means,
    leace,
)
from refusal.inlp import InlpSettings, inlp

Directions = dict[Candidate, Direction]


def find_everywhere(
    residual: Tensor,
    rows: tuple[np.ndarray, np.ndarray],
    settings: InlpSettings,
    *,
    prune_layers: float,
) -> tuple[Means, dict[str, Directions]]:
    """Class means, and the directions dim, leace, inlp_faithful and inlp_corrected by candidate.

    Args:
        residual: activations [n, positions, layers, d].
        rows: rows of the harmful and of the harmless prompts.
        settings: of INLP.
        prune_layers: share of the last layers that selection leaves out, which need no INLP, the
            one slow method.
    """
    harmful_mean, harmless_mean = (class_means(residual, chosen) for chosen in rows)
    n_positions, n_layers = residual.shape[1:3]
    found: dict[str, Directions] = {
        method: {} for method in ("dim", "leace", "inlp_faithful", "inlp_corrected")
    }
    for layer in range(n_layers):
        for position in range(-n_positions, 0):
            harmful, harmless = (residual[chosen, position, layer] for chosen in rows)
            at = (position, layer)
            found["dim"][at] = difference_in_means(
                harmful_mean[position, layer], harmless_mean[position, layer]
            )
            found["leace"][at] = leace(harmful, harmless)
            if layer < int((1 - prune_layers) * n_layers):
                for variant in ("faithful", "corrected"):
                    direction = inlp(harmful, harmless, variant, settings)
                    found[f"inlp_{variant}"][at] = direction
                    logging.info("%s at %s: %d directions", variant, at, direction.rank)
    return Means(harmful_mean, harmless_mean, len(rows[0]), len(rows[1])), found
