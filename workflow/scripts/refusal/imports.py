"""The modules that a script needs, read from the imports themselves."""

import re
from functools import cache
from pathlib import Path

# Parsing the files would take half of the time in which Snakemake reads the rules, and on a cluster
# every job reads them twice.
IMPORT = re.compile(r"^ *from ([\w.]+) import (?:\(([^)]*)\)|(.+))", re.MULTILINE)


def needed_modules(folder: Path, script: str) -> list[Path]:
    """Return the files in `folder` that running `script` from it reads, without the script, sorted.

    Imports inside functions count too; names in a docstring that look like an import do no harm
    unless there is such a module.
    """
    found, queue = set(), [folder / script]
    while queue:
        new = imported_files(folder, queue.pop()) - found
        found |= new
        queue += new
    return sorted(found)


@cache
def imported_files(folder: Path, path: Path) -> frozenset[Path]:
    """Return the files in `folder` that one file imports, those of packages around them too."""
    modules = set()
    for module, in_brackets, on_the_line in IMPORT.findall(path.read_text()):
        names = re.findall(r"\w+", in_brackets or on_the_line.partition("#")[0])
        modules |= {module, *(f"{module}.{name}" for name in names)}
    # Python runs the file of every package around a module before the module itself.
    modules |= {name.rsplit(".", n)[0] for name in modules for n in range(1, name.count(".") + 1)}
    return frozenset(file for name in modules if (file := module_file(folder, name)).is_file())


@cache
def module_file(folder: Path, name: str) -> Path:
    """Return where a module of that name lies, or would lie: `name.py` or `name/__init__.py`."""
    path = folder.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
