"""Local data of the organisms' tasks: JSON lines in the folder that metadata name `questions`."""

import json
from pathlib import Path

from datasets import Dataset


def load(*, questions: str, file: str, **_: object) -> dict[str, Dataset]:
    """Return the one split of a task, `test`, from `<questions>/<file>`."""
    lines = Path(questions, file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
