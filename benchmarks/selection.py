"""(d) Selection of the direction, against the plain loop over all candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from measuring import Result, alternate, compare_peaks, compare_seconds, require
from subjects import Subject
from torch import Tensor, nn
from transformers import PreTrainedModel

from refusal.activations import sweep
from refusal.batching import left_pad, position_ids
from refusal.directions import Candidate, Direction, class_means, difference_in_means
from refusal.models import block_input, decoder_layers, first_tensor, write_modules
from refusal.selection import SelectionSettings, choose, score_candidates

GROUP = "d selection"
SETTINGS = SelectionSettings()
BATCH = 32
TOLERANCE = 5e-6
SCORES = ["bypass", "induce", "kl"]
Change = Callable[[Tensor], Tensor]


def dim_candidates(subject: Subject) -> dict[Candidate, Direction]:
    """Difference in means at every position and layer, from the training prompts."""
    harmful, harmless = (subject.sequences(label, "train") for label in ("harmful", "harmless"))
    positions = subject.n_positions
    residual = sweep(subject.model, harmful + harmless, positions, max_tokens=2048).residual
    refused, answered = np.split(np.arange(len(residual)), [len(harmful)])
    means = [class_means(residual, refused), class_means(residual, answered)]
    return {
        (position, layer): difference_in_means(means[0][position, layer], means[1][position, layer])
        for position in range(-positions, 0)
        for layer in range(subject.n_layers)
    }


@contextmanager
def changed(inputs: Sequence[nn.Module], outputs: Sequence[nn.Module], change: Change) -> Iterator:
    """Hooks in the published way: one function on block inputs and on module outputs."""

    def before(module, args, kwargs):
        hidden = change(block_input(args, kwargs))
        if args:
            return (hidden, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": hidden}

    def after(module, args, output):
        hidden = change(first_tensor(output))
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in inputs]
    handles += [module.register_forward_hook(after) for module in outputs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def full_logits_at_the_end(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Batches of 32 in the given order, logits at all positions in float64, then the last one."""
    last = []
    for start in range(0, len(sequences), BATCH):
        ids, mask = left_pad(sequences[start : start + BATCH], 0)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
        ).logits.double()
        last.append(logits[:, -1])
    return torch.cat(last)


def refusal_log_odds(logits: Tensor, tokens: Sequence[int]) -> float:
    """Mean refusal metric (methods 2.3)."""
    refusal = logits.softmax(-1)[:, list(tokens)].sum(-1)
    return float(((refusal + 1e-8).log() - (1 - refusal + 1e-8).log()).mean())


def divergence(base: Tensor, steered: Tensor) -> float:
    """Mean KL divergence in the published form (methods 2.4)."""
    p, q = base.softmax(-1), steered.softmax(-1)
    return float((p * ((p + 1e-6).log() - (q + 1e-6).log())).sum(-1).mean())


def plain_scores(
    subject: Subject, candidates: dict[Candidate, Direction], harmful: list, harmless: list
) -> pd.DataFrame:
    """Arditi et al. 2024, appendix C, as written: three passes for every position and layer."""
    model, tokens = subject.model, subject.refusal_tokens
    blocks = list(decoder_layers(model))
    writes = [module for pair in write_modules(model) for module in pair]
    base = full_logits_at_the_end(model, harmless)
    full_logits_at_the_end(model, harmful)  # the published code scores the baseline of both
    rows = []
    for (position, layer), direction in sorted(candidates.items()):
        unit = direction.basis[0] if direction.rank else torch.zeros(direction.basis.shape[1])
        norm = direction.norm if direction.rank else 0.0

        def ablate(h: Tensor, unit: Tensor = unit) -> Tensor:
            return h - (h @ unit)[..., None] * unit

        def add(h: Tensor, shift: Tensor = unit * norm) -> Tensor:
            return h + shift

        with changed(blocks, writes, ablate):
            bypass = refusal_log_odds(full_logits_at_the_end(model, harmful), tokens)
        with changed(blocks, writes, ablate):
            kl = divergence(base, full_logits_at_the_end(model, harmless))
        with changed([blocks[layer]], [], add):
            induce = refusal_log_odds(full_logits_at_the_end(model, harmless), tokens)
        rows.append((position, layer, bypass, induce, kl))
    return pd.DataFrame(rows, columns=["position", "layer", *SCORES])


def plain_choice(scores: pd.DataFrame, n_layers: int) -> Candidate:
    """Lowest bypass among the candidates that pass the published thresholds."""
    passing = scores[
        (scores["layer"] < int(n_layers * (1 - SETTINGS.prune_layers)))
        & (scores["kl"] <= SETTINGS.kl_max)
        & (scores["induce"] >= SETTINGS.induce_min)
    ]
    if passing.empty:
        return (0, -1)
    best = passing.loc[passing["bypass"].idxmin()]
    return int(best["position"]), int(best["layer"])


def _parity(table: pd.DataFrame, plain: pd.DataFrame, n_layers: int) -> str:
    """Scores of the candidates that were run, and the choice unless both find none."""
    both = table.merge(plain, on=["position", "layer"], suffixes=("", "_plain"))
    run = both[both["bypass"].notna()]
    require(len(run) > 0, "no candidate was run")
    deviation = max(float((run[s] - run[f"{s}_plain"]).abs().max()) for s in SCORES)
    require(deviation <= TOLERANCE, f"scores deviate by {deviation:.1e}")
    selected = choose(table, "dim", SETTINGS).query("selected and not fallback")
    chosen = [(row.position, row.layer) for row in selected.itertuples()]
    choice = chosen[0] if chosen else (0, -1)
    require(choice == plain_choice(plain, n_layers), f"another choice: {choice}")
    outcome = f"same choice {choice}" if chosen else "neither finds a candidate that passes"
    return f"scores within {deviation:.0e}, {outcome}; {len(run)} of {len(both)} candidates run"


def measure(subject: Subject, quick: bool) -> list[Result]:
    """Time and memory with pruned layers and zero directions left out, as the library does."""
    candidates = dim_candidates(subject)
    harmful, harmless = (
        subject.sequences(label, "validation") for label in ("harmful", "harmless")
    )
    norms = {
        key: 0.0 if math.isnan(direction.norm) else direction.norm
        for key, direction in candidates.items()
    }

    def ours() -> pd.DataFrame:
        return score_candidates(
            subject.model,
            candidates,
            harmful=harmful,
            harmless=harmless,
            refusal_tokens=subject.refusal_tokens,
            scope="all",
            dim_norms=norms,
            settings=SETTINGS,
            max_tokens=2048,
        )

    def plain() -> pd.DataFrame:
        return plain_scores(subject, candidates, harmful, harmless)

    parity = _parity(ours(), plain(), subject.n_layers)
    timing = alternate(ours, plain, 1 if quick else 5)
    what = f"selection among {len(candidates)} candidates against the plain loop, {subject.name}"
    return [
        compare_seconds(GROUP, what, timing, at_least=2.5, parity=parity),
        compare_peaks(GROUP, "peak memory of selection", ours, plain, at_most=None),
    ]
