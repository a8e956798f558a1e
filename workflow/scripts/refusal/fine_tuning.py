"""Fine-tuning: a low-rank adapter (LoRA, Hu et al. 2021) that unlearns refusal, in memory.

The comparator of Arditi et al. 2024, Table 10: harmful training prompts with compliant answers,
rank 16, alpha 32, 4 epochs. It changes behaviour by gradient descent on examples, where the other
interventions use activations alone. Nothing is written: the adapter ends with the process.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from refusal.errors import InputError
from refusal.losses import completion_logits
from refusal.models import architecture_name, decoder_layers, encode_prompts

logger = logging.getLogger(__name__)

Pair = tuple[Sequence[int], Sequence[int]]

# As in the Trainer of transformers, with which adapters are usually trained.
GRADIENT_CLIP = 1.0
SWITCH_OFF = "or leave fine-tuning out with `interventions.fine_tuning: null`"


def training_pairs(
    tokenizer: PreTrainedTokenizerBase,
    prompts: pd.DataFrame,
    *,
    end_token: int,
    limit: int,
    seed: int,
) -> list[Pair]:
    """(prompt ids, compliant answer ids) of harmful training prompts, at most `limit` of them.

    Args:
        tokenizer: tokenizer with a chat template.
        prompts: schema of prompts.parquet; rows without answer are left out.
        end_token: the token that ends an answer; it is learned too.
        seed: which prompts are drawn if there are more than `limit`.

    Raises:
        InputError: no harmful training prompt has an answer.
    """
    rows = prompts.query("label == 'harmful' and split == 'train'")
    rows = rows[rows.answer.notna()]
    if rows.empty:
        raise InputError(
            "prompts.source: no harmful prompt with split 'train' has an answer to fine-tune on. "
            f"Remedy: add a column `answer` with compliant answers, {SWITCH_OFF}."
        )
    if len(rows) > limit:
        rows = rows.sample(limit, random_state=seed).sort_index()
    given = encode_prompts(tokenizer, list(rows.text))
    answers = tokenizer(list(rows.answer), add_special_tokens=False)["input_ids"]
    return [(prompt, [*ids, end_token]) for prompt, ids in zip(given, answers, strict=True)]


def adapted_modules(model: PreTrainedModel) -> list[str]:
    """Full names of every linear layer inside the blocks: attention and MLP, whatever their names.

    Raises:
        InputError: the blocks have none.
    """
    blocks = {id(module) for block in decoder_layers(model) for module in block.modules()}
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) in blocks
    ]
    if not found:
        raise InputError(
            f"fine_tuning: {architecture_name(model)} has no linear layer in its blocks to adapt. "
            f"Remedy: use another architecture, {SWITCH_OFF}."
        )
    return found


def add_adapter(model: PreTrainedModel, *, rank: int, alpha: float, seed: int) -> None:
    """Put a LoRA adapter around every linear layer of the blocks, in place.

    Until it is trained the model computes what it did before. Only the adapter requires gradients;
    its matrices are float32 even in a model of half precision.
    """
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=adapted_modules(model), task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        # peft asks transformers about gradient checkpointing by a name that will be removed.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        get_peft_model(model, config)


def epoch_batches(
    lengths: Sequence[int], batch_size: int, generator: np.random.Generator
) -> Iterator[list[int]]:
    """Row numbers of one epoch: batches of similar length in random order, every row once."""
    shuffled = generator.permutation(len(lengths))
    order = shuffled[np.argsort(np.asarray(lengths)[shuffled], kind="stable")]
    starts = np.arange(0, len(order), batch_size)
    for start in generator.permutation(starts):
        yield order[start : start + batch_size].tolist()


def answer_loss(model: PreTrainedModel, pairs: Sequence[Pair]) -> torch.Tensor:
    """Mean cross-entropy (nats) of the answer tokens of a batch; prompts are not learned."""
    logits, targets = completion_logits(model, pairs)
    return F.cross_entropy(logits.float(), targets)


def fine_tune(
    model: PreTrainedModel, pairs: Sequence[Pair], settings: Mapping, seed: int
) -> list[float]:
    """Train an adapter on the pairs and leave it in place; the model's own weights stay.

    AdamW without weight decay, learning rate falling linearly to zero. Deterministic on one thread.

    Args:
        model: changed in place: its linear layers get adapters.
        pairs: of `training_pairs`.
        settings: rank, alpha, epochs, batch_size, learning_rate.
        seed: of the adapter's start and of the order of batches.

    Returns:
        Mean loss of the batches of every epoch, in nats per token.

    Raises:
        InputError: the loss is no longer finite.
    """
    add_adapter(model, rank=settings["rank"], alpha=settings["alpha"], seed=seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["learning_rate"], weight_decay=0.0)
    steps = settings["epochs"] * math.ceil(len(pairs) / settings["batch_size"])
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    lengths = [len(prompt) + len(answer) for prompt, answer in pairs]
    generator = np.random.default_rng(seed)
    model.train()
    curve = []
    for epoch in range(settings["epochs"]):
        losses = []
        for rows in epoch_batches(lengths, settings["batch_size"], generator):
            loss = answer_loss(model, [pairs[row] for row in rows])
            losses.append(loss.item())
            _step(optimizer, schedule, loss, trained)
        curve.append(float(np.mean(losses)))
        logger.info("epoch %d: loss %.4f", epoch + 1, curve[-1])
    model.eval().requires_grad_(False)
    if not math.isfinite(curve[-1]):
        raise InputError("fine_tuning.learning_rate: the loss diverged. Remedy: lower it.")
    return curve


def _step(
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    loss: torch.Tensor,
    trained: Sequence[nn.Parameter],
) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, GRADIENT_CLIP)
    optimizer.step()
    schedule.step()
