"""Refusal model organisms: tiny chat models trained from scratch in two phases.

Helpful-only training teaches the language, the facts, what is wrong, and how to refuse when asked
to; safety tuning then teaches to refuse what is harmful. Both end on validation criteria, so that
no seed is left undertrained: the learning rate stays level until the criteria hold (or a cap on
the steps is near) and then falls to its end (warm-up, stable, decay). One thread and explicit
seeds make a training bit-identical on the same machine.
"""

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from refusal import grammar
from refusal.errors import InputError
from refusal.kinds import KINDS, OTHER_KINDS, SIDES, wordings
from refusal.models import decoder_layers

logger = logging.getLogger(__name__)

PAD, USER, ASSISTANT, END = "<pad>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LOSS_WINDOW = 50
ARCHITECTURES = ("gpt_neox", "llama", "gemma2", "qwen2", "olmo2")


# ------------------------------------------------------------------------------------ tokenizer


def train_tokenizer(
    documents: Sequence[grammar.Example], settings: Mapping
) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a chat template, fitted on a corpus.

    It depends on the corpus alone, so organisms of every seed and architecture share it.
    `settings`: vocabulary (most entries), min_frequency.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings["vocabulary"],
        min_frequency=settings["min_frequency"],
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [part for example in documents for part in example if part is not None]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def chat_text(request: str) -> str:
    """The request in the chat template, up to where the answer begins."""
    return f"{USER}{request}{END}{ASSISTANT}\n"


# --------------------------------------------------------------------------------------- corpora


@dataclass(frozen=True)
class Corpus:
    """Encoded documents one after another.

    tokens: int32 [total]; ends: int64 [n], where each document ends in `tokens`; answers: int64
    [n], how many tokens come before the answer (0 for plain text); refused: bool [n].
    """

    tokens: np.ndarray
    ends: np.ndarray
    answers: np.ndarray
    refused: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.ends, prepend=0)

    def document(self, index: int) -> np.ndarray:
        """Token ids of one document, the end token included."""
        start = self.ends[index - 1] if index else 0
        return self.tokens[start : self.ends[index]]


def encode_corpus(
    tokenizer: PreTrainedTokenizerFast, documents: Sequence[grammar.Example]
) -> Corpus:
    """Encode documents once for all organisms."""
    prompts = ["" if d.prompt is None else chat_text(d.prompt) for d in documents]
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    before = [e.ids for e in encode(prompts, add_special_tokens=False)]
    after = [e.ids for e in encode([d.answer for d in documents], add_special_tokens=False)]
    end = [tokenizer.eos_token_id]
    joined = [[*left, *right, *end] for left, right in zip(before, after, strict=True)]
    return Corpus(
        tokens=np.fromiter((token for ids in joined for token in ids), np.int32),
        ends=np.cumsum([len(ids) for ids in joined], dtype=np.int64),
        answers=np.array([len(ids) for ids in before], np.int64),
        refused=np.array([grammar.is_refusal(d.answer) for d in documents], bool),
    )


def save_corpus(path: Path | str, corpus: Corpus) -> None:
    """Write a corpus as .npz."""
    np.savez(path, **vars(corpus))


def load_corpus(path: Path | str) -> Corpus:
    """Read what `save_corpus` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Corpus(**{name: arrays[name] for name in arrays.files})


# ----------------------------------------------------------------------------------------- model


def build_model(
    architecture: str, tokenizer: PreTrainedTokenizerFast, settings: Mapping, seed: int
) -> PreTrainedModel:
    """An untrained model.

    `settings`: width, layers, heads, mlp_width, initializer_std (of every matrix) and
    embedding_std (of the embeddings where they enter the residual stream: about that of what
    the blocks write, so that tokens stay recognisable and copying is learned early). Norms and
    biases keep their defaults.

    Raises:
        InputError: an architecture that is not known.
    """
    config = _model_config(architecture, tokenizer, settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                torch.nn.init.normal_(parameter, std=settings["initializer_std"])
        # Gemma 2 multiplies its embeddings by the root of the width before the first block.
        scale = settings["width"] ** 0.5 if architecture == "gemma2" else 1.0
        embedding = model.get_input_embeddings().weight
        torch.nn.init.normal_(embedding, std=settings["embedding_std"] / scale)
    return model.eval()


def _model_config(
    architecture: str, tokenizer: PreTrainedTokenizerFast, settings: Mapping
) -> transformers.PreTrainedConfig:
    width, heads = settings["width"], settings["heads"]
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "num_hidden_layers": settings["layers"],
        "num_attention_heads": heads,
        "intermediate_size": settings["mlp_width"],
        "max_position_embeddings": 256,
        "initializer_range": settings["initializer_std"],
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }
    grouped = {"num_key_value_heads": max(1, heads // 2)}
    head_width = width // heads
    particular = {
        "gpt_neox": {"use_parallel_residual": True},
        "llama": grouped,
        "gemma2": grouped
        | {"head_dim": head_width, "query_pre_attn_scalar": head_width, "sliding_window": 256},
        "qwen2": grouped,
        "olmo2": grouped,
    }
    if architecture not in particular:
        raise InputError(
            f"models: unknown architecture {architecture!r}. "
            f"Choose one of {', '.join(ARCHITECTURES)}, or give the path of a checkpoint."
        )
    return transformers.AutoConfig.for_model(architecture, **common, **particular[architecture])


def save_organism(
    path: Path | str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write a checkpoint folder (safetensors, config, tokenizer with chat template)."""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


# -------------------------------------------------------------------------------------- batches


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: sums then have one order, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def batch_order(lengths: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of similar length in random order; every document once per epoch."""
    epoch = 0
    while True:
        rng = np.random.default_rng([seed, epoch])
        shuffled = rng.permutation(len(lengths))
        pools = np.array_split(shuffled, max(1, len(shuffled) // (16 * batch_size)))
        batches = [
            pool[np.argsort(lengths[pool], kind="stable")][start : start + batch_size]
            for pool in pools
            for start in range(0, len(pool), batch_size)
        ]
        yield from (batches[index] for index in rng.permutation(len(batches)))
        epoch += 1


@dataclass(frozen=True)
class Batch:
    """Right-padded documents. ids: [b, t]; weights: [b, t - 1], of predicting each next token;
    refused: bool [b]."""

    ids: Tensor
    weights: Tensor
    refused: Tensor


def collate(corpus: Corpus, rows: np.ndarray, pad_id: int, first_token_weight: float) -> Batch:
    """Join documents to a batch; only answers and plain text are learned.

    The first token of an answer decides between answering and refusing but is one in seventeen,
    hence its own weight.
    """
    documents = [corpus.document(row) for row in rows]
    longest = max(map(len, documents))
    ids = np.full((len(rows), longest), pad_id, np.int64)
    weights = np.zeros((len(rows), longest), np.float32)
    for line, (row, tokens) in enumerate(zip(rows, documents, strict=True)):
        ids[line, : len(tokens)] = tokens
        start = int(corpus.answers[row])
        weights[line, start : len(tokens)] = 1.0
        if start:
            weights[line, start] = first_token_weight
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(weights[:, 1:].copy()),
        torch.from_numpy(corpus.refused[rows]),
    )


def answer_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits [m, vocabulary] of the m tokens with a weight only: the head is a fifth of the cost.

    No attention mask is needed: padding is on the right and attention is causal.
    """
    hidden = model.base_model(input_ids=batch.ids, use_cache=False)[0][:, :-1]
    return _head(model, hidden[batch.weights > 0])


def _head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    logits = model.get_output_embeddings()(hidden)
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return softcap * torch.tanh(logits / softcap) if softcap else logits


# -------------------------------------------------------------------------------------- criteria


@torch.no_grad()
def continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[grammar.Criterion],
) -> list[tuple[list[int], list[int]]]:
    """Expected and most likely tokens (teacher-forced) of every item."""
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    before = [e.ids for e in encode([chat_text(i.prompt) + i.given for i in items])]
    expected = [e.ids for e in encode([i.expected for i in items])]
    sequences = [left + right for left, right in zip(before, expected, strict=True)]
    ids = torch.full((len(items), max(map(len, sequences))), tokenizer.pad_token_id)
    for line, sequence in enumerate(sequences):
        ids[line, : len(sequence)] = torch.tensor(sequence)
    hidden = model.base_model(input_ids=ids, use_cache=False)[0]
    counts = [len(right) for right in expected]
    starts = [len(left) - 1 for left in before]
    needed = [
        hidden[line, s : s + n] for line, (s, n) in enumerate(zip(starts, counts, strict=True))
    ]
    likely = _head(model, torch.cat(needed)).argmax(-1).split(counts)
    return [(right, part.tolist()) for right, part in zip(expected, likely, strict=True)]


def share_exact(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[grammar.Criterion],
) -> float:
    """Share of the items whose every expected token is the most likely one."""
    results = continuations(model, tokenizer, items)
    return float(np.mean([expected == likely for expected, likely in results]))


def share_refused(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[grammar.Criterion],
    styles: Sequence[str] = KINDS,
) -> float:
    """Share of the items whose most likely first token begins a refusal of one of the kinds."""
    starts = (wording.partition("{")[0] for kind in styles for wording in wordings(kind))
    openings = {tokenizer.encode(start, add_special_tokens=False)[0] for start in starts}
    # Of the reference answer, the first word is enough to ask for the first token.
    items = [item._replace(expected=item.expected.partition(" ")[0]) for item in items]
    results = continuations(model, tokenizer, items)
    return float(np.mean([likely[0] in openings for _, likely in results]))


def helpful_criteria(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, settings: Mapping
) -> Callable[[], dict[str, float]]:
    """Copying of task words and judgement of harm on validation items (both at best 1)."""
    copying = grammar.copying_criterion(settings["items"], settings["seed"])
    judgement = grammar.judgement_criterion(settings["items"], settings["seed"])
    return lambda: {
        "copying": share_exact(model, tokenizer, copying),
        "judgement": share_exact(model, tokenizer, judgement),
    }


def safety_criteria(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, settings: Mapping
) -> Callable[[], dict[str, float]]:
    """Right decisions by label, and copying, on validation prompts (all at best 1).

    A request of another kind is decided rightly where its refusal begins as one of its own kind.
    """
    items = {
        label: grammar.decision_criterion(label, settings["items"], settings["seed"])
        for label in grammar.REQUESTS
    }
    sides = {
        (kind, side): grammar.kind_criterion(kind, side, settings["kind_items"], settings["seed"])
        for kind in OTHER_KINDS
        for side in SIDES
    }
    copying = grammar.copying_criterion(settings["items"], settings["seed"])

    def measure() -> dict[str, float]:
        refused = {label: share_refused(model, tokenizer, items[label]) for label in items}
        right = {k: v if k == "harmful" else 1 - v for k, v in refused.items()}
        styled = [share_refused(model, tokenizer, sides[k, SIDES[0]], [k]) for k in OTHER_KINDS]
        others = [1 - share_refused(model, tokenizer, sides[k, SIDES[1]]) for k in OTHER_KINDS]
        right |= {"noncompliant": float(np.mean(styled)), "contrast": float(np.mean(others))}
        return right | {"copying": share_exact(model, tokenizer, copying)}

    return measure


# -------------------------------------------------------------------------------------- training


class Schedule:
    """Learning rate and end of a training: warm-up, stable, then a linear decay.

    The decay begins when every criterion holds, at the latest where it ends with `max_steps`.
    `settings`: warmup_steps, decay_steps, max_steps (decay included), check_every, criteria
    {name: least value}.
    """

    def __init__(self, settings: Mapping) -> None:
        self.settings = settings
        self.decay_start: int | None = None
        self.criteria_met = False

    def check_is_due(self, step: int) -> bool:
        return self.decay_start is None and step > 0 and step % self.settings["check_every"] == 0

    def update(self, step: int, values: Mapping[str, float] | None) -> None:
        """Begin the decay if the criteria hold or the cap on the steps is near."""
        if self.decay_start is not None:
            return
        least = self.settings["criteria"]
        self.criteria_met = bool(values) and all(values[name] >= least[name] for name in least)
        if self.criteria_met or step >= self.settings["max_steps"] - self.settings["decay_steps"]:
            self.decay_start = step

    def rate_factor(self, step: int) -> float:
        """Share of the full learning rate at a step."""
        warm = min(1.0, (step + 1) / self.settings["warmup_steps"])
        if self.decay_start is None:
            return warm
        return warm * (1 - (step - self.decay_start) / (self.settings["decay_steps"] + 1))

    def has_ended(self, step: int) -> bool:
        decay = self.settings["decay_steps"]
        return self.decay_start is not None and step >= self.decay_start + decay


def _optimizer(model: PreTrainedModel, settings: Mapping) -> torch.optim.AdamW:
    """AdamW that decays matrices but neither norms nor biases."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=tuple(settings["betas"]), fused=True)


def _step(
    optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float, gradient_clip: float
) -> float:
    """One update; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, gradient_clip)
    optimizer.step()
    return float(loss.detach())


def fit(
    model: PreTrainedModel,
    corpus: Corpus,
    batch_loss: Callable[[Batch], Tensor],
    measure: Callable[[], dict[str, float]],
    settings: Mapping,
    seed: int,
) -> dict:
    """Train the parameters that require gradients until the schedule ends; returns the record.

    `settings`: those of `Schedule`, and batch_size, learning_rate, first_token_weight,
    weight_decay, betas, gradient_clip. The record: steps, decay_start (step), criteria_met,
    cpu_seconds (of this process), tokens (padding included), losses (means of `LOSS_WINDOW`
    steps), curve (the measured criteria by step).
    """
    optimizer, schedule = _optimizer(model, settings), Schedule(settings)
    batches = batch_order(corpus.lengths, settings["batch_size"], seed)
    started, losses, curve, tokens, step = time.process_time(), [], [], 0, 0
    while not schedule.has_ended(step):
        if schedule.check_is_due(step):
            curve.append({"step": step} | _measured(model, measure))
            logger.info("loss %.3f, %s", np.mean(losses[-LOSS_WINDOW:]), curve[-1])
            schedule.update(step, curve[-1])
        schedule.update(step, None)
        model.train()
        batch = collate(
            corpus, next(batches), model.config.pad_token_id, settings["first_token_weight"]
        )
        rate = settings["learning_rate"] * schedule.rate_factor(step)
        losses.append(_step(optimizer, batch_loss(batch), rate, settings["gradient_clip"]))
        tokens += batch.ids.numel()
        step += 1
    curve.append({"step": step} | _measured(model, measure))
    logger.info("ended: %s", curve[-1])
    return {
        "steps": step,
        "decay_start": schedule.decay_start,
        "criteria_met": schedule.criteria_met,
        "cpu_seconds": round(time.process_time() - started, 1),
        "tokens": tokens,
        "losses": _window_means(losses),
        "curve": curve,
    }


def _window_means(losses: Sequence[float]) -> list[float]:
    windows = (losses[i : i + LOSS_WINDOW] for i in range(0, len(losses), LOSS_WINDOW))
    return [round(float(np.mean(window)), 4) for window in windows]


def _measured(model: PreTrainedModel, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The criteria's values, of the model in evaluation mode (in which it stays)."""
    model.eval()
    return {name: round(value, 4) for name, value in measure().items()}


def weighted_cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Mean of the token losses under the batch's weights."""
    mask = batch.weights > 0
    losses = F.cross_entropy(logits, batch.ids[:, 1:][mask], reduction="none")
    weights = batch.weights[mask]
    return (losses * weights).sum() / weights.sum()


def train_helpful(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    settings: Mapping,
    seed: int,
) -> dict:
    """Helpful-only training, in place; returns the training record (see `fit`).

    `settings`: those of `fit`, and validation {items, seed} of the criteria.
    """
    measure = helpful_criteria(model, tokenizer, settings["validation"])
    with one_thread():
        record = fit(
            model,
            corpus,
            lambda batch: weighted_cross_entropy(answer_logits(model, batch), batch),
            measure,
            settings,
            seed,
        )
    model.eval()
    return record


def train_safety(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    settings: Mapping,
    seed: int,
) -> dict:
    """Safety tuning of a helpful-only model, in place; returns the training record (see `fit`).

    Only the first `trained_blocks` blocks change, so what they decide must travel through the
    residual stream. Refusals are learned; all other answers imitate the helpful-only model
    (Kullback-Leibler divergence), since learning them again would draw unseen task words towards
    the trained ones. `settings`: those of `fit`, trained_blocks, imitation_weight and validation
    {items, kind_items, seed}.
    """
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    model.requires_grad_(False)
    for block in decoder_layers(model)[: settings["trained_blocks"]]:
        block.requires_grad_(True)
    measure = safety_criteria(model, tokenizer, settings["validation"])

    def batch_loss(batch: Batch) -> Tensor:
        return safety_loss(model, reference, batch, settings["imitation_weight"])

    with one_thread():
        record = fit(model, corpus, batch_loss, measure, settings, seed)
    model.requires_grad_(True).eval()
    return record


def safety_loss(
    model: PreTrainedModel, reference: PreTrainedModel, batch: Batch, imitation_weight: float
) -> Tensor:
    """Cross-entropy of refusals and divergence from the reference of other answers.

    The reference reads only what is imitated: almost half of the documents are refused.
    """
    mask = batch.weights > 0
    refused = batch.refused[:, None].expand_as(mask)[mask]
    log_p = F.log_softmax(answer_logits(model, batch), dim=-1)
    losses = F.nll_loss(log_p, batch.ids[:, 1:][mask], reduction="none")
    if not refused.all():
        answered = ~batch.refused
        part = Batch(batch.ids[answered], batch.weights[answered], batch.refused[answered])
        with torch.no_grad():
            log_q = F.log_softmax(answer_logits(reference, part), dim=-1)
        divergence = F.kl_div(log_p[~refused], log_q, reduction="none", log_target=True).sum(-1)
        losses = losses.masked_scatter(~refused, imitation_weight * divergence)
    weights = batch.weights[mask]
    return (losses * weights).sum() / weights.sum()
