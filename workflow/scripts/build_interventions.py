"""Build every intervention of a model from its recipe, its directions and the selection."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from refusal.directions import Direction, load_directions, load_means, random_subspace
from refusal.interventions import build_intervention, save_intervention
from refusal.recipes import SELECTED_LIKE, UNSTEERED

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# A random subspace of "full" rank matches this method, so that only the choice of subspace differs.
RANK_MATCHED = "inlp_corrected"


class Sources:
    """Everything that recipes draw on."""

    def __init__(self, snakemake: "snakemake") -> None:
        self.seed = snakemake.params.seed
        self.directions = {
            Path(path).stem: load_directions(path) for path in snakemake.input.directions
        }
        tables = {Path(path).stem: pd.read_parquet(path) for path in snakemake.input.selection}
        self.selected = {
            (method, row.scope): row
            for method, table in tables.items()
            for row in table[table.selected].itertuples()
        }
        means = load_means(snakemake.input.means)
        self.means = means.harmful, means.harmless

    def choice(self, method: str, selection: str):
        """Return the selected row of a method, chosen under scope `source` or `all`."""
        return self.selected[SELECTED_LIKE.get(method, method), selection]

    def subspace(self, recipe: dict, width: int) -> Direction:
        """Return the random subspace of a recipe's draw, of the rank that `full` stands for."""
        matched = self.choice(RANK_MATCHED, "source")
        rank = self.directions[RANK_MATCHED][matched.position, matched.layer].rank
        k = rank if recipe["k"] == "full" else recipe["k"]
        return random_subspace(width, min(k, width), [self.seed, recipe["draw"]])


def build(name: str, recipe: dict, sources: Sources):
    """Return the intervention of one recipe."""
    if recipe["operator"] in UNSTEERED:
        return build_intervention(name, recipe)
    method = recipe["direction"]
    row = sources.choice(method, recipe["selection"])
    at = row.position, row.layer
    norm = sources.directions["dim"][at].norm
    directions = sources.directions.get(method)
    if directions is None:
        directions = {at: sources.subspace(recipe, sources.means[0].shape[-1])}
    return build_intervention(
        name,
        recipe,
        directions=directions,
        means=sources.means,
        candidate=at,
        dim_norm=norm,
        fallback=bool(row.fallback),
    )


def main(snakemake: "snakemake") -> None:
    sources = Sources(snakemake)
    recipes = snakemake.params.recipes
    targets = [path for path in snakemake.output if path.endswith(".json")]
    for (name, recipe), target in zip(recipes.items(), targets, strict=True):
        intervention = build(name, recipe, sources)
        save_intervention(target, intervention)
        logging.info("%s: rank %d", name, intervention.operator.rank)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
