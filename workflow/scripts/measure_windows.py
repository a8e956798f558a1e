"""Ablate difference in means over windows of layers and let the judges read the completions."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from loading import load_card, load_from_card, stop_tokens
from refusal.directions import load_directions
from refusal.errors import InputError
from refusal.generations import completions_table, generate
from refusal.grammar import is_refusal
from refusal.interventions import Intervention, Operator, steering
from refusal.models import encode_prompts, write_modules
from refusal.scores import answers, build_judges, score
from refusal.statistics import Intervals
from refusal.windows import CHOSEN_ON, NO_WINDOW, window_map, windows, windows_summary

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


class Ablation:
    """A loaded model, its prompts, and the direction ablated over windows of its layers."""

    def __init__(self, snakemake: "snakemake") -> None:
        card = load_card(snakemake.input.card[0])
        self.n_layers = card["n_layers"]
        self.settings = snakemake.params.generations
        self.model, self.tokenizer = load_from_card(card, snakemake.params.model)
        _require_writes(self.model)
        prompts = pd.read_parquet(snakemake.input.prompts[0])
        self.prompts = _chosen_prompts(prompts, snakemake.params.windows["prompts"])
        self.sequences = encode_prompts(self.tokenizer, list(self.prompts.text))
        self.operator, self.layer = _operator(snakemake)
        rule = is_refusal if snakemake.params.grammar else None
        self.judges = build_judges(snakemake.params.judges, rule)

    def scores(self, window: tuple[int, int]) -> pd.DataFrame:
        """Return what every judge says of the completions under the ablation of one window."""
        operator = Operator.identity() if window == NO_WINDOW else self.operator
        at = None if window == NO_WINDOW else window
        name = {"name": f"window {window[0]}+{window[1]}"}
        with steering(self.model, Intervention(operator, "all", self.layer, name, window=at)):
            completions = generate(
                self.model,
                self.sequences,
                eos_ids=stop_tokens(self.model, self.tokenizer),
                pad_id=self.tokenizer.pad_token_id,
                max_new_tokens=self.settings["max_new_tokens"],
                max_tokens=self.settings["max_tokens"],
            )
        table = completions_table(self.tokenizer, list(self.prompts.id), completions)
        judged = score(answers(self.prompts, table), self.judges)
        split = judged.id.map(self.prompts.set_index("id").split)
        return judged.assign(start=window[0], length=window[1], split=split)


def _require_writes(model) -> None:
    """Raises InputError, with this experiment's remedy, where the blocks' writes are not known."""
    try:
        write_modules(model)
    except InputError as mistake:
        raise InputError(f"{mistake} Or set experiments.windows: false.") from None


def _chosen_prompts(prompts: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return the prompts of the choice, and the first `most` test prompts of both classes."""
    split, label = CHOSEN_ON
    validation = prompts[(prompts.split == split) & (prompts.label == label)]
    test = prompts[(prompts.split == "test") & prompts.label.isin(["harmful", "harmless"])]
    return pd.concat([validation, test.groupby("label", sort=False).head(most)])


def _operator(snakemake: "snakemake") -> tuple[Operator, int]:
    """Return the ablation of difference in means, and the layer it was found at."""
    chosen = pd.read_parquet(snakemake.input.selection).query("selected and scope == 'all'").iloc[0]
    directions = load_directions(snakemake.input.directions)
    direction = directions[int(chosen.position), int(chosen.layer)]
    return Operator.project(direction.basis), int(chosen.layer)


def main(snakemake: "snakemake") -> None:
    settings, name = snakemake.params.settings, snakemake.wildcards.model
    intervals = Intervals(settings["confidence"], settings["resamples"], snakemake.params.seed)
    ablation = Ablation(snakemake)
    run = windows(ablation.n_layers, snakemake.params.windows["lengths"])
    scores = pd.concat([ablation.scores(window) for window in run], ignore_index=True)
    window_map(name, scores, intervals).to_parquet(snakemake.output.map, index=False)
    recipes = {"none": json.loads(Path(snakemake.input.recipe).read_text())}
    study = snakemake.params.study
    summary = windows_summary(study, name, scores, ablation.n_layers, recipes, intervals)
    summary.to_parquet(snakemake.output.summary, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
