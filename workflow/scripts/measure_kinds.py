"""Find the direction of every kind of refusal, compare them, and ablate each in turn."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from job import job
from loading import load_card, load_from_card, stop_tokens
from refusal.activations import sweep
from refusal.directions import load_directions
from refusal.generations import completions_table, generate
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
    judged,
    require_kinds,
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
from refusal.models import encode_prompts
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

MIN_CELL = 8  # prompts of a cell that a direction is estimated from


class Kinds:
    """A loaded model with the prompts of the kinds, and the place that is read and steered."""

    def __init__(self, snakemake: "snakemake") -> None:
        params, inputs = snakemake.params, snakemake.input
        card = load_card(inputs.card[0])
        self.model, self.tokenizer = load_from_card(card, params.model)
        self.prompts = require_kinds(pd.read_parquet(inputs.prompts[0]), "kinds")
        self.settings, self.grammar = params.kinds, params.grammar
        self.generations, self.max_tokens = params.generations, params.activations["max_tokens"]
        chosen = pd.read_parquet(inputs.selection).query("selected and scope == 'all'").iloc[0]
        position, layer = self.settings["position"], self.settings["layer"]
        self.position = int(chosen.position) if position is None else position
        self.layer = int(chosen.layer) if layer is None else layer

    def responses(self, prompts: pd.DataFrame) -> pd.DataFrame:
        """Greedy completions under whatever steering is in force, and what they did."""
        completions = generate(
            self.model,
            encode_prompts(self.tokenizer, list(prompts.text)),
            eos_ids=stop_tokens(self.model, self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
            max_new_tokens=self.generations["max_new_tokens"],
            max_tokens=self.generations["max_tokens"],
        )
        table = completions_table(self.tokenizer, list(prompts.id), completions)
        return judged(self.prompts, table, self.grammar)

    def activations(self, prompts: pd.DataFrame) -> np.ndarray:
        """Residual stream at the one position and layer, float64 [n, d]."""
        sequences = encode_prompts(self.tokenizer, list(prompts.text))
        read = sweep(
            self.model, sequences, -self.position, max_tokens=self.max_tokens, layers=[self.layer]
        )
        return read.residual[:, 0, 0].double().numpy()

    def ablated(self, interventions: dict[str, Intervention]) -> pd.DataFrame:
        """Responses to the first test prompts of every kind under each ablation."""
        asked = self.prompts.query("label == 'noncompliant' and split == 'test'")
        asked = asked.groupby("kind", sort=False).head(self.settings["prompts"])
        tables = []
        for name, intervention in interventions.items():
            with steering(self.model, intervention):
                tables.append(self.responses(asked).assign(ablated=name))
        table = pd.concat(tables, ignore_index=True)
        known = table["style"].notna().any()
        right = (table["style"] == table.kind).astype(float)
        return table.assign(right_style=right if known else np.nan)


def find_directions(
    kinds: Kinds, responses: pd.DataFrame, draws: int, seed: int
) -> tuple[KindDirections, dict, dict]:
    """Return the directions, and activations by group of train, and of train and validation."""
    prompts = kinds.prompts[kinds.prompts.split.isin(["train", "validation"])]
    read = kinds.activations(prompts)
    train = (prompts.split == "train").to_numpy()
    groups, pools = grouped(prompts[train], read[train]), grouped(prompts, read)
    vectors = estimate(groups)
    cell = cells(responses).set_axis(responses.id).reindex(prompts.id).to_numpy()
    refused, complied = (
        read[cell == f"harmful-{did}"][: kinds.settings["cell_prompts"]]
        for did in ("refused", "complied")
    )
    if min(len(refused), len(complied)) >= MIN_CELL:
        name = REFUSED_MINUS_COMPLIED
        vectors[name] = unit_difference(refused, complied, name)
    vectors |= random_directions(draws, read.shape[1], seed)
    benign = (prompts.label == "contrast").to_numpy() & ~train
    norm = float(np.linalg.norm(read[benign], axis=1).mean())
    return KindDirections(kinds.position, kinds.layer, norm, vectors), groups, pools


def ablations(
    snakemake: "snakemake", directions: KindDirections
) -> dict[str, Intervention]:
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
    place, found = (directions.position, directions.layer), {}
    for method in ("dim", "inlp_faithful", "inlp_corrected"):
        found[method] = load_directions(snakemake.input[method])[place].basis.double().numpy()
    return {name: basis for name, basis in found.items() if len(basis)}


def main(snakemake: "snakemake") -> None:
    params, output = snakemake.params, snakemake.output
    intervals = Intervals(params.settings["confidence"], params.settings["resamples"], params.seed)
    kinds, name = Kinds(snakemake), snakemake.wildcards.model
    heard = kinds.prompts[kinds.prompts.split != "train"]
    responses = kinds.responses(heard)
    responses.to_parquet(output.responses, index=False)
    directions, groups, pools = find_directions(kinds, responses, params.draws, params.seed)
    save_kind_directions(output.directions, directions)
    scores = kinds.ablated(ablations(snakemake, directions))
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
