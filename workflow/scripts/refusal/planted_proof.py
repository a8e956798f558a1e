"""Proof that U mediates the refusal of a planted organism, before any estimator is run on it.

Exactness (without U the organism is its base), where the weights changed, what the norms let
through, and acceptance, which looks at nothing but these and behaviour.
"""

import copy
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from refusal.batching import in_batches, left_pad, position_ids
from refusal.interventions import steering
from refusal.models import decoder_layers
from refusal.planted import (
    all_reading_matrices,
    make_blind,
    reading_matrices,
    widened,
    writing_matrices,
)
from refusal.planted_training import removal
from refusal.statistics import wilson_interval

RATES = ("refused", "complied")


# ------------------------------------------------------------------------------------- exactness


def removal_difference(
    organism: PreTrainedModel,
    base: PreTrainedModel,
    basis: Tensor,
    sequences: Sequence[Sequence[int]],
    max_tokens: int,
) -> dict[str, float]:
    """Greatest logit difference from the base over all tokens: without U, and as it is."""
    greatest = {"without_subspace": 0.0, "as_it_is": 0.0}
    steered = removal(basis)

    def compare(rows: list[int]) -> dict[str, float]:
        chosen = [sequences[row] for row in rows]
        expected, mask = _all_logits(base, chosen)
        with steering(organism, steered):
            without, _ = _all_logits(organism, chosen)
        whole, _ = _all_logits(organism, chosen)
        found = {"without_subspace": without, "as_it_is": whole}
        return {name: float((x - expected)[mask].abs().max()) for name, x in found.items()}

    lengths = [len(sequence) for sequence in sequences]
    for _, found in in_batches(compare, lengths, max_tokens, what="exactness"):
        greatest = {name: max(value, found[name]) for name, value in greatest.items()}
    return greatest


@torch.no_grad()
def _all_logits(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Logits [rows, tokens, vocabulary] and which of the tokens are real [rows, tokens]."""
    ids, mask = left_pad(sequences, model.config.pad_token_id)
    output = model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask))
    return output.logits, mask.bool()


@torch.no_grad()
def changes_outside(
    organism: PreTrainedModel, base: PreTrainedModel, basis: Tensor, settings: Mapping
) -> dict[str, float]:
    """Shares of the squared change of the weights that lie outside U: 0 up to rounding.

    Of the writers the outputs, of the readers the inputs (behind the gain of their norm), against
    the base without its own, never used, view of U. `settings`: those of `planted.planting`.
    """
    wide = widened(base, settings["heads"], settings["neurons"])
    make_blind(all_reading_matrices(wide), basis)
    start = settings["writer_blocks"]
    written = [
        (new.weight - old.weight).T
        for new, old in zip(writing_matrices(organism), writing_matrices(wide), strict=True)
    ]
    read = [
        (new.weight - old.weight) * gain
        for block, before in zip(
            decoder_layers(organism)[start:], decoder_layers(wide)[start:], strict=True
        )
        for (gain, new), (_, old) in zip(
            reading_matrices(block), reading_matrices(before), strict=True
        )
    ]
    return {"writers": _share_outside(written, basis), "readers": _share_outside(read, basis)}


def _share_outside(changes: Sequence[Tensor], basis: Tensor) -> float:
    """Share of the squared length of rows [n, d] that lies outside the span of `basis`."""
    rows = torch.cat(list(changes)).double()
    inside = rows @ basis.double().T
    total = float((rows**2).sum())
    outside = rows - inside @ basis.double()
    return float((outside**2).sum()) / total if total else 0.0


# ------------------------------------------------------------------------------------- norm leak


def without_readers(
    organism: PreTrainedModel, basis: Tensor, writer_blocks: int
) -> PreTrainedModel:
    """A copy that writes into U but no longer reads it: U reaches its norms alone.

    What it still does beyond the base comes from the length that U adds to the residual stream, by
    which every later norm divides.
    """
    blind = copy.deepcopy(organism)
    for block in decoder_layers(blind)[writer_blocks:]:
        make_blind(reading_matrices(block), basis)
    return blind


@torch.no_grad()
def subspace_share(
    model: PreTrainedModel, basis: Tensor, sequences: Sequence[Sequence[int]]
) -> list[float]:
    """Share of the squared length of the residual stream in U, by layer (input of each block).

    Mean over the tokens of all prompts; a share s makes the next norm divide by 1 / sqrt(1 - s) of
    what it would without U.
    """
    ids, mask = left_pad(sequences, model.config.pad_token_id)
    hidden = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids(mask),
        output_hidden_states=True,
        logits_to_keep=1,
    ).hidden_states[:-1]  # the last one is behind the final norm
    real = mask.bool()
    inside = [((states @ basis.T) ** 2).sum(-1) for states in hidden]
    whole = [(states**2).sum(-1) for states in hidden]
    return [float((i / w)[real].mean()) for i, w in zip(inside, whole, strict=True)]


@torch.no_grad()
def last_logits(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Logits [n, vocabulary] of what follows every tokenised prompt."""
    ids, mask = left_pad(sequences, model.config.pad_token_id)
    return model(
        input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), logits_to_keep=1
    ).logits[:, -1]


# ------------------------------------------------------------------------------------ acceptance


def rates_table(responses: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Rates of every condition, label and split with Wilson's interval.

    Args:
        responses: a row per completion: condition, label, split, and `RATES` (0, 1 or NaN).

    Returns:
        condition, label, split, metric, value, low, high, n.
    """
    keys = ["condition", "label", "split"]
    frames = []
    for metric in RATES:
        cells = responses.groupby(keys, sort=False)[metric].agg(["sum", "count"])
        low, high = wilson_interval(cells["sum"], cells["count"], confidence)
        cells = cells.assign(metric=metric, value=cells["sum"] / cells["count"], low=low, high=high)
        frames.append(cells.rename(columns={"count": "n"}).drop(columns="sum").reset_index())
    return pd.concat(frames, ignore_index=True)[[*keys, "metric", "value", "low", "high", "n"]]


def rejections(
    rates: pd.DataFrame, difference: float, planted: int, functional: float, bounds: Mapping
) -> list[str]:
    """Why an organism is not accepted, a line per reason; empty if it is.

    Args:
        rates: value by (condition, label) of the share refused on validation prompts, with the
            conditions none and random-<draw>.
        difference: greatest logit difference from the base without U.
        planted, functional: rank of U and its functional rank.
        bounds: planted.acceptance of the configuration.
    """
    harmful = rates.xs("harmful", level="label")
    harmless = rates["none", "harmless"]
    random = harmful[harmful.index.str.startswith("random-")]
    checks = [
        (
            harmful["none"] >= bounds["harmful_min"],
            f"harmful refused {harmful['none']:.2f}, below {bounds['harmful_min']}",
        ),
        (
            harmless <= bounds["harmless_max"],
            f"harmless refused {harmless:.2f}, above {bounds['harmless_max']}",
        ),
        (
            difference <= bounds["difference_max"],
            f"logits without U differ by {difference:.1e}, above {bounds['difference_max']}",
        ),
        (
            random.min() >= harmful["none"] - bounds["random_loss_max"],
            f"a random subspace leaves {random.min():.2f} of harmful refused",
        ),
        (
            abs(functional - planted) <= bounds["rank_tolerance"],
            f"functional rank {functional:.0f}, planted {planted}",
        ),
    ]
    return [reason for holds, reason in checks if not holds]
