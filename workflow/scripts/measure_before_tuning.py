"""Compare the direction of a safety-tuned model with the checkpoint that it was tuned from."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import numpy as np
import pandas as pd
from torch import Tensor

from loading import fetched, load_card
from refusal.activations import load_activations, sweep
from refusal.before_tuning import (
    BASE,
    LABELS,
    TUNED,
    Readings,
    check_base,
    cosines_summary,
    cosines_table,
    require_base,
)
from refusal.directions import filter_by_refusal_metric, load_directions
from refusal.models import (
    decoder_layers,
    encode_prompts,
    load_model,
    load_tokenizer,
    residual_width,
)
from refusal.statistics import Intervals

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings, name = snakemake.params.settings, snakemake.wildcards.model
    require_base(name, snakemake.params.base)
    intervals = Intervals(settings["confidence"], settings["resamples"], snakemake.params.seed)
    chosen = pd.read_parquet(snakemake.input.selection).query("selected and scope == 'all'").iloc[0]
    candidate = int(chosen.position), int(chosen.layer)
    residual, index = load_activations(snakemake.input.residual)
    rows = _rows(name, index, snakemake.params.filter)

    checkpoints = {
        TUNED: _readings(residual[:, candidate[0]], rows),
        BASE: _base_readings(snakemake, index, rows, candidate[0]),
    }
    directions = load_directions(snakemake.input.directions)
    table = cosines_table(name, checkpoints, directions, candidate, intervals)
    table.to_parquet(snakemake.output.cosines, index=False)
    recipes = {"none": json.loads(Path(snakemake.input.recipe).read_text())}
    summary = cosines_summary(snakemake.params.study, table, candidate, recipes)
    summary.to_parquet(snakemake.output.summary, index=False)


def _rows(name: str, index: pd.DataFrame, enabled: bool) -> dict[str, dict[str, np.ndarray]]:
    """Return the rows by split and label; of the training prompts those of difference in means."""
    train = filter_by_refusal_metric(index, "train", model=name, enabled=enabled)
    test = index[index["split"] == "test"]
    return {
        "train": dict(zip(LABELS, train, strict=True)),
        "test": {
            label: test.loc[test["label"] == label, "row"].to_numpy(copy=True) for label in LABELS
        },
    }


def _readings(residual: Tensor, rows: dict) -> Readings:
    """Divide activations [n, layers, width] by split and label."""
    return Readings(
        **{
            split: {label: residual[where] for label, where in of.items()}
            for split, of in rows.items()
        }
    )


def _base_readings(
    snakemake: "snakemake", index: pd.DataFrame, rows: dict, position: int
) -> Readings:
    """Read the base checkpoint on the same prompts, in the tuned model's template."""
    card = load_card(snakemake.input.card[0])
    tokenizer = load_tokenizer(card["path"], card["revision"])
    settings = snakemake.params.model
    path, revision = fetched(snakemake.params.base, snakemake.input.get("commit"))
    base = load_model(
        path,
        dtype=card["dtype"],
        device=settings.get("device", "cpu"),
        revision=revision,
        attention=settings.get("attention"),
    )
    # Only the prompts that are compared; `at` finds their rows among them.
    needed = np.concatenate([where for of in rows.values() for where in of.values()])
    prompts = pd.read_parquet(snakemake.input.prompts[0]).set_index("id")
    ids = index.set_index("row").loc[needed, "id"]
    sequences = encode_prompts(tokenizer, list(prompts.loc[ids, "text"]))
    facts = {
        "width": residual_width(base),
        "n_layers": len(decoder_layers(base)),
        "vocabulary": base.get_input_embeddings().num_embeddings,
    }
    check_base(snakemake.wildcards.model, facts, card, max(map(max, sequences)))
    # The last -position tokens are read; the first of them is the candidate's.
    read = sweep(base, sequences, -position, max_tokens=snakemake.params.max_tokens)
    at = pd.Series(range(len(needed)), index=needed)
    found = {
        s: {k: at.loc[where].to_numpy(copy=True) for k, where in of.items()}
        for s, of in rows.items()
    }
    return _readings(read.residual[:, 0], found)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
