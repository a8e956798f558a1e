"""(e) Greedy generation in large sorted batches, against batches of eight in the given order."""

from __future__ import annotations

import torch
from measuring import Result, alternate, compare_peaks, compare_seconds, require
from subjects import Subject

from refusal.generations import completions_table, generate
from refusal.models import chat_prompt, encode_prompts

GROUP = "e generation"
NEW_TOKENS = 64
PLAIN_BATCH = 8


def ours(subject: Subject, texts: list[str]) -> list[str]:
    """The library's way, from prompt texts to completion texts."""
    completions = generate(
        subject.model,
        encode_prompts(subject.tokenizer, texts),
        eos_ids=[subject.tokenizer.eos_token_id],
        pad_id=subject.tokenizer.pad_token_id,
        max_new_tokens=NEW_TOKENS,
        max_tokens=16384,
    )
    ids = [str(number) for number in range(len(texts))]
    return list(completions_table(subject.tokenizer, ids, completions)["completion"])


@torch.no_grad()
def plain(subject: Subject, texts: list[str], batch: int = PLAIN_BATCH) -> list[str]:
    """The published way: prompts in order, eight at a time, by the library's own `generate`."""
    completions = []
    for start in range(0, len(texts), batch):
        prompts = [chat_prompt(subject.tokenizer, text) for text in texts[start : start + batch]]
        encoded = subject.tokenizer(
            prompts, padding=True, add_special_tokens=False, return_tensors="pt"
        )
        generated = subject.model.generate(
            input_ids=encoded.input_ids,
            attention_mask=encoded.attention_mask,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=subject.tokenizer.eos_token_id,
            pad_token_id=subject.tokenizer.pad_token_id,
        )
        completions += subject.tokenizer.batch_decode(
            generated[:, encoded.input_ids.shape[1] :], skip_special_tokens=True
        )
    return completions


def measure(subject: Subject, quick: bool) -> list[Result]:
    """Time against batches of eight, and against one large batch of the same library call."""
    texts = subject.texts("harmful", "test") + subject.texts("harmless", "test")
    expected = plain(subject, texts)
    same = sum(a == b for a, b in zip(ours(subject, texts), expected, strict=True))
    require(same == len(texts), f"only {same} of {len(texts)} completions are identical")
    parity = f"all {len(texts)} texts identical"
    repeats = 1 if quick else 5
    eight = alternate(lambda: ours(subject, texts), lambda: plain(subject, texts), repeats)
    large = alternate(
        lambda: ours(subject, texts), lambda: plain(subject, texts, len(texts)), repeats
    )
    what = f"generation, {len(texts)} prompts, {NEW_TOKENS} tokens at most, {subject.name}"
    return [
        compare_seconds(
            GROUP, f"{what}, against batches of eight", eight, at_least=4, parity=parity
        ),
        compare_seconds(GROUP, f"{what}, against the same call in one batch", large),
        compare_peaks(
            GROUP,
            "peak memory of generation",
            lambda: ours(subject, texts),
            lambda: plain(subject, texts),
            at_most=None,
        ),
    ]
