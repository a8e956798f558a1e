"""Judge in which style the steered model refuses, and measure what its direction says of that."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from judging import load_judge_model, load_judge_tokenizer
from loading import fetched
from refusal.kind_directions import load_kind_directions
from refusal.kind_summary import Scalar, kind_summary, scalars
from refusal.kinds import KINDS
from refusal.statistics import Intervals
from refusal.style_judge import (
    accuracy,
    answered_accuracy,
    confusion,
    evaluate,
    judge_refusals,
    rule_agreement,
    train_style_judge,
)
from refusal.style_language_judge import judge_with_model
from refusal.styles import distribution_frame, style_scalars, styles_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def chosen_responses(completions: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """Return the responses under each direction at its chosen strength.

    Of the prompts that the unsteered model answers: harmless ones, and those of the balanced test.
    """
    strength = chosen.set_index("direction").strength
    at_choice = completions.direction.map(strength).astype(str) == completions.strength
    balanced = (completions.dataset == "balanced") & completions.cell.isin(
        ["harmful-complied", "benign-complied"]
    )
    return completions[at_choice & (balanced | (completions.dataset == "harmless"))]


def said_by(snakemake: "snakemake", judge, steered: pd.DataFrame) -> pd.DataFrame:
    """Return the steered responses with their style, by the chat model if one is configured."""
    chat = snakemake.params.judge
    if not chat["judge"]:
        return judge_refusals(judge, steered)
    path, revision = fetched(chat["judge"], snakemake.input.get("commit"))
    settings = {**chat, "path": path, "revision": revision}
    tokenizer = load_judge_tokenizer(settings)
    said = judge_with_model(
        load_judge_model(settings, tokenizer, snakemake.params.max_tokens), steered
    )
    logging.info("%d verdicts without a letter", int(said.said.isna().sum()))
    return said


def main(snakemake: "snakemake") -> None:
    params, inputs, output = snakemake.params, snakemake.input, snakemake.output
    name, settings = snakemake.wildcards.model, params.settings
    intervals = Intervals(settings["confidence"], settings["resamples"], params.seed)
    judge = train_style_judge(params.seed)
    evaluated = evaluate(judge, params.seed)
    known = judge_refusals(judge, pd.read_parquet(inputs.responses).query("split == 'test'"))
    steered = chosen_responses(pd.read_parquet(inputs.completions), pd.read_parquet(inputs.chosen))
    steered = said_by(snakemake, judge, steered)
    steered.to_parquet(output.responses, index=False)
    steered = steered[steered.said.notna()]
    frames = {
        "distribution": distribution_frame(steered, intervals.confidence),
        "confusion": confusion(evaluated),
    }
    for frame, table in frames.items():
        table.assign(model=name)[["model", *table.columns]].to_parquet(output[frame], index=False)
    kinds = [kind for kind in KINDS if kind in load_kind_directions(inputs.directions).vectors]
    found = scalars("style", style_scalars(styles_of(steered, kinds), intervals))
    found += [
        Scalar("style_judge_accuracy", "style", *accuracy(evaluated, intervals)),
        Scalar("style_judge_answered", "style", *answered_accuracy(evaluated, intervals)),
        *rule_agreement(known, intervals),
    ]
    recipe = json.loads(Path(inputs.recipe).read_text())
    kind_summary(params.study, name, recipe, found).to_parquet(output.summary, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
