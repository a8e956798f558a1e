"""(f) Cross-entropy of texts in batches by a token budget, against batches of two."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from measuring import Result, alternate, compare_peaks, compare_seconds, require
from subjects import SEED, Subject

from refusal.batching import position_ids
from refusal.directions import random_subspace
from refusal.interventions import Intervention, steering
from refusal.losses import text_losses
from refusal.operators import Operator

GROUP = "f cross-entropy"
PLAIN_BATCH = 2
LARGE_BATCH = 64
TOLERANCE = 1e-7


def ours(subject: Subject, texts: list[str]) -> float:
    """Mean cross-entropy per token in nats, the library's way."""
    encoded = subject.tokenizer(texts, add_special_tokens=False).input_ids
    table = text_losses(subject.model, encoded, max_tokens=1024)
    return table["nll"].sum() / table["tokens"].sum()


@torch.no_grad()
def plain(
    subject: Subject,
    texts: list[str],
    batch: int = PLAIN_BATCH,
    softmax_type: torch.dtype = torch.float32,
) -> float:
    """The published way (methods 2.7): two texts at a time in order, logits at every position."""
    total, count = 0.0, 0
    for start in range(0, len(texts), batch):
        encoded = subject.tokenizer(
            texts[start : start + batch],
            padding=True,
            add_special_tokens=False,
            return_tensors="pt",
        )
        ids, mask = encoded.input_ids, encoded.attention_mask
        logits = subject.model(
            input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)
        ).logits
        log_probabilities = logits.to(softmax_type).log_softmax(-1)
        chosen = log_probabilities[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
        # The last position predicts nothing; the first real token is given.
        predicted = (mask[:, 1:] * mask[:, :-1]).bool()
        total -= float(chosen[predicted].double().sum())
        count += int(predicted.sum())
    return total / count


def measure(subject: Subject, quick: bool) -> list[Result]:
    """Time against batches of two, unsteered and ablated, and against the same code with 64."""
    texts = subject.texts("text", "test")
    repeats = 1 if quick else 9
    basis = random_subspace(subject.model.config.hidden_size, 1, SEED).basis
    ablation = Intervention(Operator.project(basis), "all")
    results = []
    for name, context in (
        ("without steering", nullcontext),
        ("under ablation", lambda: steering(subject.model, ablation)),
    ):
        with context():
            exact = plain(subject, texts, softmax_type=torch.float64)
            # The float32 softmax of the timed side is itself some 3e-7 off.
            deviation = abs(ours(subject, texts) - exact)
            require(deviation <= TOLERANCE, f"cross-entropy deviates by {deviation:.1e} nats")
            two = alternate(lambda: ours(subject, texts), lambda: plain(subject, texts), repeats)
            large = alternate(
                lambda: ours(subject, texts), lambda: plain(subject, texts, LARGE_BATCH), repeats
            )
        parity = f"mean cross-entropy within {deviation:.0e} nats of a float64 softmax"
        what = f"cross-entropy of {len(texts)} texts {name}, {subject.name}"
        results += [
            compare_seconds(
                GROUP, f"{what}, against batches of two", two, at_least=4, parity=parity
            ),
            compare_seconds(GROUP, f"{what}, against the same code in batches of 64", large),
        ]
    return [
        *results,
        compare_peaks(
            GROUP,
            "peak memory of cross-entropy",
            lambda: ours(subject, texts),
            lambda: plain(subject, texts),
            at_most=None,
        ),
    ]
