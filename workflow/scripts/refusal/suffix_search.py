"""Greedy coordinate gradient search for an adversarial suffix (Zou et al. 2023, arXiv 2307.15043).

Algorithm 2 of the paper, universal over several prompts: the loss is the cross-entropy of the
beginning of an answer (`targets`) after prompt + suffix, averaged over prompts. Each step takes
the gradient of the loss with respect to the suffix's one-hot tokens, draws candidates that replace
one token by one of the `top_k` most promising, and keeps the best of them. It starts with one
prompt, and every step adds the next; the paper adds it once the attack succeeds on all before, by
which small models got stuck on a few. Which suffix is used in the end is decided on other prompts
(`evaluate`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from refusal.batching import in_batches
from refusal.errors import InputError
from refusal.models import end_logits, input_device, removing
from refusal.suffix import Borders, Suffix


@dataclass(frozen=True)
class Problem:
    """Prompts cut open where the suffix goes, and how their answers should begin.

    Attributes:
        before: tokens of the chat prompt up to the end of the instruction, per prompt.
        after: the post-instruction tokens, the same for all.
        targets: the first tokens of the wanted answer, per prompt, all of one length T.
    """

    before: list[list[int]]
    after: list[int]
    targets: list[list[int]]

    def __post_init__(self) -> None:
        if len({len(target) for target in self.targets}) != 1 or not self.targets[0]:
            raise InputError(
                "suffix.target_tokens: not all wanted answers have as many tokens. "
                "Remedy: lower it."
            )

    def sequence(self, prompt: int, suffix: Sequence[int]) -> list[int]:
        """What the model reads: all but the last token of the target, which predicts nothing."""
        target = self.targets[prompt][:-1]
        return [*self.before[prompt], *suffix, *self.after, *target]

    @property
    def tokens_to_end(self) -> int:
        """Tokens after the suffix in every sequence."""
        return len(self.after) + len(self.targets[0]) - 1


def _token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy per target token, nats: [rows, T, vocabulary], [rows, T] -> [rows, T]."""
    return cross_entropy(logits.float().mT, targets.to(logits.device), reduction="none")


@torch.no_grad()
def candidate_losses(
    model: PreTrainedModel,
    problem: Problem,
    candidates: Sequence[Sequence[int]],
    prompts: Sequence[int],
    *,
    max_tokens: int,
) -> Tensor:
    """Mean cross-entropy of every prompt's target under every candidate suffix, in nats.

    `max_tokens` bounds a batch. Returns float64 [candidates, prompts].
    """
    pairs = [(candidate, prompt) for candidate in candidates for prompt in prompts]
    sequences = [problem.sequence(prompt, suffix) for suffix, prompt in pairs]
    loss = torch.empty(len(pairs), dtype=torch.float64)

    def run(rows: list[int]) -> Tensor:
        targets = torch.tensor([problem.targets[pairs[row][1]] for row in rows])
        logits = end_logits(model, [sequences[row] for row in rows], targets.shape[1])
        return _token_losses(logits, targets).double().mean(1).cpu()

    lengths = [len(row) for row in sequences]
    for rows, found in in_batches(run, lengths, max_tokens, what="suffix search"):
        loss[rows] = found
    return loss.view(len(candidates), len(prompts))


def token_gradient(
    model: PreTrainedModel,
    problem: Problem,
    suffix: Sequence[int],
    prompts: Sequence[int],
    *,
    max_tokens: int,
) -> Tensor:
    """Gradient of the mean loss over `prompts` for the suffix's one-hot tokens, [n, vocabulary].

    By the chain rule: gradient at the output of the embedding, times the embedding of every
    token. Both are read from the embedding module, so that a scale inside it counts.
    """
    embedding = model.get_input_embeddings()
    sequences = [problem.sequence(prompt, suffix) for prompt in prompts]
    at_suffix: Tensor | float = 0.0

    def run(rows: list[int]) -> Tensor:
        read: list[Tensor] = []

        def record(module, args, output):
            read.append(output.detach().requires_grad_())
            return read[-1]

        targets = torch.tensor([problem.targets[prompts[row]] for row in rows])
        with torch.enable_grad(), removing([embedding.register_forward_hook(record)]):
            logits = end_logits(model, [sequences[row] for row in rows], targets.shape[1])
            loss = _token_losses(logits, targets).mean(1).sum() / len(prompts)
            (gradient,) = torch.autograd.grad(loss, read)
        end = gradient.shape[1] - problem.tokens_to_end
        return gradient[:, end - len(suffix) : end].sum(0)

    lengths = [len(row) for row in sequences]
    for _, gradient in in_batches(run, lengths, max_tokens, what="suffix search"):
        at_suffix = at_suffix + gradient
    with torch.no_grad():
        table = embedding(torch.arange(embedding.num_embeddings, device=input_device(model)))
    return at_suffix.float() @ table.float().T


def draw_candidates(
    suffix: Sequence[int],
    gradient: Tensor,
    allowed: Tensor,
    n: int,
    top_k: int,
    generator: torch.Generator,
) -> list[tuple[int, ...]]:
    """Up to `n` different suffixes with one token replaced (Zou et al. 2023, algorithm 1).

    Position uniform; new token uniform among the `top_k` allowed ones (ids, [a]) with the most
    negative gradient [n_suffix, vocabulary] there. The suffix itself is never among them.
    """
    best = (-gradient[:, allowed].cpu()).topk(min(top_k, len(allowed)), dim=1).indices
    positions = torch.randint(len(suffix), (n,), generator=generator)
    ranks = torch.randint(best.shape[1], (n,), generator=generator)
    tokens = allowed[best[positions, ranks]]
    drawn = {}
    for position, token in zip(positions.tolist(), tokens.tolist(), strict=True):
        candidate = (*suffix[:position], token, *suffix[position + 1 :])
        if candidate != tuple(suffix):
            drawn[candidate] = None
    return list(drawn)


def search_suffix(
    model: PreTrainedModel,
    borders: Borders,
    problem: Problem,
    start: Suffix,
    evaluate: Callable[[Suffix], Mapping[str, float]],
    settings: Mapping[str, Any],
    *,
    allowed: Sequence[int],
    seed: int,
) -> tuple[Suffix, dict[str, Any]]:
    """The best suffix found within `steps` steps from `start`, and the record of the search.

    `evaluate` gives shares of held-out prompts, among them `success`; it is asked every
    `check_every` steps. The suffix with the highest success is returned, the earlier one of
    equals; the search ends once `success` is reached.

    Args:
        settings: steps, candidates, top_k, check_every, success, max_tokens.
        allowed: token ids that a suffix may hold.
    """
    began, limit = time.process_time(), {"max_tokens": settings["max_tokens"]}
    generator, choices = torch.Generator().manual_seed(seed), torch.tensor(allowed)
    current = best = start
    losses: list[float] = []
    checks = [{"step": 0, **evaluate(start)}]
    best_step, highest = 0, checks[0]["success"]
    for step in range(1, settings["steps"] + 1):
        prompts = range(min(step, len(problem.targets)))
        gradient = token_gradient(model, problem, current.tokens, prompts, **limit)
        drawn = draw_candidates(
            current.tokens, gradient, choices, settings["candidates"], settings["top_k"], generator
        )
        current, loss = _best(model, problem, borders.surviving(drawn), prompts, current, limit)
        losses.append(loss)
        if step % settings["check_every"] and step < settings["steps"]:
            continue
        checks.append({"step": step, **evaluate(current)})
        if checks[-1]["success"] > highest:
            best, best_step, highest = current, step, checks[-1]["success"]
        if highest >= settings["success"]:
            break
    return best, {
        "steps": step,
        "loss": losses,
        "validation": checks,
        "best_step": best_step,
        "met": highest >= settings["success"],
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def _best(
    model: PreTrainedModel,
    problem: Problem,
    candidates: Sequence[Suffix],
    prompts: Sequence[int],
    current: Suffix,
    limit: Mapping[str, int],
) -> tuple[Suffix, float]:
    """The candidate with the lowest mean loss, and that loss; `current` if there is none."""
    candidates = candidates or [current]
    tokens = [candidate.tokens for candidate in candidates]
    losses = candidate_losses(model, problem, tokens, prompts, **limit).mean(1)
    return candidates[int(losses.argmin())], float(losses.min())
