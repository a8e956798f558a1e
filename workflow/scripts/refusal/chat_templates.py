"""Chat templates: programs that come with a checkpoint, run in the sandbox of transformers.

The sandbox keeps a template from Python, files and network, but not from looping. Each prompt
therefore has a time limit.
"""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from refusal.errors import InputError

# Published templates need about a millisecond per prompt.
SECONDS_PER_PROMPT = 20.0


class _TooLong(Exception):
    """A template did not end in time."""


def render_chat(
    tokenizer, messages: Sequence[Mapping[str, str]], remedy: str = "take another checkpoint"
) -> str:
    """Messages in the chat template of a tokenizer, up to where the answer begins.

    `remedy` ends the message of an error.

    Raises:
        InputError: the template does not take the messages, asks for what the sandbox forbids, or
            does not end within `SECONDS_PER_PROMPT`.
    """
    try:
        with _time_limit(SECONDS_PER_PROMPT):
            return tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
    except Exception as error:  # a template is a program: it fails in any way that programs do
        reason = str(error)[:200] or type(error).__name__
        raise InputError(
            f"{tokenizer.name_or_path}: its chat template does not take the prompt ({reason}). "
            f"Remedy: {remedy}."
        ) from error


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` in the block after that time; no limit outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signal_number: int, frame: FrameType | None) -> None:
        raise _TooLong(f"it runs for more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
