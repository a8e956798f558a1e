"""Find the direction of every kind of refusal, compare them, and ablate each in turn."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import numpy as np
import pandas as pd
import torch

from kind_model import KindModel
from refusal.directions import load_directions
from refusal.interventions import Intervention, Operator, load_intervention, steering
from refusal.kind_ablation import UNSTEERED, ablation_map, ablation_scalars
from refusal.kind_directions import (
    REFUSED_MINUS_COMPLIED,
    KindDirections,
    estimate,
    random_directions,
    save_kind_directions,
    unit_difference,
)
from refusal.kind_responses import (
    behaviour_frame,
    cells,
    grouped,
    judge_name,
)
from refusal.kind_similarity import (
    cosine_frame,
    cosine_scalars,
    span_frame,
    span_scalars,
    stability_frame,
    stability_scalars,
)
from refusal.kind_summary import kind_summary, scalars
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

MIN_CELL = 8  # prompts of a cell that a direction is estimated from


def place(snakemake: "snakemake") -> tuple[int, int]:
    """Return the position and layer: as configured, else those of difference in means."""
    chosen = pd.read_parquet(snakemake.input.selection).query("selected and scope == 'all'").iloc[0]
    position, layer = (snakemake.params.kinds[name] for name in ("position", "layer"))
    return (
        int(chosen.position) if position is None else position,
        int(chosen.layer) if layer is None else layer,
    )


def find_directions(
    kinds: KindModel, responses: pd.DataFrame, snakemake: "snakemake"
) -> tuple[KindDirections, dict, dict]:
    """Return the directions, and activations by group of train, and of train and validation."""
    params, (position, layer) = snakemake.params, place(snakemake)
    prompts = kinds.kind_prompts
    prompts = prompts[prompts.split.isin(["train", "validation"])]
    read = kinds.activations(prompts, position, layer, params.activations["max_tokens"])
    train = (prompts.split == "train").to_numpy()
    groups, pools = grouped(prompts[train], read[train]), grouped(prompts, read)
    vectors = estimate(groups)
    # Training prompts are nearly all refused, so the second variant takes validation prompts.
    cell = cells(responses).set_axis(responses.id).reindex(prompts.id).to_numpy()
    refused, complied = (
        read[cell == f"harmful-{did}"][: params.kinds["cell_prompts"]]
        for did in ("refused", "complied")
    )
    if min(len(refused), len(complied)) >= MIN_CELL:
        name = REFUSED_MINUS_COMPLIED
        vectors[name] = unit_difference(refused, complied, name)
    vectors |= random_directions(params.draws, read.shape[1], params.seed)
    benign = (prompts.label == "contrast").to_numpy() & ~train
    norm = float(np.linalg.norm(read[benign], axis=1).mean())
    return KindDirections(position, layer, norm, vectors), groups, pools


def ablated(
    kinds: KindModel, interventions: dict[str, Intervention], n_prompts: int
) -> pd.DataFrame:
    """Return responses to the first test prompts of every kind under each ablation."""
    asked = kinds.kind_prompts.query("label == 'noncompliant' and split == 'test'")
    asked = asked.groupby("kind", sort=False).head(n_prompts)
    tables = []
    for name, intervention in interventions.items():
        with steering(kinds.model, intervention):
            tables.append(kinds.responses(asked).assign(ablated=name))
    table = pd.concat(tables, ignore_index=True)
    right = (table["style"] == table.kind).astype(float)
    return table.assign(right_style=right if table["style"].notna().any() else np.nan)


def ablations(snakemake: "snakemake", directions: KindDirections) -> dict[str, Intervention]:
    """Return what is ablated: nothing, each direction everywhere, configured interventions."""
    found = {UNSTEERED: Intervention(Operator.identity(), "all", directions.layer, {})}
    for name, vector in directions.vectors.items():
        if not name.endswith("+own"):
            operator = Operator.project(torch.tensor(vector, dtype=torch.float32)[None])
            found[name] = Intervention(operator, "all", directions.layer, {"name": name})
    for path in snakemake.input.interventions:
        intervention = load_intervention(path)
        found[intervention.recipe["name"]] = intervention
    return found


def subspaces(snakemake: "snakemake", directions: KindDirections) -> dict[str, np.ndarray]:
    """Return the bases that the span of the kinds is compared with, at the same candidate."""
    candidate, found = (directions.position, directions.layer), {}
    for method in ("dim", "inlp_faithful", "inlp_corrected"):
        found[method] = load_directions(snakemake.input[method])[candidate].basis.double().numpy()
    return {name: basis for name, basis in found.items() if len(basis)}


def main(snakemake: "snakemake") -> None:
    params, output = snakemake.params, snakemake.output
    intervals = Intervals(params.settings["confidence"], params.settings["resamples"], params.seed)
    kinds, name = KindModel(snakemake, "kinds"), snakemake.wildcards.model
    responses = kinds.responses(kinds.kind_prompts[kinds.kind_prompts.split != "train"])
    responses.to_parquet(output.responses, index=False)
    directions, groups, pools = find_directions(kinds, responses, snakemake)
    save_kind_directions(output.directions, directions)
    scores = ablated(kinds, ablations(snakemake, directions), params.kinds["prompts"])
    scores.to_parquet(output.completions, index=False)
    frames = {
        "behaviour": behaviour_frame(responses, intervals.confidence),
        "cosines": cosine_frame(groups, intervals),
        "stability": stability(pools, params),
        "span": span_frame(directions, subspaces(snakemake, directions)),
        "ablation": ablation_map(scores, intervals.confidence),
    }
    for frame, table in frames.items():
        table.insert(0, "model", name)
        table.to_parquet(output[frame], index=False)
    dim = load_directions(snakemake.input.dim)[directions.position, directions.layer].basis
    by_geometry = (
        cosine_scalars(groups, intervals)
        | stability_scalars(frames["stability"], frames["cosines"])
        | span_scalars(directions, frames["span"], dim[0].double().numpy())
    )
    by_judge = ablation_scalars(scores, directions.kinds, intervals)
    rows = scalars("geometry", by_geometry) + scalars(judge_name(params.grammar), by_judge)
    recipe = json.loads(Path(snakemake.input.recipe).read_text())
    kind_summary(params.study, name, recipe, rows).to_parquet(output.summary, index=False)


def stability(pools: dict, params) -> pd.DataFrame:
    """Return the cosine of directions from disjoint draws of prompts."""
    settings = params.kinds
    return stability_frame(pools, settings["draw_prompts"], settings["draws"], params.seed)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
