"""Files of the repository, and the manifest of an archive of it.

Imports nothing but the standard library, since the rules read it before any work starts.
"""

import hashlib
import os
import subprocess
from pathlib import Path

from refusal.errors import InputError

MANIFEST = "manifest-sha256.txt"
METADATA = "ro-crate-metadata.json"


def code_files(root: Path) -> list[str]:
    """Files of the repository that git tracks, or, in an unpacked archive, those of its manifest.

    Raises:
        InputError: the folder is neither a clone nor an unpacked archive.
    """
    if not (root / ".git").exists() and (root / MANIFEST).is_file():
        names = read_manifest(root)
        own = (name for name in names if not name.startswith("results/") and name != METADATA)
        return sorted(own)
    command = ["git", "ls-files", "-z"]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True)
    if done.returncode != 0:
        raise InputError(
            f"{root}: neither a clone of the repository nor an unpacked archive. Remedy: git clone "
            "it, and run the study there."
        )
    return sorted(name for name in done.stdout.split("\0") if name and (root / name).is_file())


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(root: Path) -> dict[str, str]:
    """SHA-256 by path; InputError if a line is no line of a manifest."""
    found = {}
    for line in (root / MANIFEST).read_text(encoding="utf-8").splitlines():
        digest, separator, name = line.partition("  ")
        inside = name and not os.path.isabs(name) and ".." not in Path(name).parts
        if not separator or len(digest) != 64 or not inside:
            raise InputError(
                f"{root / MANIFEST}: no line of a manifest: {line[:80]!r}. Unpack anew."
            )
        found[name] = digest
    return found
