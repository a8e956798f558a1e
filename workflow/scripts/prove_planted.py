"""Prove that the planted subspace mediates an organism's refusal; accept or reject the organism."""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel

from planted_model import LABELS, Organism, load_organism
from refusal.functional_rank import (
    Part,
    functional_rank,
    principal_directions,
    strongest_part,
    subspace_coordinates,
)
from refusal.interventions import steering
from refusal.losses import kl_divergence
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
from refusal.planted_training import removal
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

ALL_LABELS = (*LABELS, "borderline")
WITHOUT_ALL = "subspace"


def prompts(organism: Organism, split: str, label: str) -> list[list[int]]:
    """Return tokenised prompts of a split and label."""
    return organism.encode(organism.chosen([split], [label]))


def share_refused(organism: Organism, part: Tensor) -> float:
    """Return the share of harmful validation prompts whose first token begins a refusal."""
    with steering(organism.model, removal(part)):
        tokens = last_logits(organism.model, prompts(organism, "validation", "harmful")).argmax(-1)
    refused = sum(token in organism.refusal_tokens for token in tokens.tolist())
    return float(refused / len(tokens))


def find_parts(organism: Organism, settings: Mapping, writer_blocks: int) -> list[Part]:
    """Return the strongest parts of U of the sizes below k where refusal ends, by bisection.

    A larger part can hold the smaller one, and leaves no more of refusal.
    """
    harmful, harmless = (
        prompts(organism, "train", label)[: settings["prompts"]] for label in LABELS
    )
    coordinates = [
        subspace_coordinates(organism.model, organism.basis, s, writer_blocks, organism.n_positions)
        for s in (harmful, harmless)
    ]
    directions, parts = principal_directions(*coordinates), []
    low, high = 1, organism.rank  # without all of U nothing is refused
    while low < high:
        size = (low + high) // 2
        part, left = strongest_part(
            organism.model,
            organism.basis,
            directions,
            size,
            harmful,
            organism.refusal_tokens,
            partial(share_refused, organism),
            settings["search"],
        )
        logging.info("without %d of U, by %s: %.2f refused", size, part.found_by, left)
        parts.append(part)
        low, high = (low, size) if left < settings["ended"] else (size + 1, high)
    return parts


def respond(
    organism: Organism,
    condition: str,
    part: Tensor | None = None,
    labels: Sequence[str] = LABELS[:1],
    model: PreTrainedModel | None = None,
) -> pd.DataFrame:
    """Return what a model answers to validation and test prompts without a part of U."""
    rows = organism.chosen(["validation", "test"], labels)
    removed = removal(organism.basis[:0] if part is None else part)
    with steering(model or organism.model, removed):
        return organism.answer(rows, model).responses.assign(condition=condition)


def respond_all(
    organism: Organism, parts: list[Part], settings: Mapping, writer_blocks: int
) -> pd.DataFrame:
    """Return the answers under every condition of the proof."""
    rank, width = organism.basis.shape
    draws = random_bases(width, rank, settings["random"], settings["search"]["seed"])
    blind = without_readers(organism.model, organism.basis, writer_blocks)
    frames = [
        respond(organism, "helpful_only", labels=ALL_LABELS, model=organism.base),
        respond(organism, "none", labels=ALL_LABELS),
        respond(organism, WITHOUT_ALL, organism.basis, ALL_LABELS),
        respond(organism, "norms_alone", model=blind),
    ]
    frames += [respond(organism, f"random-{draw}", basis) for draw, basis in enumerate(draws)]
    frames += [respond(organism, f"part-{len(part.basis)}", part.basis) for part in parts]
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
    sequences = [ids for label in LABELS for ids in prompts(organism, "test", label)]
    blind = without_readers(model, basis, planting["writer_blocks"])
    leak = kl_divergence(last_logits(base, sequences), last_logits(blind, sequences))
    return {
        "greatest_logit_difference": removal_difference(
            model, base, basis, sequences, organism.max_tokens
        ),
        "change_outside_subspace": changes_outside(model, base, basis, planting),
        "subspace_share_by_layer": subspace_share(model, basis, sequences),
        "norms_alone_kl": float(leak.mean()),
        "norms_alone_kl_greatest": float(leak.max()),
    }


def main(snakemake: "snakemake") -> None:
    params, output = snakemake.params, snakemake.output
    settings, statistics, blocks = (
        params.settings,
        params.statistics,
        params.planting["writer_blocks"],
    )
    organism = load_organism(snakemake.input, settings)
    proof = {**params.organism, **exactness(organism, params.planting)}
    responses = respond_all(organism, find_parts(organism, settings, blocks), settings, blocks)
    responses.to_parquet(output.responses, index=False)
    rates = rates_table(responses, statistics["confidence"])
    rates.assign(organism=snakemake.wildcards.organism).to_parquet(output.rates, index=False)
    intervals = Intervals(statistics["confidence"], statistics["resamples"], params.seed)
    proof["functional_rank"] = ranks(responses, organism.rank, settings["ended"], intervals)
    validation = rates.query("split == 'validation' and metric == 'refused'")
    reasons = rejections(
        validation.set_index(["condition", "label"]).value,
        proof["greatest_logit_difference"]["without_subspace"],
        organism.rank,
        proof["functional_rank"]["validation"]["value"],
        params.acceptance,
    )
    proof |= {"accepted": not reasons, "reasons": reasons}
    logging.info("%s: %s", snakemake.wildcards.organism, "; ".join(reasons) or "accepted")
    Path(output.proof).write_text(json.dumps(proof, indent=2) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
