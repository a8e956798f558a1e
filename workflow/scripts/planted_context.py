"""Read what the section on planted organisms is written from."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from refusal.planted_section import planted_section


def read_planted(paths: Iterable[str]) -> dict[str, Any] | None:
    """Return the context of the section; None without files, so that it is left out.

    `paths`: planted/organisms.parquet, methods.parquet, claims.json, estimators/candidates.parquet.
    """
    found = {path.stem: path for path in map(Path, paths)}
    if not found:
        return None
    frames = {n: pd.read_parquet(found[n]) for n in ("organisms", "methods", "candidates")}
    return planted_section(**frames, verdicts=json.loads(found["claims"].read_text()))


def figure_records(paths: Iterable[str]) -> dict[str, dict]:
    """Return what is known of every figure (`<figure>.json`) by its name."""
    records = [json.loads(Path(path).read_text()) for path in paths if path.endswith(".json")]
    return {record["name"]: record for record in records}
