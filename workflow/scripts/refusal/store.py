"""Keep finished results by the fingerprint of what made them.

One job runs many interventions, so that the model is loaded once. When such a
job is killed, or one of its files is deleted, Snakemake runs all of it again; whatever had
been finished from exactly the same inputs is then taken from here instead.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd


def fingerprint(files: Iterable[str | Path], settings: Mapping) -> str:
    """Return a SHA-256 of the contents of `files` (in order) and of `settings`."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in files:
        digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.hexdigest()


class Store:
    """Finished tables in a folder, each under its fingerprint."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def fetch(self, key: str, target: str | Path) -> bool:
        """Place the table of this fingerprint at `target`; return whether there was one."""
        source = self.folder / f"{key}.parquet"
        if not source.is_file():
            return False
        _place(source, Path(target))
        return True

    def read(self, key: str) -> pd.DataFrame | None:
        """Return the table of this fingerprint, None where there is none."""
        source = self.folder / f"{key}.parquet"
        return pd.read_parquet(source) if source.is_file() else None

    def write(self, key: str, table: pd.DataFrame) -> Path:
        """Write a table to the store, whole or not at all; return where it is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        source = self.folder / f"{key}.parquet"
        partial = source.with_suffix(f".{os.getpid()}.partial")
        table.to_parquet(partial, index=False)
        partial.replace(source)
        return source

    def keep(self, key: str, table: pd.DataFrame, target: str | Path) -> None:
        """Write a table to the store, whole or not at all, and place it at `target`."""
        _place(self.write(key, table), Path(target))


def _place(source: Path, target: Path) -> None:
    """Copy `source` to `target` (a link would let an edit of one change the other)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(source.read_bytes())
    partial.replace(target)
