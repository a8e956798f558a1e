"""Do hooks and edited weights do the same? Next-token logits of the two, compared per prompt.

Arditi et al. 2024, appendix E, derive that directional ablation and weight orthogonalisation are
one; `refusal.weights` says for which blocks that can hold. Tables follow `PROMPT_COLUMNS`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel

from refusal.activations import last_position_logits
from refusal.errors import InputError
from refusal.interventions import Intervention, steering
from refusal.operators import Operator
from refusal.statistics import MODEL_JUDGE, Estimate, Intervals, summary_rows, wilson_interval
from refusal.weights import edited_weights, has_post_norms

PROMPT_COLUMNS = [
    "model",
    "post_norms",
    "dtype",
    "intervention",
    "hooks",
    "id",
    "label",
    "difference",
    "change",
    "same_next_token",
]
# Where no equality to 1e-4 can be expected, names of metrics get an ending, for this reason.
_POST_NORM = ("_post_norm", "blocks normalise what they write: no edit of weights equals the hooks")
_ROUNDED = ("_rounded", "edited weights are rounded to {}, which hooks are not")


def compare_with_hooks(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    operators: Mapping[str, Operator],
    *,
    max_tokens: int,
) -> pd.DataFrame:
    """Every operator by edited weights and by hooks, one row per operator, hooks and prompt.

    Hooks are those of scope `all` (where the operator allows it) and of scope `writes`.

    Args:
        sequences: token ids of the prompts.
        operators: linear operators by the name of their intervention.
        max_tokens: budget of one batch.

    Returns:
        intervention, hooks (the scope), row (of `sequences`), and of the logits after the prompt:
        difference (largest absolute one between hooks and weights, over the vocabulary), change
        (the same between hooks and the unsteered model) and same_next_token (whether hooks and
        weights have the same largest logit).

    Raises:
        InputError: no operator, or what `edited_weights` raises.
    """
    if not operators:
        raise InputError(
            "interventions: none edits the weights, so there is nothing to compare with hooks. "
            "Remedy: add one, as dim_orthogonalisation in config.yaml, or experiments.weights: "
            "false."
        )

    def logits() -> Tensor:
        return last_position_logits(model, sequences, max_tokens=max_tokens)

    unsteered, parts = logits(), []
    for name, operator in operators.items():
        with edited_weights(model, operator):
            edited = logits()
        for scope in ("all", "writes") if operator.is_idempotent else ("writes",):
            with steering(model, Intervention(operator, scope)):
                hooked = logits()
            part = _compared(hooked, edited, unsteered)
            parts.append(part.assign(intervention=name, hooks=scope))
    return pd.concat(parts, ignore_index=True)


def _compared(hooked: Tensor, edited: Tensor, unsteered: Tensor) -> pd.DataFrame:
    """Per prompt what separates three sets of logits [n, vocabulary]."""
    return pd.DataFrame(
        {
            "row": range(len(hooked)),
            "difference": (hooked - edited).abs().amax(-1).double().numpy(),
            "change": (hooked - unsteered).abs().amax(-1).double().numpy(),
            "same_next_token": (hooked.argmax(-1) == edited.argmax(-1)).numpy(),
        }
    )


def prompts_table(
    name: str, model: PreTrainedModel, compared: pd.DataFrame, prompts: pd.DataFrame
) -> pd.DataFrame:
    """What `compare_with_hooks` gave, with the model's name and the prompts' id and label."""
    chosen = prompts.iloc[compared["row"]]
    table = compared.assign(
        model=name,
        post_norms=has_post_norms(model),
        dtype=str(model.dtype).removeprefix("torch."),
        id=chosen["id"].to_numpy(),
        label=chosen["label"].to_numpy(),
    )
    return table[PROMPT_COLUMNS]


# --- summary ----------------------------------------------------------------------------------


def equivalence_summary(
    study: str, table: pd.DataFrame, recipes: Mapping[str, Mapping], intervals: Intervals
) -> pd.DataFrame:
    """Rows of the summary of one model, per intervention and label of the prompts.

    Metrics, of judge "model":
        logit_difference: largest difference over prompts and vocabulary from the hooks of the
            widest scope that the operator allows; logit_difference_writes: from those of `writes`.
        same_next_token: share of prompts whose most likely next token is that under the same
            hooks, with Wilson's interval.
        logit_change: largest change that the hooks make, by which the differences can be judged.

    A maximum over all prompts measured is no estimate of a mean: nothing is averaged over prompts,
    and one prompt above a bound contradicts it. So low = high = value, which lets a claim be
    decided.

    All but the last end in `_post_norm` for a model with post-norms and in `_rounded` for one in
    lower precision than float32, so that a mean over models does not mix those of which equality
    is expected with those of which it is not; their plain names are NaN with that reason.
    """
    rows = []
    for (name, label), part in table.groupby(["intervention", "label"], sort=False):
        by_hooks = dict(list(part.groupby("hooks", sort=False)))
        key = {"intervention": name, "dataset": label, "judge": MODEL_JUDGE}
        for metric, estimate, n, reason in _estimates(by_hooks, intervals):
            measured = {"metric": metric, "n": n, "reason": reason}
            rows.append(key | measured | estimate._asdict())
    return summary_rows(study, table["model"].iloc[0], recipes, pd.DataFrame(rows))


def _estimates(
    by_hooks: Mapping[str, pd.DataFrame], intervals: Intervals
) -> Iterator[tuple[str, Estimate, int, str | None]]:
    """Metric, estimate, prompts and reason; `by_hooks`: the rows of each scope of the hooks."""
    widest = by_hooks.get("all", by_hooks["writes"])
    n = len(widest)
    yield "logit_change", _largest(widest["change"]), n, None
    same = float(widest["same_next_token"].sum())
    low, high = wilson_interval(same, n, intervals.confidence)
    found = {
        "logit_difference": _largest(widest["difference"]),
        "same_next_token": Estimate(same / n, float(low), float(high)),
    }
    if "all" in by_hooks:
        found["logit_difference_writes"] = _largest(by_hooks["writes"]["difference"])
    ending, reason = _not_expected(widest.iloc[0])
    for metric, estimate in found.items():
        if reason:
            yield metric, Estimate(np.nan, np.nan, np.nan), 0, reason
        yield metric + ending, estimate, n, None


def _not_expected(row: pd.Series) -> tuple[str, str | None]:
    """The ending of the metrics of a model, and why it is no test of equality; "" and None."""
    if row["post_norms"]:
        return _POST_NORM
    if row["dtype"] not in ("float32", "float64"):
        return _ROUNDED[0], _ROUNDED[1].format(row["dtype"])
    return "", None


def _largest(values: pd.Series) -> Estimate:
    """The largest of all values measured, which is no sample: its bounds are itself."""
    largest = float(values.max(skipna=False))
    return Estimate(largest, largest, largest)
