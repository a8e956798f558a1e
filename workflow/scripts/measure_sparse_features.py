"""Train a sparse autoencoder on the residual stream, and find what the kinds of refusal share."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import numpy as np
import pandas as pd
import torch

from kind_model import KindModel
from refusal.interventions import Intervention, Operator, steering
from refusal.kind_directions import KindDirections, load_kind_directions
from refusal.kind_responses import grouped, judge_name
from refusal.kind_summary import Scalar, kind_summary, scalars, without_interval
from refusal.sparse_autoencoder import (
    SparseAutoencoder,
    load_autoencoder,
    quality,
    save_autoencoder,
    train,
)
from refusal.sparse_features import (
    feature_directions,
    features_frame,
    overlap_frame,
    separation,
    sharing_frame,
    sharing_scalars,
)
from refusal.statistics import Estimate, Intervals, bootstrap_means, wilson_interval

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

TOKENS_PER_PROMPT = 20  # a guess that bounds the prompts read; the tokens are cut exactly
HELD_OUT_PROMPTS = 500


def autoencoder_of(
    snakemake: "snakemake", kinds: KindModel, layer: int
) -> tuple[SparseAutoencoder, list[Scalar]]:
    """Return the autoencoder, published or trained here, and its quality on held-out prompts."""
    params, settings = snakemake.params, snakemake.params.sparse_features
    tokens = params.activations["max_tokens"]
    held_out = kinds.prompts[kinds.prompts.split == "validation"]
    held_out = held_out.sample(min(HELD_OUT_PROMPTS, len(held_out)), random_state=params.seed)
    tested = kinds.token_activations(held_out, layer, tokens)
    if settings["autoencoder"]:
        autoencoder = load_autoencoder(settings["autoencoder"], tested.shape[1])
    else:
        learnt = kinds.prompts[kinds.prompts.split == "train"]
        most = max(1, settings["tokens"] // TOKENS_PER_PROMPT)
        learnt = learnt.sample(min(most, len(learnt)), random_state=params.seed)
        read = kinds.token_activations(learnt, layer, tokens)[: settings["tokens"]]
        autoencoder = train(read, settings, params.seed)
    found = quality(autoencoder, tested)
    numbers = {"feature_explained": found.explained, "feature_dead": found.dead}
    return autoencoder, [
        Scalar(name, "geometry", without_interval(value), len(tested))
        for name, value in numbers.items()
    ]


def fires(
    snakemake: "snakemake", kinds: KindModel, directions: KindDirections, autoencoder
) -> dict:
    """Return whether every feature fires at the decision position of the training prompts."""
    prompts = kinds.kind_prompts[kinds.kind_prompts.split == "train"]
    place = directions.position, directions.layer
    read = kinds.activations(prompts, *place, snakemake.params.activations["max_tokens"])
    code = autoencoder.encode(torch.tensor(read, dtype=torch.float32))
    return grouped(prompts, (code > 0).numpy())


def steered(
    kinds: KindModel, directions: KindDirections, vectors: dict[str, np.ndarray], settings: dict
) -> pd.DataFrame:
    """Return the refusal of harmless test prompts when each vector is added (frame `steering`)."""
    prompts = kinds.prompts.query("label == 'harmless' and split == 'test'")
    prompts, rows = prompts.head(settings["prompts"]), []
    for name, vector in vectors.items():
        for strength in settings["strengths"]:
            shift = torch.tensor(vector * strength * directions.residual_norm).float()
            added = Intervention(Operator.add(shift), "source", directions.layer, {})
            with steering(kinds.model, added):
                refused = kinds.responses(prompts).refused
            rows.append((name, strength, refused.sum(), len(refused)))
    return pd.DataFrame(rows, columns=["direction", "strength", "refused", "n"])


def with_intervals(table: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return the shares refused with Wilson intervals."""
    low, high = wilson_interval(table.refused, table.n, confidence)
    table = table.assign(value=table.refused / table.n, low=low, high=high)
    return table[["direction", "strength", "value", "low", "high", "n"]]


def agreement(directions: KindDirections, vectors: dict, intervals: Intervals) -> list[Scalar]:
    """Return the mean cosine of the feature directions with the kinds' own, over kinds."""
    values = np.array([vectors[kind] @ directions.vectors[kind] for kind in directions.kinds])
    low, high = intervals.percentiles(bootstrap_means(values, intervals))
    mean = Estimate(float(values.mean()), float(low), float(high))
    return [Scalar("feature_direction_cosine", "geometry", mean, len(values))]


def steering_scalars(table: pd.DataFrame, judge: str) -> list[Scalar]:
    """Return the greatest refusal over strengths, mean over kinds, and of random rows."""
    best = table.groupby("direction").value.max()
    random = best.index.str.startswith("random")
    return [
        Scalar(name, judge, without_interval(best[rows].mean()), int(rows.sum()))
        for name, rows in (("feature_steering", ~random), ("feature_random_steering", random))
    ]


def main(snakemake: "snakemake") -> None:
    params, output, name = snakemake.params, snakemake.output, snakemake.wildcards.model
    settings = params.sparse_features
    intervals = Intervals(params.settings["confidence"], params.settings["resamples"], params.seed)
    kinds = KindModel(snakemake, "sparse_features")
    directions = load_kind_directions(snakemake.input.directions)
    autoencoder, found = autoencoder_of(snakemake, kinds, directions.layer)
    save_autoencoder(output.autoencoder, autoencoder)
    firing = fires(snakemake, kinds, directions, autoencoder)
    separations, top = separation(firing), settings["top"]
    decoder = autoencoder.W_dec.double().numpy()
    vectors = feature_directions(separations, decoder, top)
    found += agreement(directions, vectors, intervals)
    generator = np.random.default_rng(params.seed)
    for draw in range(settings["random"]):
        mean = decoder[generator.choice(len(decoder), top, replace=False)].mean(0)
        vectors[f"random-{draw}"] = mean / np.linalg.norm(mean)
    table = with_intervals(steered(kinds, directions, vectors, settings), intervals.confidence)
    judge = judge_name(params.grammar)
    frames = {
        "features": features_frame(separations, top),
        "sharing": sharing_frame(firing, top, params.seed),
        "overlap": overlap_frame(separations, top),
        "steering": table,
    }
    for frame, rows in frames.items():
        rows.assign(model=name)[["model", *rows.columns]].to_parquet(output[frame], index=False)
    found += scalars("geometry", sharing_scalars(frames["sharing"], frames["overlap"], top))
    found += steering_scalars(table, judge)
    recipe = json.loads(Path(snakemake.input.recipe).read_text())
    kind_summary(params.study, name, recipe, found).to_parquet(output.summary, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
