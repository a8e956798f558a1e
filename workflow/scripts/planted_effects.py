"""What every intervention does to a planted organism: answers, next tokens, losses."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from loading import stop_tokens
from planted_model import Organism
from refusal.activations import last_position_logits
from refusal.corpora import build_corpora
from refusal.directions import Direction
from refusal.interventions import Intervention, steering
from refusal.losses import completion_losses, kl_divergence
from refusal.planted_estimators import (
    ORACLE,
    Found,
    candidate_interventions,
    estimator_recipes,
    parts_of_difference,
    removals,
)
from refusal.planted_outcomes import Outcomes

if TYPE_CHECKING:
    from snakemake.iocontainers import Params


def intervene(
    organism: Organism, found: Found, subspaces: Mapping[str, Direction], params: "Params"
) -> dict[str, Intervention]:
    """Return every intervention by name."""
    rank, most = organism.rank, params.settings["directions"]
    recipes = estimator_recipes(rank, most, params.settings["draws"])
    interventions = candidate_interventions(found, recipes, params.seed)
    interventions |= removals({ORACLE: subspaces[ORACLE]}, range(1, rank))
    interventions |= removals(subspaces, [1, rank, most])
    return interventions | parts_of_difference(found, organism.basis)


def measure(
    organism: Organism, interventions: Mapping[str, Intervention], text_tokens: int
) -> Outcomes:
    """Return what every intervention does to answers, next tokens and losses on test prompts.

    `text_tokens`: tokens of a plain text, at most.
    """
    rows, texts = organism.chosen(["test"]), plain_texts(organism, text_tokens)
    pairs = list(zip(texts.given, texts.predicted, strict=True))
    helpful = last_position_logits(
        organism.base, organism.encode(rows), max_tokens=organism.max_tokens
    )
    done: dict[tuple, tuple[pd.DataFrame, ...]] = {}
    for intervention in interventions.values():
        if (key := _acts_as(intervention)) in done:
            continue
        with steering(organism.model, intervention):
            answers = organism.answer(rows)
            losses = completion_losses(organism.model, pairs, max_tokens=organism.max_tokens)
        kl = rows[["id", "label"]].assign(kl=kl_divergence(helpful, answers.first_logits).numpy())
        done[key] = answers.responses, kl, losses.assign(id=texts.id)
    logging.info("%d interventions, %d of them different", len(interventions), len(done))
    named = [
        [frame.assign(intervention=name) for frame in done[_acts_as(intervention)]]
        for name, intervention in interventions.items()
    ]
    return Outcomes(*(pd.concat(frames, ignore_index=True) for frames in zip(*named, strict=True)))


def _acts_as(intervention: Intervention) -> tuple:
    """Return what tells interventions apart that do not do the same to every activation.

    Some do: the first eight of five directions are all of them.
    """
    operator, scope = intervention.operator, intervention.scope
    tensors = (operator.read, operator.write, operator.origin, operator.shift)
    values = tuple(None if x is None else x.numpy().tobytes() for x in tensors)
    layer = intervention.layer if scope == "source" else None
    return scope, layer, intervention.tokens, operator.alpha, operator.side, values


def plain_texts(organism: Organism, text_tokens: int) -> pd.DataFrame:
    """Return the plain test texts as given and predicted tokens."""
    end = stop_tokens(organism.model, organism.tokenizer)[0]
    nothing = pd.DataFrame({"id": [], "completion": [], "stop_reason": []}, dtype=object)
    texts = organism.chosen(["test"], ["text"])
    return build_corpora(organism.tokenizer, texts, nothing, end, text_tokens)
