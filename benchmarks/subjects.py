"""What the benchmarks run on: a model organism (trained or random) and a wider random model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from refusal import grammar, organisms
from refusal.activations import last_position_logits
from refusal.models import (
    decoder_layers,
    encode_prompts,
    find_refusal_tokens,
    load_model,
    load_tokenizer,
    post_instruction_tokens,
)
from refusal.prompts import grammar_prompts

VOCABULARY = 2000
SEED = 42


@dataclass(frozen=True)
class Subject:
    """A model with its tokenizer and the grammar's prompts."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: pd.DataFrame

    def texts(self, label: str, split: str) -> list[str]:
        """Prompt texts of one label and split."""
        chosen = (self.prompts["label"] == label) & (self.prompts["split"] == split)
        return list(self.prompts.loc[chosen, "text"])

    def sequences(self, label: str, split: str) -> list[list[int]]:
        """Token ids of the same prompts in the chat template."""
        return encode_prompts(self.tokenizer, self.texts(label, split))

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(decoder_layers(self.model))

    @cached_property
    def n_positions(self) -> int:
        """Number of post-instruction tokens."""
        return len(post_instruction_tokens(self.tokenizer))

    @cached_property
    def refusal_tokens(self) -> list[int]:
        """The tokens that open a refusal; for a random model, any that it likes."""
        harmful, harmless = (
            last_position_logits(self.model, self.sequences(label, "train"), max_tokens=2048)
            for label in ("harmful", "harmless")
        )
        if self.name.startswith("random"):
            return harmful.mean(0).topk(2).indices.tolist()
        return find_refusal_tokens(harmful, harmless)


def tiny_subject(checkpoint: Path | None, n: int) -> Subject:
    """The organism in `checkpoint`, else a random Llama of its size; `n` prompts per class."""
    sizes = {"train": n, "validation": max(8, n // 4), "test": n, "text": 2 * n, "capability": 8}
    sizes["kinds"] = {"train": 2, "validation": 2, "test": 2}
    prompts = grammar_prompts(sizes, SEED)
    if checkpoint is not None:
        name = f"organism {checkpoint.name}"
        return Subject(name, load_model(checkpoint), load_tokenizer(checkpoint), prompts)
    documents = [
        grammar.Example(text, answer) if isinstance(answer, str) else grammar.Example(None, text)
        for text, answer in zip(prompts["text"], prompts["answer"], strict=True)
    ]
    settings = {"vocabulary": VOCABULARY, "min_frequency": 1}
    tokenizer = organisms.train_tokenizer(documents, settings)
    model = random_llama(vocabulary=len(tokenizer), width=128, layers=4, heads=4)
    return Subject("random Llama of an organism's size", model, tokenizer, prompts)


def wide_model(quick: bool) -> PreTrainedModel:
    """A random Llama, d 1024 and 8 blocks (quick: d 128, 4 blocks): serves time, not behaviour."""
    if quick:
        return random_llama(vocabulary=500, width=128, layers=4, heads=4)
    return random_llama(vocabulary=32000, width=1024, layers=8, heads=16)


def random_llama(*, vocabulary: int, width: int, layers: int, heads: int) -> PreTrainedModel:
    """A random Llama with half as many key-value heads and an MLP of 2.75 times the width."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=11 * width // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        initializer_range=0.06,
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(config)
    return model.eval().requires_grad_(False)


def random_sequences(n: int, length: int, vocabulary: int) -> list[list[int]]:
    """`n` sequences of equal length, so that nothing is padded."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(4, vocabulary, (n, length), generator=generator).tolist()
