"""Whether the files of an earlier run are whole, and what failed outside the program.

Python's own library reads them as far as it can: jobs without a table need no pyarrow.
"""

import errno
import importlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from refusal.errors import InputError

RESULTS = "results"
_AGAIN = "then run the same command again: whatever is finished is kept."
# Failures of the disk or of permissions, and what to do about them.
_REMEDIES = {
    errno.ENOSPC: "free space on the disk",
    errno.EDQUOT: "free space within the quota",
    errno.EFBIG: "allow larger files (`ulimit -f unlimited`)",
    errno.EROFS: "let the folder be written to, or run in another one",
    errno.EACCES: "let the folder be written to, or run in another one",
    errno.EPERM: "let the folder be written to, or run in another one",
}


def require_whole(paths: Iterable[str | Path]) -> None:
    """Look at the results among `paths` before they are used; others have errors of their own.

    Raises:
        InputError: a parquet, npz, safetensors or json file that is cut off or altered.
    """
    for path in map(Path, paths):
        reason = damage(path) if path.parts[0] == RESULTS else None
        if reason:
            raise InputError(
                f"{path}: damaged ({reason}). Remedy: delete it and run the same command again, "
                "which makes it anew."
            )


def damage(path: str | Path) -> str | None:
    """Return in one line why a file is not whole; None if it is, or is no file of ours.

    A table is read with the checksums of its pages, where it was written with them; arrays with
    the checksums of zip. Tensors have none: their header and length are held to each other. A
    json file has to be one.
    """
    path = Path(path)
    check = _CHECKS.get(path.suffix)
    if check is None or not path.is_file():
        return None
    try:
        check(path)
    except Exception as error:  # every library has errors of its own for what it cannot read
        return " ".join(str(error).split())[:120] or type(error).__name__
    return None


def _check_table(path: Path) -> None:
    # Not imported by name, so that only the environments of rules with tables have it.
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.read_table(path, page_checksum_verification=True)


def _check_arrays(path: Path) -> None:
    with zipfile.ZipFile(path) as arrays:
        altered = arrays.testzip()
    if altered is not None:
        raise ValueError(f"the checksum of {altered} does not fit")


def _check_tensors(path: Path) -> None:
    """safetensors: eight bytes that say how long the header is, the header in json, the data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length) if length < path.stat().st_size else b"")
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    if path.stat().st_size != expected:
        raise ValueError(f"{path.stat().st_size} bytes instead of {expected}")


def _check_json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


_CHECKS: dict[str, Callable[[Path], None]] = {
    ".parquet": _check_table,
    ".npz": _check_arrays,
    ".safetensors": _check_tensors,
    ".json": _check_json,
}


def failed_outside(error: BaseException, writing: str | Path) -> str | None:
    """Return one line with the remedy if the disk or permissions failed, else None.

    `writing` is the file that is named where the error names none.
    """
    number = _error_number(error)
    if number not in _REMEDIES:
        return None
    where = getattr(error, "filename", None) or writing
    return f"{where}: {os.strerror(number)}. Remedy: {_REMEDIES[number]}, {_AGAIN}"


def _error_number(error: BaseException) -> int | None:
    """The number of an error of the system; libraries in Rust give it in words alone."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None
