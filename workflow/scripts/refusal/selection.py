"""Selection: which (position, layer) a direction is taken from.

Three scores on validation prompts for every candidate, thresholds, and a ranking: Arditi et al.
2024, appendix C (scope "all"), and the local form of Rocchetti & Ferrara 2026, section 1.6 of the
methods (scope "source"). Nothing is generated: all scores are read from next-token logits.

Several candidates share a forward pass. A prompt is computed once up to the block where the first
operator acts; from there on the batch holds one copy of it per operator (`multiplied`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from refusal.activations import last_position_logits
from refusal.batching import in_batches
from refusal.directions import Candidate, Direction
from refusal.errors import InputError
from refusal.models import (
    block_input,
    decoder_layers,
    end_logits,
    first_tensor,
    refusal_metric,
    removing,
    write_modules,
)
from refusal.operators import Operator

Scope = Literal["source", "all"]
Method = Literal["dim", "inlp_faithful", "inlp_corrected"]
Sequences = Sequence[Sequence[int]]

ZERO_DIRECTION = "zero direction"
PRUNED_LAYER = "pruned layer"
NO_SCORE = "score not finite"

# Added to probabilities in the published divergence (Arditi et al. 2024, code).
KL_EPSILON = 1e-6


@dataclass(frozen=True)
class SelectionSettings:
    """Thresholds of the selection (`selection` in the configuration).

    Attributes:
        kl_max: largest KL divergence that ablation may cause on harmless prompts, in nats.
        induce_min: smallest refusal metric that addition must reach on harmless prompts.
        prune_layers: share of the last layers that are left out.
        additions: multiples of the direction tried in scope "source"; the best one counts.
    """

    kl_max: float = 0.1
    induce_min: float = 0.0
    prune_layers: float = 0.2
    additions: tuple[float, ...] = (0.5, 1.0, 2.0)


# --- several operators in one forward pass ------------------------------------------------------


def _repeated(value: Any, rows: int, copies: int) -> Any:
    """`value` with every tensor of `rows` batch rows repeated `copies` times (masks, positions)."""
    if isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == rows:
        return value.repeat(copies, *[1] * (value.ndim - 1))
    if isinstance(value, tuple):
        return tuple(_repeated(part, rows, copies) for part in value)
    if isinstance(value, dict):
        return {key: _repeated(part, rows, copies) for key, part in value.items()}
    return value


@contextmanager
def multiplied(
    model: PreTrainedModel, operators: Sequence[Operator], layer: int, *, writes: bool
) -> Iterator[None]:
    """Within it a forward pass goes on with one copy of its batch per operator from `layer` on.

    Logits come out as [len(operators) * rows, ...], all rows of the first operator first. Blocks
    before `layer` run on the batch as it is, so what the copies share is computed once.

    Args:
        model: any decoder; its forward must be called without a cache.
        operators: what happens to each copy.
        layer: block whose input is multiplied and operated on.
        writes: operate also on all that attention and MLP of every block write; with `layer` 0.
    """
    copies = len(operators)
    operator = Operator.stack(operators)
    rows = 0

    def operate(hidden: Tensor) -> Tensor:
        return operator(hidden.reshape(copies, -1, hidden.shape[-1])).view(hidden.shape)

    def enter(module, args, kwargs):
        nonlocal rows
        hidden = block_input(args, kwargs)
        rows = len(hidden)
        return follow(module, args, kwargs, operate(hidden.repeat(copies, 1, 1)))

    def follow(module, args, kwargs, hidden=None):
        hidden = block_input(args, kwargs) if hidden is None else hidden
        rest = _repeated(args[1:], rows, copies)
        kwargs = _repeated({k: v for k, v in kwargs.items() if k != "hidden_states"}, rows, copies)
        return (hidden, *rest), kwargs

    def write(module, args, output):
        operated = operate(first_tensor(output))
        return operated if isinstance(output, Tensor) else (operated, *output[1:])

    handles: list = []
    with removing(handles):
        for index, block in enumerate(decoder_layers(model)):
            if index >= layer:
                hook = enter if index == layer else follow
                handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
        for modules in write_modules(model) if writes else []:
            handles.extend(module.register_forward_hook(write) for module in modules)
        yield


@torch.no_grad()
def steered_logits(
    model: PreTrainedModel,
    sequences: Sequences,
    operators: Sequence[Operator],
    layer: int,
    *,
    writes: bool,
    max_tokens: int,
) -> Iterator[tuple[slice, list[int], Tensor]]:
    """Next-token logits of every prompt under every operator, batch by batch.

    Args:
        sequences: token ids of the prompts.
        operators, layer, writes: see `multiplied`.
        max_tokens: bound on operators x rows x longest row of a batch.

    Yields:
        Slice of the operators, row numbers, and logits [operators, rows, vocabulary] at the last
        position.
    """
    lengths = [len(sequence) for sequence in sequences]
    # A stacked operator takes the memory of as many tokens as it has rows, so those count too.
    cost = max(lengths) + max(operator.rank for operator in operators)
    together = max(1, min(len(operators), max_tokens // cost))

    def run(rows: list[int]) -> Tensor:
        return end_logits(model, [sequences[row] for row in rows])[:, -1]

    for start in range(0, len(operators), together):
        part = slice(start, start + together)
        copies = len(operators[part])
        with multiplied(model, operators[part], layer, writes=writes):
            budget = max(1, max_tokens // copies)
            for rows, logits in in_batches(run, lengths, budget, what="selection"):
                yield part, rows, logits.view(copies, len(rows), -1)


# --- scores -------------------------------------------------------------------------------------


def kl_divergence(base_logits: Tensor, steered_logits: Tensor) -> Tensor:
    """KL(base || steered) of next-token distributions, [..., vocabulary] -> [...], float64, nats.

    The published form: sum p (log(p + 1e-6) - log(q + 1e-6)) (Arditi et al. 2024, appendix C).
    """
    base, steered = (x.double().softmax(-1) for x in (base_logits, steered_logits))
    return (base * ((base + KL_EPSILON).log() - (steered + KL_EPSILON).log())).sum(-1)


@dataclass(frozen=True)
class _Scorer:
    """What all scores share: the model, the validation prompts and the unsteered logits."""

    model: PreTrainedModel
    harmful: Sequences
    harmless: Sequences
    base_logits: Tensor  # [len(harmless), vocabulary]
    refusal_tokens: Sequence[int]
    max_tokens: int

    def metric(
        self, sequences: Sequences, operators: Sequence[Operator], layer: int, writes: bool = False
    ) -> np.ndarray:
        """Mean refusal metric of the prompts under each operator, float64 [len(operators)]."""
        total = np.zeros(len(operators))
        for part, _, logits in steered_logits(
            self.model, sequences, operators, layer, writes=writes, max_tokens=self.max_tokens
        ):
            total[part] += refusal_metric(logits, self.refusal_tokens).sum(-1).cpu().numpy()
        return total / len(sequences)

    def projections(
        self, bases: Mapping[Candidate, Tensor], scope: Scope
    ) -> dict[str, dict[Candidate, float]]:
        """Scores bypass and kl per candidate, with its basis projected out in the given scope."""
        scores: dict[str, dict[Candidate, float]] = {"bypass": {}, "kl": {}}
        groups = {0: list(bases)} if scope == "all" else _by_layer(bases)
        for layer, keys in groups.items():
            operators = [Operator.project(bases[key]) for key in keys]
            bypass = self.metric(self.harmful, operators, layer, writes=scope == "all")
            kl = self.kl(operators, layer, writes=scope == "all")
            scores["bypass"].update(zip(keys, bypass.tolist(), strict=True))
            scores["kl"].update(zip(keys, kl.tolist(), strict=True))
        return scores

    def additions(
        self, vectors: Mapping[Candidate, Tensor], multiples: Sequence[float]
    ) -> dict[Candidate, float]:
        """Score induce per candidate: the best over the multiples of its vector."""
        scores: dict[Candidate, float] = {}
        for layer, keys in _by_layer(vectors).items():
            operators = [Operator.add(m * vectors[key]) for key in keys for m in multiples]
            metric = self.metric(self.harmless, operators, layer).reshape(len(keys), -1)
            scores.update(zip(keys, metric.max(axis=1).tolist(), strict=True))
        return scores

    def kl(self, operators: Sequence[Operator], layer: int, writes: bool) -> np.ndarray:
        """Mean KL divergence from the unsteered model on harmless prompts, [len(operators)]."""
        total = np.zeros(len(operators))
        for part, rows, logits in steered_logits(
            self.model, self.harmless, operators, layer, writes=writes, max_tokens=self.max_tokens
        ):
            base = self.base_logits[rows].to(logits.device)
            total[part] += kl_divergence(base, logits).sum(-1).cpu().numpy()
        return total / len(self.harmless)


def _by_layer(candidates: Mapping[Candidate, Any]) -> dict[int, list[Candidate]]:
    """Candidates grouped by layer, in order."""
    groups: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate[1], []).append(candidate)
    return groups


def score_candidates(
    model: PreTrainedModel,
    directions: Mapping[Candidate, Direction],
    *,
    harmful: Sequences,
    harmless: Sequences,
    refusal_tokens: Sequence[int],
    scope: Scope,
    dim_norms: Mapping[Candidate, float],
    settings: SelectionSettings,
    max_tokens: int,
) -> pd.DataFrame:
    """Score every candidate: the rows of the selection table before a choice is made.

    bypass: mean refusal metric of harmful prompts with the whole basis projected out.
    induce: mean refusal metric of harmless prompts with the first direction, scaled to the length
        of the mean difference, added to the input of the candidate's block.
    kl: mean divergence from the unsteered model on harmless prompts under that projection.

    Scope "all" projects at every block input and every write (Arditi et al.; as projecting twice
    changes nothing, the embedding and the writes suffice) and adds once the length. Scope "source"
    projects at the input of the candidate's block only and takes the best of the multiples
    `settings.additions` (the published code takes the maximum).

    Candidates without a direction and those in pruned layers are not run; their scores are NaN.

    Args:
        model: the model.
        directions: one method's direction per (position, layer).
        harmful: token ids of harmful validation prompts.
        harmless: token ids of harmless validation prompts.
        refusal_tokens: tokens whose probability the refusal metric sums.
        scope: "source" or "all".
        dim_norms: length of the raw mean difference per candidate.
        settings: thresholds.
        max_tokens: token budget of a forward pass, copies included.

    Returns:
        One row per candidate: scope, position, layer, bypass, induce, kl, accuracy (of the first
        INLP classifier), norm (length of the addition), rank, reason (why it was not run, or "").

    Raises:
        InputError: no validation prompts of a class.
    """
    for label, sequences in (("harmful", harmful), ("harmless", harmless)):
        if not sequences:
            raise InputError(
                f"selection: no {label} validation prompt. Add some, or set "
                "`directions.filter: false` if filtering left none."
            )
    n_layers = len(decoder_layers(model))
    table = _candidate_table(directions, dim_norms, scope, n_layers, settings)
    to_run = [
        (row.position, row.layer) for row in table.itertuples(index=False) if row.reason == ""
    ]
    if not to_run:
        return table
    base = last_position_logits(model, harmless, max_tokens=max_tokens)
    scorer = _Scorer(model, harmful, harmless, base, refusal_tokens, max_tokens)
    multiples = settings.additions if scope == "source" else (1.0,)
    vectors = {key: directions[key].basis[0] * dim_norms[key] for key in to_run}
    scores = scorer.projections({key: directions[key].basis for key in to_run}, scope)
    scores["induce"] = scorer.additions(vectors, multiples)
    keys = list(zip(table["position"], table["layer"], strict=True))
    return table.assign(
        **{name: [values.get(key, math.nan) for key in keys] for name, values in scores.items()}
    )


def _candidate_table(
    directions: Mapping[Candidate, Direction],
    dim_norms: Mapping[Candidate, float],
    scope: Scope,
    n_layers: int,
    settings: SelectionSettings,
) -> pd.DataFrame:
    """The candidates in order, not scored yet, with the reasons why some will not be."""
    first_pruned = int(n_layers * (1 - settings.prune_layers))
    rows = []
    for (position, layer), direction in sorted(directions.items()):
        norm = dim_norms[position, layer]
        reasons = []
        if direction.rank == 0 or norm == 0:
            reasons.append(ZERO_DIRECTION)
        if layer >= first_pruned:
            reasons.append(PRUNED_LAYER)
        rows.append(
            {
                "scope": scope,
                "position": position,
                "layer": layer,
                "bypass": math.nan,
                "induce": math.nan,
                "kl": math.nan,
                "accuracy": float(direction.accuracies[0]) if direction.rank else math.nan,
                "norm": float(norm),
                "rank": direction.rank,
                "reason": "; ".join(reasons),
            }
        )
    return pd.DataFrame(rows)


# --- choice -------------------------------------------------------------------------------------


def choose(table: pd.DataFrame, method: Method, settings: SelectionSettings) -> pd.DataFrame:
    """Apply the thresholds and select one candidate per scope.

    A candidate passes if it was run, its scores are finite, kl <= kl_max and induce >= induce_min.
    Selected is, for the difference in means, the passing candidate of lowest bypass score, and for
    INLP the one of highest accuracy of the first classifier, then lowest bypass (methods 1.6).

    If none passes, the least violating of those that were run is selected, with fallback true:
    both thresholds are missed by a factor (KL by kl / kl_max, induce, a log-odds, by
    exp(induce_min - induce)), and the candidate whose larger factor is smallest is taken, then
    the lowest bypass. The published code has no such rule: for the difference in means it stops.

    Args:
        table: rows of `score_candidates`, any number of scopes.
        method: method of the directions.
        settings: thresholds.

    Returns:
        The table with `reason` completed and the columns passed, selected, fallback.

    Raises:
        InputError: no candidate of a scope was run, so that there is nothing to choose from.
    """
    table = table.reset_index(drop=True)
    table["reason"] = [_reasons(row, settings) for row in table.itertuples(index=False)]
    table["passed"] = table["reason"] == ""
    table["selected"] = False
    table["fallback"] = False
    for scope, rows in table.groupby("scope", sort=False):
        best = _best(rows, method, settings)
        if best is None:
            raise InputError(
                f"selection: no {method} candidate could be scored in scope {scope}: "
                f"{_count_reasons(rows)}. Lower `selection.prune_layers`, or check that the model "
                "treats harmful and harmless prompts differently."
            )
        table.loc[best, "selected"] = True
        table.loc[best, "fallback"] = not table.loc[best, "passed"]
    return table


def _reasons(row: Any, settings: SelectionSettings) -> str:
    """Why a candidate does not pass, semicolon-joined; "" if it does."""
    if row.reason:
        return row.reason
    if not np.isfinite([row.bypass, row.induce, row.kl]).all():
        return NO_SCORE
    reasons = []
    if row.kl > settings.kl_max:
        reasons.append(f"kl above {settings.kl_max:g}")
    if row.induce < settings.induce_min:
        reasons.append(f"induce below {settings.induce_min:g}")
    return "; ".join(reasons)


def _best(rows: pd.DataFrame, method: Method, settings: SelectionSettings) -> int | None:
    """Index of the selected row of one scope, None if no candidate has finite scores."""
    passing = rows[rows["passed"]]
    if passing.empty:
        passing = rows[np.isfinite(rows[["bypass", "induce", "kl"]]).all(axis=1)]
        rank = [violation(passing, settings), passing["bypass"]]
    elif method == "dim":
        rank = [passing["bypass"]]
    else:
        rank = [-passing["accuracy"], passing["bypass"]]
    if passing.empty:
        return None
    # lexsort sorts by its last key first and is stable, so ties fall to the first row.
    return passing.index[np.lexsort([key.to_numpy() for key in reversed(rank)])[0]]


def violation(rows: pd.DataFrame, settings: SelectionSettings) -> pd.Series:
    """Logarithm of the larger of the two factors by which thresholds are missed; see `choose`."""
    excess = np.log(rows["kl"].clip(lower=1e-300) / settings.kl_max)
    shortfall = settings.induce_min - rows["induce"]
    return np.maximum(excess, shortfall)


def _count_reasons(rows: pd.DataFrame) -> str:
    """ "6 zero direction, 3 pruned layer", for an error message."""
    counts = rows["reason"].value_counts()
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
