"""Keep finished results by the fingerprint of what made them.

One job runs many interventions, so that the model is loaded once. When such a
job is killed, or one of its files is deleted, Snakemake runs all of it again; whatever had
been finished from exactly the same inputs is then taken from here instead.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from refusal.recovery import damage


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
        """Place the table of this fingerprint at `target`; return whether there was a whole one."""
        source = self._whole(key)
        if source is not None:
            _place(source, Path(target))
        return source is not None

    def read(self, key: str) -> pd.DataFrame | None:
        """Return the table of this fingerprint, None where there is no whole one."""
        source = self._whole(key)
        return None if source is None else pd.read_parquet(source)

    def _whole(self, key: str) -> Path | None:
        """Where the table is; None where there is none, or a damaged one, which is told."""
        source = self.folder / f"{key}.parquet"
        reason = damage(source)
        if reason:
            logging.warning("%s: damaged (%s). It is not used, but made anew.", source, reason)
        return source if source.is_file() and not reason else None

    def write(self, key: str, table: pd.DataFrame) -> Path:
        """Write a table to the store, whole or not at all; return where it is.

        Its pages carry checksums: a table that a disk altered is not taken for finished.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        source = self.folder / f"{key}.parquet"
        # Two jobs may write the same table at once.
        partial = source.with_suffix(f".{os.getpid()}.partial")
        table.to_parquet(partial, index=False, write_page_checksum=True)
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
