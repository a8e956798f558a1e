"""One file with everything that a reviewer needs: code, configuration, lock files, results.

The archive is a zip whose root is a copy of the repository with `results/<study>/`, so that every
command of the README works where it is unpacked. Completions and prompts are left out (of real
models they may be harmful, and data sets have licences of their own), and so are weights and
activations, which a run makes again. `manifest-sha256.txt` has the SHA-256 of every file, in the
format of `sha256sum`.

The same files give the same bytes: names are sorted and times fixed.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow
import pyarrow.parquet

from refusal.errors import InputError
from refusal.manifest import MANIFEST, METADATA, code_files, sha256

# Stages that hold prompts, completions, or what a run makes again and nobody reads.
LEFT_OUT = (
    "activations",
    "archive",
    "explorer.html",
    "generations",
    "judgements",
    "prompts",
    "report.zip",
    "store",
)
WEIGHTS = (".safetensors", ".pt", ".bin")
# Columns with words of a prompt or of a model.
TEXT_COLUMNS = {"answer", "completion", "keywords", "output", "prompt", "response", "text"}
# The oldest date that a zip can hold.
_TIME = (1980, 1, 1, 0, 0, 0)


def shared_results(folder: Path) -> list[str]:
    """Paths below a results folder of what may be shared, sorted.

    Raises:
        InputError: no such folder, or a table in it cannot be read, so that nobody knows whether it
            holds completions.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Run the study first: make paper.")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = [
        path
        for path in files
        if path.parts[0] not in LEFT_OUT
        and path.suffix not in WEIGHTS
        and not any(part.startswith(".") for part in path.parts)
        and not (path.suffix == ".parquet" and has_text(folder / path))
    ]
    return [path.as_posix() for path in kept]


def has_text(table: Path) -> bool:
    """Whether a table has a column with words of a prompt or of a model."""
    try:
        names = pyarrow.parquet.read_schema(table).names
    except (OSError, pyarrow.ArrowException):
        raise InputError(f"{table}: not a readable parquet file. Run its study again.") from None
    return not TEXT_COLUMNS.isdisjoint(names)


def write_archive(target: Path, files: Mapping[str, Path], metadata: str) -> None:
    """Write the zip.

    Args:
        files: where each file of the archive lies, by its path in it.
        metadata: the RO-Crate that describes them.
    """
    digests = {name: sha256(path) for name, path in files.items()}
    digests[METADATA] = hashlib.sha256(metadata.encode()).hexdigest()
    manifest = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in ((METADATA, metadata), (MANIFEST, manifest)):
            archive.writestr(_entry(name, False), text)
        for name in sorted(files):
            path = files[name]
            archive.writestr(_entry(name, os.access(path, os.X_OK)), path.read_bytes())


def _entry(name: str, executable: bool) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (0o100755 if executable else 0o100644) << 16
    return entry


def archived_files(root: Path, results: Path, names: Iterable[str]) -> dict[str, Path]:
    """Where each file lies by its path in the archive: code of `root`, results of one study."""
    study = results.name
    found = {name: root / name for name in code_files(root)}
    return found | {f"results/{study}/{name}": results / name for name in names}
