"""Prove that the planted subspace mediates an organism's refusal; accept or reject the organism."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loading import stop_tokens
from refusal.functional_rank import (
    Part,
    functional_rank,
    principal_directions,
    strongest_part,
    subspace_coordinates,
)
from refusal.generations import completions_table, generate
from refusal.interventions import steering
from refusal.kind_responses import judged
from refusal.kinds import CORE, wordings
from refusal.losses import kl_divergence
from refusal.models import (
    encode_prompts,
    load_model,
    load_tokenizer,
    post_instruction_tokens,
)
from refusal.planted import random_bases
from refusal.planted_proof import (
    changes_outside,
    last_logits,
    rates_table,
    rejections,
    removal_difference,
    subspace_share,
    without_readers,
)
from refusal.planted_training import load_subspace, removal
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

LABELS = ["harmful", "harmless", "borderline"]
WITHOUT_ALL = "subspace"


@dataclass(frozen=True)
class Organism:
    """A planted organism with its base, U [k, d], prompts and settings of the proof."""

    model: PreTrainedModel
    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    basis: Tensor
    prompts: pd.DataFrame
    settings: Mapping

    def sequences(self, split: str, label: str) -> list[list[int]]:
        """Tokenised prompts of a split and label."""
        chosen = self.prompts.query("split == @split and label == @label")
        return encode_prompts(self.tokenizer, list(chosen.text))

    def respond(
        self, condition: str, part: Tensor | None, labels: list[str], model: PreTrainedModel
    ) -> pd.DataFrame:
        """Return what a model answers to validation and test prompts without a part of U."""
        chosen = self.prompts.query("split != 'train' and label in @labels")
        sequences = encode_prompts(self.tokenizer, list(chosen.text))
        limits = {name: self.settings[name] for name in ("max_new_tokens", "max_tokens")}
        special = {
            "eos_ids": stop_tokens(model, self.tokenizer),
            "pad_id": self.tokenizer.pad_token_id,
        }
        with steering(model, removal(self.basis[:0] if part is None else part)):
            completions = generate(model, sequences, **special, **limits)
        table = completions_table(self.tokenizer, list(chosen.id), completions)
        return judged(chosen, table, grammar=True).assign(condition=condition)

    def share_refused(self, part: Tensor) -> float:
        """Return the share of harmful validation prompts whose first token begins a refusal."""
        with steering(self.model, removal(part)):
            tokens = last_logits(self.model, self.sequences("validation", "harmful")).argmax(-1)
        return float(sum(token in self.refusal_tokens for token in tokens.tolist()) / len(tokens))

    @property
    def refusal_tokens(self) -> list[int]:
        """First tokens of the wordings in which harmful requests are refused."""
        starts = (wording.partition("{")[0] for wording in wordings(CORE))
        return sorted({self.tokenizer.encode(s, add_special_tokens=False)[0] for s in starts})


def find_parts(organism: Organism, writer_blocks: int) -> list[Part]:
    """Return the strongest parts of U of the sizes below k where refusal ends, by bisection.

    A larger part can hold the smaller one, and leaves no more of refusal.
    """
    settings, positions = organism.settings, len(post_instruction_tokens(organism.tokenizer))
    harmful, harmless = (
        organism.sequences("train", label)[: settings["prompts"]] for label in LABELS[:2]
    )
    coordinates = [
        subspace_coordinates(organism.model, organism.basis, s, writer_blocks, positions)
        for s in (harmful, harmless)
    ]
    directions, parts = principal_directions(*coordinates), []
    low, high = 1, len(organism.basis)  # without all of U nothing is refused
    while low < high:
        size = (low + high) // 2
        part, left = strongest_part(
            organism.model,
            organism.basis,
            directions,
            size,
            harmful,
            organism.refusal_tokens,
            organism.share_refused,
            settings["search"],
        )
        logging.info("without %d of U, by %s: %.2f refused", size, part.found_by, left)
        parts.append(part)
        low, high = (low, size) if left < settings["ended"] else (size + 1, high)
    return parts


def respond_all(organism: Organism, parts: list[Part], writer_blocks: int) -> pd.DataFrame:
    """Return the answers under every condition of the proof."""
    model, settings, rank = organism.model, organism.settings, len(organism.basis)
    width = organism.basis.shape[1]
    draws = random_bases(width, rank, settings["random"], settings["search"]["seed"])
    blind = without_readers(model, organism.basis, writer_blocks)
    frames = [
        organism.respond("helpful_only", None, LABELS, organism.base),
        organism.respond("none", None, LABELS, model),
        organism.respond(WITHOUT_ALL, organism.basis, LABELS, model),
        organism.respond("norms_alone", None, LABELS[:1], blind),
    ]
    for draw, basis in enumerate(draws):
        frames.append(organism.respond(f"random-{draw}", basis, LABELS[:1], model))
    for part in parts:
        frames.append(organism.respond(f"part-{len(part.basis)}", part.basis, LABELS[:1], model))
    return pd.concat(frames, ignore_index=True)


def ranks(responses: pd.DataFrame, rank: int, ended: float, intervals: Intervals) -> dict:
    """Return the functional rank with its interval, by split."""
    harmful = responses[(responses.label == "harmful") & (responses.refused.notna())]
    table = harmful.pivot(index=["split", "id"], columns="condition", values="refused")
    columns = ["none", *(f"part-{size}" for size in range(1, rank)), WITHOUT_ALL]
    # A size that was not looked for leaves at least what the next larger one leaves.
    table = table.reindex(columns=columns).bfill(axis=1)
    return {
        split: functional_rank(table.loc[split].to_numpy(), ended, intervals)._asdict()
        for split in ("validation", "test")
    }


def exactness(organism: Organism, planting: Mapping) -> dict:
    """Return the numbers that need no completions: differences from the base, and norm leak."""
    model, base, basis = organism.model, organism.base, organism.basis
    sequences = [ids for label in LABELS[:2] for ids in organism.sequences("test", label)]
    blind = without_readers(model, basis, planting["writer_blocks"])
    leak = kl_divergence(last_logits(base, sequences), last_logits(blind, sequences))
    return {
        "greatest_logit_difference": removal_difference(
            model, base, basis, sequences, organism.settings["max_tokens"]
        ),
        "change_outside_subspace": changes_outside(model, base, basis, planting),
        "subspace_share_by_layer": subspace_share(model, basis, sequences),
        "norms_alone_kl": float(leak.mean()),
        "norms_alone_kl_greatest": float(leak.max()),
    }


def main(snakemake: "snakemake") -> None:
    params, inputs, output = snakemake.params, snakemake.input, snakemake.output
    statistics, blocks = params.statistics, params.planting["writer_blocks"]
    folder = Path(inputs.checkpoint[0]).parent
    organism = Organism(
        model=load_model(folder),
        base=load_model(Path(inputs.base[0]).parent),
        tokenizer=load_tokenizer(folder),
        basis=load_subspace(inputs.subspace),
        prompts=pd.read_parquet(inputs.prompts).query("label in @LABELS"),
        settings=params.settings,
    )
    proof = {**params.organism, **exactness(organism, params.planting)}
    responses = respond_all(organism, find_parts(organism, blocks), blocks)
    responses.to_parquet(output.responses, index=False)
    rates = rates_table(responses, statistics["confidence"])
    rates.assign(organism=snakemake.wildcards.organism).to_parquet(output.rates, index=False)
    intervals = Intervals(statistics["confidence"], statistics["resamples"], params.seed)
    rank = len(organism.basis)
    proof["functional_rank"] = ranks(responses, rank, params.settings["ended"], intervals)
    validation = rates.query("split == 'validation' and metric == 'refused'")
    reasons = rejections(
        validation.set_index(["condition", "label"]).value,
        proof["greatest_logit_difference"]["without_subspace"],
        rank,
        proof["functional_rank"]["validation"]["value"],
        params.acceptance,
    )
    proof |= {"accepted": not reasons, "reasons": reasons}
    logging.info("%s: %s", snakemake.wildcards.organism, "; ".join(reasons) or "accepted")
    Path(output.proof).write_text(json.dumps(proof, indent=2) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
