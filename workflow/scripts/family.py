"""Run a job's interventions on one model, which is loaded once, and only if needed."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd
from transformers import PreTrainedModel

from loading import load_card
from refusal.interventions import load_intervention, steering
from refusal.store import Store, fingerprint

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


class Measurement(Protocol):
    """A loaded model and a measurement on it, made under whatever steering is in force."""

    model: PreTrainedModel

    def run(self) -> pd.DataFrame: ...


def run_family(
    snakemake: "snakemake",
    inputs: list[str],
    prepare: Callable[["snakemake"], Measurement],
    targets: Sequence[str] | None = None,
) -> None:
    """Write one table per intervention; those finished before are taken from the store.

    `inputs` are the files that the result depends on, apart from the model and the intervention;
    `targets` the files to write, one per intervention, by default all outputs of the rule.
    """
    targets = snakemake.output if targets is None else targets
    store = Store(snakemake.params.store)
    # How long a training took says nothing about the weights, whose hash is in the card.
    model = {k: v for k, v in load_card(snakemake.input.card[0]).items() if k != "trained"}
    measurement = None
    for name, target in zip(snakemake.params.interventions, targets, strict=True):
        recipes = snakemake.input.interventions
        recipe = Path(next(path for path in recipes if path.endswith(f"/{name}.json")))
        intervention = load_intervention(recipe)
        # The name is left out: two recipes with one operator are run once.
        site = {"scope": intervention.scope, "layer": intervention.layer, "model": model}
        site |= {"tokens": intervention.tokens}
        files = [*snakemake.input.code, *inputs, recipe.with_suffix(".npz")]
        key = fingerprint(files, {**snakemake.params.settings, **site})
        if store.fetch(key, target):
            logging.info("%s: finished before", name)
            continue
        measurement = measurement or prepare(snakemake)
        with steering(measurement.model, intervention):
            store.keep(key, measurement.run(), target)
        logging.info("%s: done", name)
