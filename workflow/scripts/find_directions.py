"""Find the directions of a model at every position and layer, by every method."""

from typing import TYPE_CHECKING

from job import job

from refusal.activations import load_activations
from refusal.directions import filter_by_refusal_metric, save_directions, save_means
from refusal.estimators import find_everywhere
from refusal.inlp import InlpSettings

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings = snakemake.params.settings
    residual, index = load_activations(snakemake.input.residual)
    rows = filter_by_refusal_metric(
        index, "train", model=snakemake.wildcards.model, enabled=settings["filter"]
    )
    inlp_settings = InlpSettings(**settings["inlp"], seed=snakemake.params.seed)
    means, found = find_everywhere(
        residual, rows, inlp_settings, prune_layers=snakemake.params.prune_layers
    )
    save_means(snakemake.output.means, means)
    for method, path in zip(snakemake.params.methods, snakemake.output.methods, strict=True):
        save_directions(path, found[method])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
