"""Tables of the paper, from the frames of a study to LaTeX.

Every function takes the frames that it names and returns the source of one table. Model and
intervention names come from the configuration and are escaped.
"""

from collections.abc import Callable
from dataclasses import dataclass

from refusal.tables.agreement import agreement_table
from refusal.tables.attacks import attacks_models_table, attacks_table, harmbench_table
from refusal.tables.capability import capability_models_table, capability_table
from refusal.tables.claims import claims_table, conditions_table
from refusal.tables.comparison import all_table, comparisons_table, main_table
from refusal.tables.examples import examples_table
from refusal.tables.judges import judges_table
from refusal.tables.kind_numbers import features_table, spread_table, styles_table
from refusal.tables.kinds import kinds_table, stability_table
from refusal.tables.knob import cells_table, knob_table
from refusal.tables.losses import comparator_table, losses_table
from refusal.tables.models import models_table, training_table
from refusal.tables.planted import methods_table, organisms_table
from refusal.tables.selection import rejections_table, selection_table
from refusal.tables.subspaces import angles_table, subspaces_table
from refusal.tables.suffix import suffix_table
from refusal.tables.weights import weights_table


@dataclass(frozen=True)
class TableRecipe:
    """How a table is made: its function and the names of the frames that it takes, in order."""

    function: Callable[..., str]
    frames: tuple[str, ...]


TABLES: dict[str, TableRecipe] = {
    "models": TableRecipe(models_table, ("cards", "summary", "class_sizes")),
    "training": TableRecipe(training_table, ("cards",)),
    "selection": TableRecipe(selection_table, ("selection", "cards")),
    "rejections": TableRecipe(rejections_table, ("selection",)),
    "main": TableRecipe(main_table, ("summary",)),
    "all": TableRecipe(all_table, ("summary",)),
    "comparisons": TableRecipe(comparisons_table, ("comparisons", "summary")),
    "losses": TableRecipe(losses_table, ("summary",)),
    "comparator": TableRecipe(comparator_table, ("summary",)),
    "agreement": TableRecipe(agreement_table, ("agreement",)),
    "judges": TableRecipe(judges_table, ("summary",)),
    "claims": TableRecipe(claims_table, ("claims", "summary")),
    "conditions": TableRecipe(conditions_table, ("claims",)),
    "subspaces": TableRecipe(subspaces_table, ("cosines", "selection")),
    "angles": TableRecipe(angles_table, ("angles",)),
    "examples": TableRecipe(examples_table, ("examples",)),
    "attacks": TableRecipe(attacks_table, ("summary",)),
    "attacks_models": TableRecipe(attacks_models_table, ("summary",)),
    "harmbench": TableRecipe(harmbench_table, ("published",)),
    "suffix": TableRecipe(suffix_table, ("summary",)),
    "weights": TableRecipe(weights_table, ("cards", "summary", "weights_prompts")),
    "capability": TableRecipe(capability_table, ("summary", "capability_tasks")),
    "capability_models": TableRecipe(capability_models_table, ("summary", "capability_tasks")),
    "kinds": TableRecipe(kinds_table, ("kinds_behaviour",)),
    "kinds_stability": TableRecipe(stability_table, ("kinds_stability", "kinds_cosines")),
    "knob": TableRecipe(knob_table, ("knob_curves", "knob_chosen")),
    "knob_cells": TableRecipe(cells_table, ("knob_cells",)),
    "knob_spread": TableRecipe(spread_table, ("summary",)),
    "styles": TableRecipe(styles_table, ("summary",)),
    "sparse_features": TableRecipe(features_table, ("summary",)),
    "planted_organisms": TableRecipe(organisms_table, ("planted_organisms", "planted_rates")),
    "planted_methods": TableRecipe(methods_table, ("planted_methods",)),
}
