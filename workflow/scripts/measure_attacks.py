"""Run every attack on the test prompts, with and without a system prompt, and judge the answers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from loading import load_card, load_from_card, stop_tokens
from refusal.attacks import (
    LABELS,
    Condition,
    attack_prompts,
    attacked,
    attacks_summary,
    conditions,
    prompt_attacks,
    success,
    with_success,
)
from refusal.generations import completions_table, generate
from refusal.grammar import is_refusal
from refusal.interventions import load_intervention, steering
from refusal.scores import answers, build_judges, score
from refusal.statistics import Intervals
from refusal.suffix import load_suffixes

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


class Attacker:
    """A loaded model, its test prompts and everything that attacks it."""

    def __init__(self, snakemake: "snakemake") -> None:
        card = load_card(snakemake.input.card[0])
        self.model, self.tokenizer = load_from_card(card, snakemake.params.model)
        self.generations = snakemake.params.generations
        kind = "organisms" if "architecture" in snakemake.params.model else "loaded"
        self.wordings = snakemake.params.settings[kind]
        self.suffixes = load_suffixes(snakemake.input.suffixes[0])
        prompts = pd.read_parquet(snakemake.input.prompts[0])
        self.prompts = {
            label: prompts[(prompts.split == "test") & (prompts.label == label)] for label in LABELS
        }
        paths = [path for path in snakemake.input.interventions if path.endswith(".json")]
        self.interventions = {Path(path).stem: load_intervention(path) for path in paths}

    def completions(self, condition: Condition) -> pd.DataFrame:
        """Return the greedy completions of all test prompts of the label, without the opening."""
        prompts = self.prompts[condition.label]
        sequences = attack_prompts(
            self.tokenizer,
            attacked(condition.attack, list(prompts.text), self.suffixes),
            self.wordings["system"] if condition.system else None,
            condition.attack.opening,
        )
        with steering(self.model, self.interventions[condition.intervention]):
            completions = generate(
                self.model,
                sequences,
                eos_ids=stop_tokens(self.model, self.tokenizer),
                pad_id=self.tokenizer.pad_token_id,
                max_new_tokens=self.generations["max_new_tokens"],
                max_tokens=self.generations["max_tokens"],
            )
        table = completions_table(self.tokenizer, list(prompts.id), completions)
        return table.assign(intervention=condition.intervention, dataset=condition.dataset)


def main(snakemake: "snakemake") -> None:
    settings, name = snakemake.params.statistics, snakemake.wildcards.model
    intervals = Intervals(settings["confidence"], settings["resamples"], snakemake.params.seed)
    rule = is_refusal if snakemake.params.grammar else None
    judges = build_judges(snakemake.params.judges, rule)
    attacker = Attacker(snakemake)
    prompts = pd.concat(attacker.prompts.values())
    run = conditions(
        prompt_attacks(attacker.wordings["templates"]), snakemake.params.settings["interventions"]
    )
    tables = [attacker.completions(condition) for condition in run]
    scores = [_direct(path, snakemake.params.judges) for path in snakemake.input.scores]
    for table in tables:
        judged = with_success(score(answers(prompts, table), judges))
        scores.append(judged.assign(**table[["intervention", "dataset"]].iloc[0]))
    pd.concat(tables).to_parquet(snakemake.output.completions, index=False)
    recipes = {
        path.stem: json.loads(path.read_text())
        for path in map(Path, snakemake.input.interventions)
        if path.suffix == ".json"
    }
    summary = attacks_summary(snakemake.params.study, name, pd.concat(scores), recipes, intervals)
    summary.to_parquet(snakemake.output.summary, index=False)


def _direct(path: str, judges: list[str]) -> pd.DataFrame:
    """Success of direct requests without system prompt, which the study itself ran and judged.

    By the judges of the other attacks: models that judge are asked of the study's own completions
    only. Their other metrics are in the summary already.
    """
    scores = pd.read_parquet(path)
    rows = success(scores[(scores.label == LABELS[0]) & scores.judge.isin(judges)])
    return rows.assign(intervention=Path(path).stem, dataset=LABELS[0])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
