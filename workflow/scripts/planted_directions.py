"""Directions of a planted organism: found at every candidate, and the candidates chosen."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel

from planted_model import LABELS, Organism
from refusal.activations import activation_index, sweep
from refusal.directions import Candidate, Direction, filter_by_refusal_metric
from refusal.estimators import Directions, find_everywhere
from refusal.functional_rank import principal_directions, subspace_coordinates
from refusal.inlp import InlpSettings
from refusal.kind_directions import OWN, estimate
from refusal.kind_responses import grouped
from refusal.kinds import SIDES
from refusal.models import refusal_metric
from refusal.planted_estimators import SELECTED, TRUTH, Found, kinds_span, truth
from refusal.planted_measures import recovery
from refusal.selection import SelectionSettings, choose, score_candidates

if TYPE_CHECKING:
    from snakemake.iocontainers import Params


def read(organism: Organism, model: PreTrainedModel) -> tuple[Tensor, pd.DataFrame]:
    """Return residual stream and index of the prompts that directions are found and chosen on."""
    rows = pd.concat([organism.chosen([split]) for split in ("train", "validation")])
    swept = sweep(
        model,
        organism.encode(rows),
        organism.n_positions,
        max_tokens=organism.max_tokens,
        logits=True,
    )
    metric = refusal_metric(swept.last_logits, organism.refusal_tokens)
    return swept.residual, activation_index(rows, metric)


def kept_rows(index: pd.DataFrame, split: str, params: "Params") -> tuple:
    """Return the rows of both classes that the organism treats as such."""
    enabled = params.directions["filter"]
    return filter_by_refusal_metric(index, split, model=params.organism, enabled=enabled)


def find(
    organism: Organism, residual: Tensor, index: pd.DataFrame, params: "Params"
) -> tuple[Found, pd.DataFrame]:
    """Return directions with their candidates, and the table of all candidates."""
    means, directions = find_everywhere(
        residual,
        kept_rows(index, "train", params),
        InlpSettings(**params.directions["inlp"], seed=params.seed),
        prune_layers=params.selection["prune_layers"],
    )
    directions[TRUTH] = truth(organism.basis, directions["dim"])
    table = select(organism, directions, index, params)
    chosen = {
        (row.method, row.scope): (row.position, row.layer)
        for row in table[table.selected].itertuples()
    }
    return Found(directions, means, chosen), table


def select(
    organism: Organism,
    directions: Mapping[str, Directions],
    index: pd.DataFrame,
    params: "Params",
) -> pd.DataFrame:
    """Return the scores of all candidates by method and scope, with choice, reason and recovery."""
    settings = dict(params.selection)
    max_tokens = settings.pop("max_tokens")
    settings = SelectionSettings(**settings | {"additions": tuple(settings["additions"])})
    prompts = organism.prompts.set_index("id")
    harmful, harmless = (
        organism.encode(prompts.loc[index.loc[rows, "id"]])
        for rows in kept_rows(index, "validation", params)
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
    rows = organism.chosen(["train"], SIDES).sort_values("id")
    position, layer = at
    swept = sweep(
        organism.model,
        organism.encode(rows),
        organism.n_positions,
        max_tokens=organism.max_tokens,
        layers=[layer],
    )
    vectors = estimate(grouped(rows, swept.residual[:, position, 0].numpy()))
    return kinds_span({k: v for k, v in vectors.items() if not k.endswith(OWN)})


def oracle(organism: Organism, writer_blocks: int) -> Direction:
    """Return U, the directions first along which harmful prompts differ most behind the writers."""
    coordinates = [
        subspace_coordinates(
            organism.model,
            organism.basis,
            organism.encode(organism.chosen(["train"], [label])),
            writer_blocks,
            organism.n_positions,
        )
        for label in LABELS
    ]
    return Direction(basis=principal_directions(*coordinates) @ organism.basis)
