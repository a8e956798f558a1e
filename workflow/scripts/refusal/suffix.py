"""Adversarial suffixes: text at the end of the instruction, where its tokens are, and controls.

A suffix is appended verbatim to the instruction, inside the user message (Zou et al. 2023, arXiv
2307.15043, section 2). It counts as n tokens only if its text gives these very tokens back inside
the chat template; `surviving` tells which do. `refusal.suffix_search` finds adversarial ones.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from refusal.errors import InputError
from refusal.models import encode_prompts, post_instruction_tokens

# Instructions that begin in different ways, to see where the chat template ends.
_PROBE_INSTRUCTIONS = ("Tell me a joke", "7 times 8", "(b)", "a, b")
# Rounds of proposals for a random suffix; each adds a token to most unfinished ones.
_MAX_ROUNDS = 100


class Suffix(NamedTuple):
    """Text that is appended to an instruction, and the tokens it has there."""

    text: str
    tokens: tuple[int, ...]


class SuffixedPrompt(NamedTuple):
    """A whole chat prompt as tokens, and where in it the instruction and the suffix are."""

    tokens: list[int]
    instruction: slice
    suffix: slice


class Suffixes(NamedTuple):
    """The suffixes of one model: found, random controls, and the record of the search if any."""

    found: Suffix
    random: list[Suffix]
    search: dict[str, Any] | None

    def random_for(self, index: int) -> Suffix:
        """The control of the prompt with this index: one of its own, as long as there are some."""
        return self.random[index % len(self.random)]


# --- tokens and text --------------------------------------------------------------------------


def allowed_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens a suffix may consist of: printable ASCII, not blank, no special or added ones."""
    excluded = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    ids = [token for token in range(len(tokenizer)) if token not in excluded]
    texts = tokenizer.batch_decode([[token] for token in ids])
    return [
        token
        for token, text in zip(ids, texts, strict=True)
        if text.isascii() and text.isprintable() and text.strip()
    ]


def instruction_ends(instructions: Sequence[str], limit: int = 3) -> list[str]:
    """Instructions that end in different characters, at most `limit`: the borders to a suffix."""
    return list({text[-1:]: text for text in reversed(instructions)}.values())[-limit:]


class Borders:
    """Instructions in whose chat prompts a suffix has to keep its tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, instructions: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.instructions = instruction_ends(instructions)
        self.after = post_instruction_tokens(tokenizer)
        prompts = encode_prompts(tokenizer, self.instructions)
        self.before = [prompt[: -len(self.after)] for prompt in prompts]

    def texts(self, candidates: Sequence[Sequence[int]]) -> list[str]:
        """Text of token sequences as they read after an instruction.

        Decoded together with what stands before them: tokenizers in the manner of SentencePiece
        drop the blank before a first word.
        """
        before = self.before[0]
        given = len(self.tokenizer.decode(before))
        whole = self.tokenizer.batch_decode([[*before, *tokens] for tokens in candidates])
        return [text[given:] for text in whole]

    def surviving(self, candidates: Sequence[Sequence[int]]) -> list[Suffix]:
        """Those whose text gives their own tokens back in the chat prompt, in their order.

        The filter of Zou et al. 2023 (their code, not the text): a suffix is attacked with as text.
        """
        suffixes = [
            Suffix(text, tuple(tokens))
            for text, tokens in zip(self.texts(candidates), candidates, strict=True)
        ]
        for instruction, before in zip(self.instructions, self.before, strict=True):
            encoded = encode_prompts(self.tokenizer, [instruction + s.text for s in suffixes])
            suffixes = [
                suffix
                for suffix, ids in zip(suffixes, encoded, strict=True)
                if ids == [*before, *suffix.tokens, *self.after]
            ]
        return suffixes


def random_suffixes(
    borders: Borders, allowed: Sequence[int], length: int, n: int, seed: int
) -> list[Suffix]:
    """`n` random suffixes of `length` tokens: the control of Arditi et al. 2024, section 5.

    Token by token: uniform over the allowed tokens that keep the suffix retokenising to itself.

    Raises:
        InputError: the tokenizer gives hardly any such sequence.
    """
    generator = np.random.default_rng(seed)
    drawn: list[tuple[int, ...]] = [()] * n
    for _ in range(_MAX_ROUNDS * length):
        unfinished = [row for row in range(n) if len(drawn[row]) < length]
        if not unfinished:
            return borders.surviving(drawn)
        proposed = [
            (*drawn[row], int(token))
            for row, token in zip(
                unfinished, generator.choice(allowed, len(unfinished)), strict=True
            )
        ]
        kept = {suffix.tokens for suffix in borders.surviving(proposed)}
        for row, tokens in zip(unfinished, proposed, strict=True):
            drawn[row] = tokens if tokens in kept else drawn[row]
    raise InputError(
        "suffix.tokens: random tokens do not survive as text in this chat template. Remedy: "
        "set experiments.suffix and experiments.attacks to false."
    )


def given_suffix(borders: Borders, text: str) -> Suffix:
    """A suffix given as text, with the tokens that it has after an instruction."""
    (prompt,) = suffixed_prompts(borders.tokenizer, borders.instructions[:1], [text])
    return Suffix(text, tuple(prompt.tokens[prompt.suffix]))


# --- where a suffix is ------------------------------------------------------------------------


def pre_instruction_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of the chat template before the instruction: the common start of several prompts."""
    common: list[int] = []
    for column in zip(*encode_prompts(tokenizer, _PROBE_INSTRUCTIONS), strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return common


def suffixed_prompts(
    tokenizer: PreTrainedTokenizerBase, instructions: Sequence[str], suffixes: Sequence[str]
) -> list[SuffixedPrompt]:
    """Chat prompts of instruction + suffix, one per pair; an empty suffix gives an empty slice.

    Found by comparing with the prompt without suffix, so that no template has to be known. A
    token that spans the border belongs to the suffix.
    """
    start = len(pre_instruction_tokens(tokenizer))
    n_after = len(post_instruction_tokens(tokenizer))
    texts = [text + suffix for text, suffix in zip(instructions, suffixes, strict=True)]
    prompts = []
    for plain, whole in zip(
        encode_prompts(tokenizer, instructions), encode_prompts(tokenizer, texts), strict=True
    ):
        end = len(whole) - n_after
        border = min(len(plain) - n_after, end)
        border = next((i for i in range(border) if plain[i] != whole[i]), border)
        prompts.append(SuffixedPrompt(whole, slice(start, border), slice(border, end)))
    return prompts


# --- files ------------------------------------------------------------------------------------


def save_suffixes(path: str | Path, model: str, suffixes: Suffixes) -> None:
    """Write the suffixes of a model as json."""
    content = {
        "model": model,
        "found": suffixes.found._asdict(),
        "random": [suffix._asdict() for suffix in suffixes.random],
        "search": suffixes.search,
    }
    Path(path).write_text(json.dumps(content, indent=1) + "\n")


def load_suffixes(path: str | Path) -> Suffixes:
    """Read what `save_suffixes` wrote.

    Raises:
        InputError: a missing or damaged file.
    """
    try:
        content = json.loads(Path(path).read_text())
        found, *random = map(_suffix, [content["found"], *content["random"]])
        return Suffixes(found, random, content["search"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}). Remedy: make it again."
        ) from error


def _suffix(entry: Mapping[str, Any]) -> Suffix:
    return Suffix(str(entry["text"]), tuple(map(int, entry["tokens"])))
