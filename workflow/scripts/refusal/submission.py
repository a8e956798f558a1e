"""The source of the paper as arXiv takes it: one folder that compiles on its own.

The paper of a run finds tables and figures in their folders beside its own. Here they lie below
it, only those that it uses, with the bibliography as BibTeX made it, which arXiv asks for.
"""

import gzip
import io
import re
import shutil
import tarfile
from pathlib import Path

from refusal.errors import InputError
from refusal.paper import build_pdf

_INPUT = re.compile(r"\\input\{([^}]+)\}")
_GRAPHICS = re.compile(r"\\includegraphics(?:\[[^]]*\])?\{([^}]+)\}")


def collect_source(results: Path, folder: Path) -> list[str]:
    """Copy the source of a run's paper with all that it reads, every path below the folder.

    Args:
        results: results/<study>.
        folder: an empty folder.

    Returns:
        The names of the files, sorted.

    Raises:
        InputError: a file that the paper reads is missing.
    """
    source = results / "paper" / "main.tex"
    if not source.is_file():
        raise InputError(f"{source}: no such file. Run the study first: make paper.")
    text = source.read_text(encoding="utf-8")
    read = [*_INPUT.findall(text), *(f"figures/{name}" for name in _GRAPHICS.findall(text))]
    names = sorted({source.name, "references.bib", *read})
    for name in names:
        path = results / name if "/" in name else source.with_name(name)
        if not path.is_file():
            raise InputError(f"{path}: the paper reads it, but it is missing. Run the study again.")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    return names


def write_bundle(results: Path, folder: Path, target: Path) -> None:
    """Collect the source, compile it where it lies, and pack it with the bibliography made.

    Args:
        results: results/<study>.
        folder: an empty folder to work in.
        target: the bundle, a tar.gz; the same source gives the same bytes.

    Raises:
        InputError: a file is missing, latexmk is not installed, or LaTeX stops.
    """
    names = collect_source(results, folder)
    build = build_pdf(folder / "main.tex")
    shutil.copyfile(build / "main.bbl", folder / "main.bbl")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as bundle:
        for name in sorted([*names, "main.bbl"]):
            data = (folder / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            bundle.addfile(entry, io.BytesIO(data))
    target.write_bytes(gzip.compress(packed.getvalue(), mtime=0))
