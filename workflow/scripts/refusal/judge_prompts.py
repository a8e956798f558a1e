"""What a model judge reads: a request and the answer to it, in the judge's own format.

A prompt is either `conversation` (request and answer as two messages in the chat template of the
judge, which carries the task: Llama Guard) or a text with {request} and {response} in it, which is
given as it is or, for a chat model, as the message of the user. The texts that published judges
were trained on are in workflow/judges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from refusal.chat_templates import render_chat
from refusal.errors import InputError

CONVERSATION = "conversation"
PLACEHOLDERS = ("{request}", "{response}")
FOLDER = Path(__file__).parents[2] / "judges"

_PLACEHOLDER = re.compile("|".join(map(re.escape, PLACEHOLDERS)))


def prompt_file(prompt: str) -> Path:
    """The file of a prompt: a name stands for workflow/judges/<name>.txt, all else for a path."""
    own = FOLDER / f"{prompt}.txt"
    return own if own.is_file() else Path(prompt).expanduser()


def load_prompt(prompt: str) -> str | None:
    """The text of a prompt, without its last line break; None for `conversation`.

    Raises:
        InputError: no such file, or a placeholder that does not stand in it exactly once.
    """
    if prompt == CONVERSATION:
        return None
    path = prompt_file(prompt)
    if not path.is_file():
        known = ", ".join([CONVERSATION, *sorted(file.stem for file in FOLDER.glob("*.txt"))])
        raise InputError(
            f"prompt: no file {prompt}. Remedy: give one of {known}, or a text file with "
            "{request} and {response} in it."
        )
    text = path.read_text(encoding="utf-8").removesuffix("\n")
    for placeholder in PLACEHOLDERS:
        if text.count(placeholder) != 1:
            raise InputError(
                f"{path}: {placeholder} stands in it {text.count(placeholder)} times. "
                "Remedy: write it exactly once."
            )
    return text


def fill(template: str, request: str, response: str) -> str:
    """A template with both texts in their places; braces within the texts mean nothing."""
    texts = dict(zip(PLACEHOLDERS, (request, response), strict=True))
    return _PLACEHOLDER.sub(lambda found: texts[found.group()], template)


def render(tokenizer, template: str | None, chat: bool, request: str, response: str) -> str:
    """One prompt of a judge as text.

    `tokenizer` is one of transformers; without a `template` the two texts are a conversation.

    Raises:
        InputError: the chat template does not take the conversation.
    """
    if template is not None and not chat:
        return fill(template, request, response)
    if template is None:
        messages = [_message("user", request), _message("assistant", response)]
    else:
        messages = [_message("user", fill(template, request, response))]
    return render_chat(tokenizer, messages, f"give `prompt` a text instead of `{CONVERSATION}`")


def _message(role: str, content: str) -> Mapping[str, str]:
    return {"role": role, "content": content}


def carries_begin_token(tokenizer, template: str | None, chat: bool) -> bool:
    """Whether rendered prompts begin with the begin token: a chat template and WildGuard's do."""
    if template is None or chat:
        return True
    return bool(tokenizer.bos_token) and template.startswith(tokenizer.bos_token)


def encode(tokenizer, prompts: Sequence[str], carries_begin: bool) -> list[list[int]]:
    """Token ids of rendered prompts; to those that carry none the begin token is added."""
    if not prompts:
        return []
    encoded = tokenizer(list(prompts), add_special_tokens=not carries_begin)
    return [list(ids) for ids in encoded["input_ids"]]


def clip(tokenizer, response: str, tokens: int, quirk: bool = False) -> str:
    """The last `tokens` tokens of an answer, the begin token counted among them, as text.

    Longer ones do not fit the context that a judge was trained on. With `quirk` the text starts
    with the begin token written out, as the published StrongREJECT code has it for every answer.
    """
    begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    ids = list(tokenizer(response, add_special_tokens=False)["input_ids"])
    kept = ids[-max(tokens - len(begin), 1) :]
    if quirk:
        return tokenizer.decode([*begin, *kept])
    return response if len(kept) == len(ids) else tokenizer.decode(kept)
