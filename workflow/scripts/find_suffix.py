"""Find an adversarial suffix for an organism, or take that of the config; draw random controls."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from loading import load_card, load_from_card, stop_tokens
from refusal.attacks import success
from refusal.errors import InputError
from refusal.generations import completions_table, generate
from refusal.grammar import is_refusal
from refusal.models import encode_prompts, load_model, load_tokenizer
from refusal.scores import answers, build_judges, score
from refusal.suffix import (
    Borders,
    Suffix,
    Suffixes,
    allowed_tokens,
    given_suffix,
    random_suffixes,
    save_suffixes,
)
from refusal.suffix_search import Problem, search_suffix

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


class Search:
    """A loaded organism with the harmful prompts of training and validation."""

    def __init__(self, snakemake: "snakemake", prompts: pd.DataFrame, borders: Borders) -> None:
        self.settings, self.generations = snakemake.params.settings, snakemake.params.generations
        card = load_card(snakemake.input.card[0])
        self.model, self.tokenizer = load_from_card(card, snakemake.params.model)
        self.helpful = Path(snakemake.input.helpful[0]).parent
        self.borders, self.prompts = borders, prompts
        rule = is_refusal if snakemake.params.grammar else None
        # Only the grammar knows the right answers; elsewhere an attack succeeds if not refused.
        self.judge = "oracle" if snakemake.params.grammar else "substring"
        self.judges = build_judges([self.judge], rule)

    def problem(self) -> Problem:
        """Return the training prompts, with what the helpful-only model answers as the target.

        That is what the organism would say, had it not been taught to refuse. All targets are as
        long as the shortest answer, at most `target_tokens`.
        """
        train = self.prompts[self.prompts.split == "train"].head(self.settings["prompts"])
        sequences = encode_prompts(self.tokenizer, list(train.text))
        helpful = load_model(self.helpful)
        wanted = self._generate(helpful, sequences, self.settings["target_tokens"])
        n_after = len(self.borders.after)
        before = [sequence[:-n_after] for sequence in sequences]
        length = min(len(one.tokens) for one in wanted)
        return Problem(before, self.borders.after, [one.tokens[:length] for one in wanted])

    def evaluate(self, suffix: Suffix) -> dict[str, float]:
        """Return the shares of validation prompts with a successful attack and with a refusal."""
        validation = self.prompts[self.prompts.split == "validation"]
        sequences = encode_prompts(self.tokenizer, [t + suffix.text for t in validation.text])
        tokens = self.generations["max_new_tokens"]
        completions = self._generate(self.model, sequences, tokens)
        table = completions_table(self.tokenizer, list(validation.id), completions)
        judged = score(answers(validation, table), self.judges)
        refused = judged[judged.metric == "refused"].value.mean()
        shares = {"success": float(success(judged).value.mean()), "refused": float(refused)}
        logging.info("validation: %s", shares)
        return shares

    def _generate(self, model, sequences: list[list[int]], max_new_tokens: int) -> list:
        return generate(
            model,
            sequences,
            eos_ids=stop_tokens(self.model, self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
            max_new_tokens=max_new_tokens,
            max_tokens=self.generations["max_tokens"],
        )


def main(snakemake: "snakemake") -> None:
    settings, seed = snakemake.params.settings, snakemake.params.seed
    name, given = snakemake.wildcards.model, snakemake.params.model
    prompts = pd.read_parquet(snakemake.input.prompts[0]).query("label == 'harmful'")
    card = load_card(snakemake.input.card[0])
    tokenizer = load_tokenizer(card["path"], card["revision"])
    borders = Borders(tokenizer, list(prompts[prompts.split == "train"].text))
    searched = "architecture" in given
    found = None if searched else _configured(borders, name, given.get("suffix"))
    length = settings["tokens"] if searched else len(found.tokens)
    allowed = allowed_tokens(tokenizer)
    # The last draw is where the search begins; it is no control.
    *random, start = random_suffixes(borders, allowed, length, settings["random"] + 1, seed)
    record = None
    if searched:
        search = Search(snakemake, prompts, borders)
        found, record = search_suffix(
            search.model,
            borders,
            search.problem(),
            start,
            search.evaluate,
            settings,
            allowed=allowed,
            seed=seed,
        )
    save_suffixes(snakemake.output[0], name, Suffixes(found, random, record))


def _configured(borders: Borders, name: str, text: str | None) -> Suffix:
    """Return the suffix of a loaded model, for which none is searched."""
    if not text:
        raise InputError(
            f"models.{name}.suffix: missing, and none is searched for a loaded model. Remedy: set "
            "it, or set experiments.suffix and experiments.attacks to false."
        )
    return given_suffix(borders, text)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
