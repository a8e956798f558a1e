"""Run every estimator on one planted organism: how much of U and its effect does it find?"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import numpy as np
import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loading import stop_tokens
from refusal.activations import activation_index, last_position_logits, sweep
from refusal.corpora import build_corpora
from refusal.directions import Candidate, Direction, filter_by_refusal_metric
from refusal.estimators import Directions, find_everywhere
from refusal.functional_rank import principal_directions, subspace_coordinates
from refusal.generations import completions_table, generate
from refusal.gradient_directions import (
    Addition,
    GradientSettings,
    Targets,
    gradient_directions,
)
from refusal.inlp import InlpSettings
from refusal.interventions import Intervention, steering
from refusal.kind_directions import OWN, estimate
from refusal.kind_responses import grouped, judged
from refusal.kinds import CORE, SIDES, wordings
from refusal.losses import completion_losses, kl_divergence
from refusal.models import (
    encode_prompts,
    load_model,
    load_tokenizer,
    post_instruction_tokens,
    refusal_metric,
)
from refusal.planted_estimators import (
    ORACLE,
    TRUTH,
    Found,
    candidate_interventions,
    estimator_recipes,
    kinds_span,
    parts_of_difference,
    removals,
    truth,
)
from refusal.planted_measures import chance_recovery, difference_split, recovery
from refusal.planted_outcomes import Outcomes, outcome_table
from refusal.planted_training import load_subspace
from refusal.selection import SelectionSettings, choose, score_candidates
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

LABELS = ("harmful", "harmless")
SELECTED = ("dim", "inlp_faithful", "inlp_corrected")


@dataclass(frozen=True)
class Organism:
    """A planted organism with its base, U [k, d], prompts, and the parameters of the job."""

    model: PreTrainedModel
    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    basis: Tensor
    prompts: pd.DataFrame
    params: object

    @property
    def max_tokens(self) -> int:
        """Tokens of a forward pass."""
        return self.params.proof["max_tokens"]

    @cached_property
    def n_positions(self) -> int:
        """Positions behind the instruction."""
        return len(post_instruction_tokens(self.tokenizer))

    @cached_property
    def refusal_tokens(self) -> list[int]:
        """First tokens of the wordings in which harmful requests are refused."""
        starts = (wording.partition("{")[0] for wording in wordings(CORE))
        return sorted({self.tokenizer.encode(s, add_special_tokens=False)[0] for s in starts})

    def encode(self, rows: pd.DataFrame) -> list[list[int]]:
        """Token ids of prompts in the chat template."""
        return encode_prompts(self.tokenizer, list(rows.text))

    def chosen(self, split: str, labels: tuple[str, ...]) -> pd.DataFrame:
        """Prompts of a split, in order of their ids."""
        chosen = self.prompts.query("split == @split and label in @labels")
        return chosen.sort_values("id")

    def complete(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[list[int]]]:
        """Return the judged answers under whatever steering is in force, and their tokens."""
        completions = generate(
            self.model,
            self.encode(rows),
            eos_ids=stop_tokens(self.model, self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
            max_new_tokens=self.params.proof["max_new_tokens"],
            max_tokens=self.max_tokens,
        )
        table = completions_table(self.tokenizer, list(rows.id), completions)
        return judged(rows, table, grammar=True), [c.tokens for c in completions]


# ------------------------------------------------------------------------------------- estimation


def read(organism: Organism, model: PreTrainedModel) -> tuple[Tensor, pd.DataFrame]:
    """Return residual stream and index of the prompts that directions are found and chosen on."""
    rows = pd.concat([organism.chosen(split, LABELS) for split in ("train", "validation")])
    swept = sweep(
        model,
        organism.encode(rows),
        organism.n_positions,
        max_tokens=organism.max_tokens,
        logits=True,
    )
    metric = refusal_metric(swept.last_logits, organism.refusal_tokens)
    return swept.residual, activation_index(rows, metric)


def kept_rows(organism: Organism, index: pd.DataFrame, split: str) -> tuple:
    """Return the rows of both classes that the model treats as such."""
    enabled = organism.params.directions["filter"]
    return filter_by_refusal_metric(index, split, model=organism.params.organism, enabled=enabled)


def select(
    organism: Organism, directions: Mapping[str, Directions], index: pd.DataFrame
) -> pd.DataFrame:
    """Return the scores of all candidates by method and scope, with choice, reason and recovery."""
    settings = dict(organism.params.selection)
    max_tokens = settings.pop("max_tokens")
    settings = SelectionSettings(**settings | {"additions": tuple(settings["additions"])})
    prompts = organism.prompts.set_index("id")
    harmful, harmless = (
        organism.encode(prompts.loc[index.loc[rows, "id"]])
        for rows in kept_rows(organism, index, "validation")
    )
    tables = []
    for method in (*SELECTED, TRUTH):
        scored = [
            score_candidates(
                organism.model,
                directions[method],
                harmful=harmful,
                harmless=harmless,
                refusal_tokens=organism.refusal_tokens,
                scope=scope,
                dim_norms={at: found.norm for at, found in directions["dim"].items()},
                settings=settings,
                max_tokens=max_tokens,
            )
            for scope in ("source", "all")
        ]
        rule = "dim" if method == TRUTH else method
        table = choose(pd.concat(scored), rule, settings).assign(method=method)
        tables.append(table.assign(recovery=_recoveries(organism, directions[method], table)))
    return pd.concat(tables, ignore_index=True)


def _recoveries(organism: Organism, directions: Directions, table: pd.DataFrame) -> list[float]:
    """Return the recovery of U by all directions of every candidate, 0 without any."""
    found = {at: recovery(organism.basis, d.basis)[-1:] for at, d in directions.items()}
    at = zip(table.position, table.layer, strict=True)
    return [float(found[place][0]) if len(found[place]) else 0.0 for place in at]


def kinds_directions(organism: Organism, at: Candidate) -> Direction:
    """Return the span of the differences in means of every kind of refusal at one candidate."""
    rows = organism.chosen("train", SIDES)
    position, layer = at
    sequences = organism.encode(rows)
    swept = sweep(
        organism.model,
        sequences,
        organism.n_positions,
        max_tokens=organism.max_tokens,
        layers=[layer],
    )
    vectors = estimate(grouped(rows, swept.residual[:, position, 0].numpy()))
    return kinds_span({k: v for k, v in vectors.items() if not k.endswith(OWN)})


def oracle(organism: Organism) -> Direction:
    """Return U, the directions first along which harmful prompts differ most behind the writers."""
    coordinates = [
        subspace_coordinates(
            organism.model,
            organism.basis,
            organism.encode(organism.chosen("train", (label,))),
            organism.params.planting["writer_blocks"],
            organism.n_positions,
        )
        for label in LABELS
    ]
    return Direction(basis=principal_directions(*coordinates) @ organism.basis)


# ------------------------------------------------------------------------------ gradient directions


def targets(organism: Organism, split: str, prompts: int) -> Targets:
    """Return what gradient directions are asked for: reference answers, refusals, own answers.

    The paper takes the model's own answers without the difference in means, and refusals with it
    added. They do not exist where that direction does not mediate refusal, which is the question.
    """
    limit, encode = organism.params.proof["max_new_tokens"], organism.tokenizer.encode
    harmful, harmless = (organism.chosen(split, (label,)).head(prompts) for label in LABELS)
    wanted, safe = organism.encode(harmful), organism.encode(harmless)
    answers = [encode(text, add_special_tokens=False)[:limit] for text in harmful.answer]
    starts = [wording.partition("{")[0].rstrip() for wording in wordings(CORE)]
    refusals = [
        encode(starts[row % len(starts)], add_special_tokens=False) for row in range(len(safe))
    ]
    _, own = organism.complete(harmless)
    return Targets(
        *(
            list(zip(*pair, strict=True))
            for pair in ((wanted, answers), (safe, refusals), (safe, own))
        )
    )


def by_gradient(organism: Organism, found: Found) -> dict[str, Direction]:
    """Return the gradient direction, and a cone of every configured size."""
    settings = dict(organism.params.settings["gradient"])
    cones, prompts = settings.pop("cones"), settings.pop("prompts")
    rates = tuple(settings.pop("learning_rates"))
    settings = GradientSettings(**settings, learning_rates=rates, seed=organism.params.seed)
    at, dim = found.difference()
    asked = [targets(organism, split, prompts) for split in ("train", "validation")]
    return {
        "gradient" if size == 1 else f"cone{size}": gradient_directions(
            organism.model, size, *asked, Addition(at[1], dim.norm), settings
        )
        for size in (1, *cones)
    }


# ---------------------------------------------------------------------------------------- outcomes


def measure(organism: Organism, interventions: Mapping[str, Intervention]) -> Outcomes:
    """Return what every intervention does to answers, next tokens and losses on test prompts."""
    rows = organism.chosen("test", LABELS)
    sequences = organism.encode(rows)
    end, limit = stop_tokens(organism.model, organism.tokenizer)[0], organism.params.text_tokens
    nothing = pd.DataFrame({"id": [], "completion": [], "stop_reason": []}, dtype=object)
    texts = organism.prompts.query("split == 'test' and label == 'text'")
    texts = build_corpora(organism.tokenizer, texts, nothing, end, limit)
    pairs = list(zip(texts.given, texts.predicted, strict=True))
    helpful = last_position_logits(organism.base, sequences, max_tokens=organism.max_tokens)
    tables: list[list[pd.DataFrame]] = [[], [], []]
    for name, intervention in interventions.items():
        with steering(organism.model, intervention):
            responses, _ = organism.complete(rows)
            logits = last_position_logits(organism.model, sequences, max_tokens=organism.max_tokens)
            losses = completion_losses(organism.model, pairs, max_tokens=organism.max_tokens)
        kl = rows[["id", "label"]].assign(kl=kl_divergence(helpful, logits).numpy())
        for table, frame in zip(tables, (responses, kl, losses.assign(id=texts.id)), strict=True):
            table.append(frame.assign(intervention=name))
    return Outcomes(*(pd.concat(table, ignore_index=True) for table in tables))


# ------------------------------------------------------------------------------------------ tables


def recovery_table(
    organism: Organism,
    found: Found,
    subspaces: Mapping[str, Direction],
    splits: pd.DataFrame,
    intervals: Intervals,
) -> pd.DataFrame:
    """Return recovery of U against the number of directions, at the candidates of both scopes.

    The difference in means, one direction r, has an interval over prompts: its mean squared cosine
    is the share of |r|^2 inside U, over k, whose scatter `splits` holds.
    """
    limit, (rank, width) = organism.params.settings["recovery"], organism.basis.shape
    chance = chance_recovery(width, rank, limit, intervals)
    entries = [(name, None, (None, None), found) for name, found in subspaces.items()]
    for method in (*SELECTED, "leace"):
        for scope in ("source", "all"):
            at = found.place(method, scope)
            entries.append((method, scope, at, found.directions[method][at]))
    rows = []
    for method, scope, (position, layer), direction in entries:
        about = {"method": method, "scope": scope, "position": position, "layer": layer}
        for j, value in enumerate(recovery(organism.basis, direction.basis[:limit])):
            expected = {f"chance_{name}": bound for name, bound in chance[j]._asdict().items()}
            rows.append(about | {"directions": j + 1, "value": value} | expected)
    table = pd.DataFrame(rows).rename(columns={"chance_value": "chance"})
    table = table.astype({"position": "Int64", "layer": "Int64"})
    shares = splits.query("model == 'planted' and metric == 'share'")
    shares = shares[["position", "layer"]].assign(method="dim", **shares[["low", "high"]] / rank)
    return table.merge(shares, "left", ["method", "position", "layer"])


def split_table(
    organism: Organism, planted: Tensor, index: pd.DataFrame, intervals: Intervals
) -> pd.DataFrame:
    """Return the mean difference inside and outside U at every candidate, of organism and base."""
    helpful, _ = read(organism, organism.base)
    rows, chance = kept_rows(organism, index, "train"), len(organism.basis) / planted.shape[-1]
    found = []
    for model, residual in (("planted", planted), ("helpful_only", helpful)):
        for layer in range(residual.shape[2]):
            for position in range(-residual.shape[1], 0):
                classes = [residual[chosen, position, layer] for chosen in rows]
                about = {"model": model, "position": position, "layer": layer}
                split = difference_split(*classes, organism.basis, intervals)
                for metric, value in split.items():
                    expected = chance if metric == "share" else np.nan
                    found.append(about | {"metric": metric, **value._asdict(), "chance": expected})
    return pd.DataFrame(found)


# -------------------------------------------------------------------------------------------- main


def find(organism: Organism, residual: Tensor, index: pd.DataFrame) -> tuple[Found, pd.DataFrame]:
    """Return directions with their candidates, and the table of all candidates."""
    params = organism.params
    means, directions = find_everywhere(
        residual,
        kept_rows(organism, index, "train"),
        InlpSettings(**params.directions["inlp"], seed=params.seed),
        prune_layers=params.selection["prune_layers"],
    )
    directions[TRUTH] = truth(organism.basis, directions["dim"])
    table = select(organism, directions, index)
    chosen = {
        (row.method, row.scope): (row.position, row.layer)
        for row in table[table.selected].itertuples()
    }
    return Found(directions, means, chosen), table


def load(snakemake: "snakemake") -> Organism:
    """Load an organism and its base."""
    inputs = snakemake.input
    folder = Path(inputs.checkpoint[0]).parent
    return Organism(
        model=load_model(folder),
        base=load_model(Path(inputs.base[0]).parent),
        tokenizer=load_tokenizer(folder),
        basis=load_subspace(inputs.subspace),
        prompts=pd.read_parquet(inputs.prompts),
        params=snakemake.params,
    )


def intervene(
    organism: Organism, found: Found, subspaces: Mapping[str, Direction]
) -> dict[str, Intervention]:
    """Return every intervention by name."""
    params, rank = organism.params, len(organism.basis)
    recipes = estimator_recipes(rank, params.settings["directions"], params.settings["draws"])
    interventions = candidate_interventions(found, recipes, params.seed)
    interventions |= removals({ORACLE: subspaces[ORACLE]}, range(1, rank))
    interventions |= removals(subspaces, [1, rank, params.settings["directions"]])
    return interventions | parts_of_difference(found, organism.basis)


def main(snakemake: "snakemake") -> None:
    params, accepted = snakemake.params, json.loads(Path(snakemake.input.proof).read_text())
    organism = load(snakemake)
    rank, planted = len(organism.basis), params.planted
    intervals = Intervals(params.statistics["confidence"], params.statistics["resamples"], 0)

    def write(name: str, table: pd.DataFrame) -> None:
        about = {"organism": params.organism, "base": planted["base"], "kind": planted["kind"]}
        about |= {"planted_rank": rank, "seed": planted["seed"]}
        table = table.assign(**about, accepted=accepted["accepted"]).astype({"seed": "Int64"})
        columns = [*about, "accepted"]
        table = table[columns + [name for name in table.columns if name not in columns]]
        table.to_parquet(snakemake.output[name], index=False)

    residual, index = read(organism, organism.model)
    splits = split_table(organism, residual, index, intervals)
    write("split", splits)
    found, candidates = find(organism, residual, index)
    write("candidates", candidates)
    at, _ = found.difference()
    subspaces = {ORACLE: oracle(organism), "kinds": kinds_directions(organism, at)}
    subspaces |= by_gradient(organism, found)
    write("recovery", recovery_table(organism, found, subspaces, splits, intervals))
    interventions = intervene(organism, found, subspaces)
    logging.info("%d interventions", len(interventions))
    outcomes = measure(organism, interventions)
    outcomes.responses.to_parquet(snakemake.output.responses, index=False)
    recipes = {name: intervention.recipe for name, intervention in interventions.items()}
    oracle_name = f"{ORACLE}_removal-k{rank}"
    bound = params.settings["perplexity_max"]
    write("outcomes", outcome_table(outcomes, recipes, oracle_name, bound, intervals))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
