"""Find the directions of a model at every position and layer, by every method."""

import logging
from typing import TYPE_CHECKING

from job import job

from refusal.activations import load_activations
from refusal.directions import (
    Means,
    class_means,
    difference_in_means,
    filter_by_refusal_metric,
    leace,
    save_directions,
    save_means,
)
from refusal.inlp import InlpSettings, inlp

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings = snakemake.params.settings
    residual, index = load_activations(snakemake.input.residual)
    rows = filter_by_refusal_metric(
        index, "train", model=snakemake.wildcards.model, enabled=settings["filter"]
    )
    harmful_mean, harmless_mean = (class_means(residual, chosen) for chosen in rows)
    means = Means(harmful_mean, harmless_mean, len(rows[0]), len(rows[1]))
    save_means(snakemake.output.means, means)
    inlp_settings = InlpSettings(**settings["inlp"], seed=snakemake.params.seed)
    n_positions, n_layers = residual.shape[1:3]
    found = {method: {} for method in snakemake.params.methods}
    for layer in range(n_layers):
        for position in range(-n_positions, 0):
            harmful, harmless = (residual[chosen, position, layer] for chosen in rows)
            at = (position, layer)
            found["dim"][at] = difference_in_means(
                harmful_mean[position, layer], harmless_mean[position, layer]
            )
            found["leace"][at] = leace(harmful, harmless)
            # Layers that selection leaves out need no INLP, the one slow method.
            if layer < int((1 - snakemake.params.prune_layers) * n_layers):
                for variant in ("faithful", "corrected"):
                    direction = inlp(harmful, harmless, variant, inlp_settings)
                    found[f"inlp_{variant}"][at] = direction
                    logging.info("%s at %s: %d directions", variant, at, direction.rank)
    for method, path in zip(snakemake.params.methods, snakemake.output.methods, strict=True):
        save_directions(path, found[method])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
