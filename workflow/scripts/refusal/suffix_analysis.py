"""What an adversarial suffix does inside a model (Arditi et al. 2024, section 5, figures 5 and 6).

Four conditions: harmful prompts that the model refuses, the same with a random suffix, the same
with the adversarial one, and harmless prompts. In each, at the last token: the cosine of the
residual stream with the difference-in-means direction by layer, what the heads that write most
along the direction write there, and how much they attend to the instruction and to the suffix.

Everything that is chosen is chosen on plain harmful validation prompts: the heads, and the layer
where the cosine peaks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from refusal.heads import (
    REGIONS,
    AttentionBlock,
    Head,
    all_heads,
    head_attributions,
    ranked,
    read_token,
)
from refusal.statistics import (
    BASELINE,
    MODEL_JUDGE,
    Estimate,
    Intervals,
    bootstrap_means,
    paired_bootstrap,
    summary_rows,
    wilson_interval,
)
from refusal.suffix import SuffixedPrompt

FloatArray = NDArray[np.float64]

PLAIN, RANDOM, ADVERSARIAL, HARMLESS = (
    "harmful",
    "harmful+random_suffix",
    "harmful+suffix",
    "harmless",
)
CONDITIONS = (PLAIN, RANDOM, ADVERSARIAL, HARMLESS)
# Regions that frames and summary show; the rest of the attention is on the chat template.
SHOWN_REGIONS = ("instruction", "suffix")
GEOMETRY_JUDGE = "geometry"
FIRST_TOKEN = "first_token_refused"
# Quantities with a gap between harmful and harmless prompts, and the share of it that is closed.
SUPPRESSIONS = {
    "cosine": "suppression_share",
    "cosine_peak": "suppression_share_peak",
    "attribution": "attribution_suppression_share",
}

COSINE_COLUMNS = ["model", "condition", "layer", "mean", "low", "high", "sd", "n"]
COSINE_COLUMNS += ["direction_layer", "peak_layer"]
HEAD_COLUMNS = ["model", "condition", "rank", "layer", "head", "mean", "low", "high", "n"]
ATTENTION_COLUMNS = ["model", "condition", "region", *HEAD_COLUMNS[2:]]


@dataclass(frozen=True)
class Condition:
    """What was measured at the last token of the n prompts of one condition.

    Attributes:
        cosines: [n, layers + 1], cosine of the residual stream with the direction, at the input of
            every block and after the last one.
        attributions: [n, heads of all layers], see `refusal.heads.head_attributions`.
        attention: [n, heads of all layers, regions], attention of the last token by region.
        refusal: [n], refusal metric in nats.
    """

    cosines: FloatArray
    attributions: FloatArray
    attention: FloatArray
    refusal: FloatArray


def prompt_regions(prompt: SuffixedPrompt) -> list[int]:
    """The region (`refusal.heads.REGIONS`) of every token of a prompt."""
    regions = [REGIONS.index("template before")] * len(prompt.tokens)
    for part, name in ((prompt.instruction, "instruction"), (prompt.suffix, "suffix")):
        regions[part] = [REGIONS.index(name)] * (part.stop - part.start)
    after = prompt.suffix.stop
    regions[after:] = [REGIONS.index("template after")] * (len(regions) - after)
    return regions


def measure_condition(
    model: PreTrainedModel,
    blocks: Sequence[AttentionBlock],
    prompts: Sequence[SuffixedPrompt],
    unit: Tensor,
    *,
    refusal_tokens: Sequence[int],
    max_tokens: int,
) -> Condition:
    """Read the last token of every prompt of a condition; `unit` is the direction [width].

    Raises:
        InputError: the model hands out no attention weights.
    """
    reading = read_token(
        model,
        blocks,
        [prompt.tokens for prompt in prompts],
        max_tokens=max_tokens,
        regions=[prompt_regions(prompt) for prompt in prompts],
        refusal_tokens=refusal_tokens,
    )
    residual, unit = reading.residual.double(), unit.double()
    attributions, _ = head_attributions(blocks, reading, unit)
    return Condition(
        cosines=(residual @ unit / (residual.norm(dim=-1) * unit.norm())).numpy(),
        attributions=attributions.numpy(),
        attention=reading.attention.numpy(),
        refusal=reading.refusal.numpy(),
    )


class Choice(NamedTuple):
    """What was chosen before the test prompts: columns of `Condition`."""

    direction_layer: int
    peak_layer: int
    heads: list[Head]
    columns: list[int]


def choose(
    blocks: Sequence[AttentionBlock], validation: Condition, direction_layer: int, n_heads: int
) -> Choice:
    """Peak layer and top heads by mean attribution on plain harmful validation prompts.

    Args:
        direction_layer: layer at whose input the direction was taken.
        n_heads: how many heads at most.
    """
    heads = all_heads(blocks)
    top = ranked(heads, validation.attributions.mean(0))[:n_heads]
    peak = int(validation.cosines.mean(0).argmax())
    return Choice(direction_layer, peak, top, [heads.index(head) for head in top])


# --- frames for figures -----------------------------------------------------------------------


def _mean_columns(values: FloatArray, intervals: Intervals) -> dict[str, object]:
    """Mean over prompts (first axis) with its bootstrap interval, per column of values [n, m]."""
    low, high = intervals.percentiles(bootstrap_means(values.T, intervals))
    return {"mean": values.mean(0), "low": low, "high": high, "n": len(values)}


def cosine_frame(
    model: str, conditions: Mapping[str, Condition], choice: Choice, intervals: Intervals
) -> pd.DataFrame:
    """Cosine by condition and layer; the last "layer" is the stream after the last block."""
    parts = []
    for name, condition in conditions.items():
        columns = _mean_columns(condition.cosines, intervals)
        columns |= {"layer": range(condition.cosines.shape[1]), "sd": condition.cosines.std(0)}
        parts.append(pd.DataFrame(columns).assign(condition=name))
    frame = pd.concat(parts, ignore_index=True).assign(
        model=model, direction_layer=choice.direction_layer, peak_layer=choice.peak_layer
    )
    return frame[COSINE_COLUMNS]


def _head_rows(values: FloatArray, choice: Choice, intervals: Intervals) -> pd.DataFrame:
    """Rows of the top heads from values [n, heads of all layers]; rank 1 is the first."""
    layers, heads = zip(*choice.heads, strict=True)
    columns = _mean_columns(values[:, choice.columns], intervals)
    ranks = range(1, len(heads) + 1)
    return pd.DataFrame(columns | {"rank": ranks, "layer": layers, "head": heads})


def head_frame(
    model: str, conditions: Mapping[str, Condition], choice: Choice, intervals: Intervals
) -> pd.DataFrame:
    """Attribution of the top heads by condition."""
    parts = [
        _head_rows(condition.attributions, choice, intervals).assign(condition=name)
        for name, condition in conditions.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(model=model)[HEAD_COLUMNS]


def attention_frame(
    model: str, conditions: Mapping[str, Condition], choice: Choice, intervals: Intervals
) -> pd.DataFrame:
    """Attention of the top heads from the last token to instruction and suffix, by condition."""
    parts = [
        _head_rows(condition.attention[:, :, REGIONS.index(region)], choice, intervals).assign(
            condition=name, region=region
        )
        for name, condition in conditions.items()
        for region in SHOWN_REGIONS
    ]
    return pd.concat(parts, ignore_index=True).assign(model=model)[ATTENTION_COLUMNS]


# --- summary ------------------------------------------------------------------------------------


def _quantities(choice: Choice) -> dict[str, Callable[[Condition], FloatArray]]:
    """What the summary follows, one number per prompt [n].

    Attributions add up over the top heads, as writes do; attention is the mean over them.
    """

    def attention(region: str, condition: Condition) -> FloatArray:
        return condition.attention[:, choice.columns, REGIONS.index(region)].mean(1)

    return {
        "cosine": lambda condition: condition.cosines[:, choice.direction_layer],
        "cosine_peak": lambda condition: condition.cosines[:, choice.peak_layer],
        "attribution": lambda condition: condition.attributions[:, choice.columns].sum(1),
        **{f"attention_{region}": partial(attention, region) for region in SHOWN_REGIONS},
    }


def suffix_summary(
    study: str,
    model: str,
    conditions: Mapping[str, Condition],
    choice: Choice,
    recipes: Mapping[str, Mapping[str, object]],
    intervals: Intervals,
) -> pd.DataFrame:
    """Summary rows of the experiment, all of intervention "none".

    Per condition: `cosine` (at the direction's layer), `cosine_peak`, `attribution`,
    `attention_instruction`, `attention_suffix`, `first_token_refused` (refusal metric above 0).
    `<metric>_change`: minus the plain harmful prompts; `<metric>_against_random`: adversarial minus
    random suffix; both paired. `suppression_share`, `suppression_share_peak` and
    `attribution_suppression_share`: the share of the gap from harmful to harmless that is closed.
    """
    rows: list[list] = []
    for metric, of in _quantities(choice).items():
        values = {name: of(condition) for name, condition in conditions.items()}
        rows += _quantity_rows(metric, values, intervals)
        if metric in SUPPRESSIONS:
            rows += _suppression_rows(SUPPRESSIONS[metric], values, intervals)
    columns = ["dataset", "metric", "value", "low", "high", "n", "reason"]
    table = pd.DataFrame(rows, columns=columns).assign(judge=GEOMETRY_JUDGE)
    table = pd.concat([table, _refusal_rows(conditions, intervals)], ignore_index=True)
    return summary_rows(study, model, recipes, table.assign(intervention=BASELINE))


def _quantity_rows(
    metric: str, values: Mapping[str, FloatArray], intervals: Intervals
) -> Iterator[list]:
    """Means per condition, changes from the plain prompts, and adversarial minus random."""
    if metric == "attention_suffix":  # without a suffix there is nothing to attend to
        values = {name: values[name] for name in (RANDOM, ADVERSARIAL)}
    for name, of_prompts in values.items():
        low, high = intervals.percentiles(bootstrap_means(of_prompts, intervals))
        yield [name, metric, float(of_prompts.mean()), low, high, len(of_prompts), None]
    pairs = [(RANDOM, PLAIN, "change"), (ADVERSARIAL, PLAIN, "change")]
    for left, right, kind in [*pairs, (ADVERSARIAL, RANDOM, "against_random")]:
        if right not in values:
            continue
        change = paired_bootstrap(values[left], values[right], intervals)
        yield [left, f"{metric}_{kind}", *change, len(values[left]), None]


def _suppression_rows(
    metric: str, values: Mapping[str, FloatArray], intervals: Intervals
) -> Iterator[list]:
    for name in (RANDOM, ADVERSARIAL):
        share = suppression_share(values[PLAIN], values[name], values[HARMLESS], intervals)
        reason = None
        if np.isnan(share.value):
            reason = "harmful prompts are not above harmless ones, so that there is no gap"
        yield [name, metric, *share, len(values[name]), reason]


def suppression_share(
    harmful: FloatArray, suffixed: FloatArray, harmless: FloatArray, intervals: Intervals
) -> Estimate:
    """Share of the gap from harmful to harmless means that a suffix closes: 0 none, 1 all of it.

    (mean harmful - mean suffixed) / (mean harmful - mean harmless), NaN unless there is a gap. The
    bootstrap resamples harmful prompts together with their suffixed versions (both [n]), and
    harmless prompts ([m]) independently.
    """
    # A seed of its own: with one seed, classes of equal size would be resampled in step.
    own = Intervals(intervals.confidence, intervals.resamples, intervals.seed + 1)
    high_end, low_end = bootstrap_means(harmful, intervals), bootstrap_means(harmless, own)
    closed = high_end - bootstrap_means(suffixed, intervals)
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = np.where(high_end > low_end, closed / (high_end - low_end), np.nan)
    gap = float(harmful.mean() - harmless.mean())
    if gap <= 0:
        return Estimate(np.nan, np.nan, np.nan)
    low, high = intervals.percentiles(resampled)
    return Estimate(float(harmful.mean() - suffixed.mean()) / gap, float(low), float(high))


def _refusal_rows(conditions: Mapping[str, Condition], intervals: Intervals) -> pd.DataFrame:
    """Share of prompts whose next token is more likely than not to begin a refusal."""
    rows = []
    for name, condition in conditions.items():
        refused, n = int((condition.refusal > 0).sum()), len(condition.refusal)
        low, high = wilson_interval(refused, n, intervals.confidence)
        rows.append([name, FIRST_TOKEN, refused / n, low, high, n, None, MODEL_JUDGE])
    columns = ["dataset", "metric", "value", "low", "high", "n", "reason", "judge"]
    return pd.DataFrame(rows, columns=columns)
