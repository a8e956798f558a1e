"""Read tables that were written per model as one table of the study."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd


def read_geometry(paths: Iterable[str]) -> pd.DataFrame:
    """Join tables that name their model in a column."""
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def read_selection(paths: Iterable[str]) -> pd.DataFrame:
    """Join selection tables (selection/<model>/<method>.parquet) with model and method columns."""
    tables = []
    for path in map(Path, paths):
        table = pd.read_parquet(path)
        table.insert(0, "method", path.stem)
        table.insert(0, "model", path.parent.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def read_experiments(paths: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Join the frames of experiments over models, under the names `<experiment>_<frame>`.

    `paths`: <results>/<experiment>/<model>/<frame>.parquet of every model; may be empty.
    """
    tables: dict[str, list[str]] = {}
    for path in map(Path, paths):
        tables.setdefault(f"{path.parts[-3]}_{path.stem}", []).append(str(path))
    return {name: read_geometry(members) for name, members in tables.items()}
