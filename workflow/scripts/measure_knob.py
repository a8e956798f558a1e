"""Steer along the direction of every kind of refusal, at every strength, and by ablation."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import numpy as np
import pandas as pd
import torch

from kind_model import KindModel
from refusal.directions import load_directions
from refusal.interventions import Intervention, Operator, steering
from refusal.kind_directions import KindDirections, load_kind_directions
from refusal.kind_responses import cells, judge_name
from refusal.kind_summary import kind_summary, scalars
from refusal.knob import (
    ABLATION,
    choose_strengths,
    curves_frame,
    draw_cells,
    knob_scalars,
    sweep_of,
)
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

SPLITS = {"validation": "balanced-validation", "test": "balanced"}


def steered_by(snakemake: "snakemake", directions: KindDirections) -> dict[str, np.ndarray]:
    """Return the unit directions of the sweep: those of the kinds file, and difference in means."""
    place = (directions.position, directions.layer)
    dim = load_directions(snakemake.input.dim)[place].basis[0].double().numpy()
    found = {n: v for n, v in directions.vectors.items() if not n.endswith("+own")}
    return found | {"dim": dim}


def intervention(
    directions: KindDirections, vector: np.ndarray, strength: float | str
) -> Intervention:
    """Return the addition of a strength in units of the residual norm, or the ablation."""
    unit = torch.tensor(vector, dtype=torch.float32)
    if strength == ABLATION:
        return Intervention(Operator.project(unit[None]), "all", directions.layer, {})
    added = Operator.add(unit * strength * directions.residual_norm)
    return Intervention(added, "source", directions.layer, {})


def unsteered(kinds: KindModel, path: str) -> pd.DataFrame:
    """Return the unsteered responses to the kinds' prompts, and to the borderline ones."""
    chosen = (kinds.prompts.label == "borderline") & kinds.prompts.split.isin(list(SPLITS))
    responses = pd.read_parquet(path)
    if not chosen.any():
        return responses
    return pd.concat([responses, kinds.responses(kinds.prompts[chosen])], ignore_index=True)


def balanced(responses: pd.DataFrame, settings: dict, seed: int) -> pd.DataFrame:
    """Return the prompts of both splits with their cell and dataset."""
    parts = []
    for split, dataset in SPLITS.items():
        rows = responses[responses.split == split]
        size = settings["prompts"] if split == "test" else settings["validation_prompts"]
        parts.append(draw_cells(rows, cells(rows), size, seed).assign(dataset=dataset))
    return pd.concat(parts, ignore_index=True)[["id", "cell", "dataset"]]


def swept(
    kinds: KindModel, drawn: pd.DataFrame, directions: KindDirections, vectors: dict, strengths
) -> pd.DataFrame:
    """Return the responses to the drawn prompts under every direction and strength."""
    asked = drawn.merge(kinds.prompts, on="id", how="left", validate="one_to_one")
    tables = []
    for name, vector in vectors.items():
        for strength in (ABLATION, *strengths):
            with steering(kinds.model, intervention(directions, vector, strength)):
                table = kinds.responses(asked)
            tables.append(table.assign(direction=name, strength=strength))
    return pd.concat(tables, ignore_index=True).merge(drawn, on="id", how="left")


def harmless(
    kinds: KindModel, directions: KindDirections, vectors: dict, chosen: pd.DataFrame
) -> pd.DataFrame:
    """Return the responses to harmless test prompts that are answered without steering.

    Each direction is added at its chosen strength: how it refuses where nothing asks for refusal.
    """
    prompts = kinds.prompts.query("label == 'harmless' and split == 'test'")
    answered = kinds.responses(prompts).query("refused == 0").id
    asked, tables = prompts[prompts.id.isin(answered)], []
    for row in chosen.itertuples():
        with steering(kinds.model, intervention(directions, vectors[row.direction], row.strength)):
            table = kinds.responses(asked)
        tables.append(table.assign(direction=row.direction, strength=row.strength))
    return pd.concat(tables, ignore_index=True).assign(cell=None, dataset="harmless")


def main(snakemake: "snakemake") -> None:
    params, inputs, output = snakemake.params, snakemake.input, snakemake.output
    settings, name = params.knob, snakemake.wildcards.model
    intervals = Intervals(params.settings["confidence"], params.settings["resamples"], params.seed)
    kinds, directions = KindModel(snakemake, "knob"), load_kind_directions(inputs.directions)
    if settings["max_new_tokens"] is not None:
        kinds.generations = kinds.generations | {"max_new_tokens": settings["max_new_tokens"]}
    vectors = steered_by(snakemake, directions)
    drawn = balanced(unsteered(kinds, inputs.responses), settings, params.seed)
    scores = swept(kinds, drawn, directions, vectors, settings["strengths"])
    sweeps = {part: sweep_of(rows) for part, rows in scores.groupby("dataset")}
    bounds = settings["refusal_min"], settings["over_refusal_max"]
    choices = choose_strengths(sweeps[SPLITS["validation"]], *bounds)
    chosen = pd.DataFrame(choices)
    test = sweeps[SPLITS["test"]]
    frames = {"chosen": chosen, "curves": curves_frame(test, intervals)}
    frames["cells"] = drawn.groupby(["dataset", "cell"]).size().rename("n").reset_index()
    for frame, table in frames.items():
        table.assign(model=name)[["model", *table.columns]].to_parquet(output[frame], index=False)
    texts = pd.concat([scores, harmless(kinds, directions, vectors, chosen)], ignore_index=True)
    texts.assign(strength=texts.strength.astype(str)).to_parquet(output.completions, index=False)
    found = knob_scalars(test, choices, directions.kinds, intervals)
    recipe = json.loads(Path(inputs.recipe).read_text())
    rows = scalars(judge_name(params.grammar), found)
    kind_summary(params.study, name, recipe, rows).to_parquet(output.summary, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
