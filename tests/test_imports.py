"""What a script needs, found by reading its imports as text, against Python's own parser."""

import ast
from pathlib import Path

from command_line import ROOT

from refusal.imports import imported_files, needed_modules

SCRIPTS = ROOT / "workflow/scripts"


def parsed_imports(path: Path) -> set[Path]:
    """The files in workflow/scripts that a file imports, by Python's own parser."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = set()
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            folder = SCRIPTS.joinpath(*parts[:depth])
            files |= {folder.with_suffix(".py"), folder / "__init__.py"}
    return {file for file in files if file.is_file()}


def test_imports_of_every_script_and_module_are_those_that_python_sees():
    paths = list(SCRIPTS.rglob("*.py"))
    assert len(paths) > 100
    for path in paths:
        assert imported_files(SCRIPTS, path) == parsed_imports(path), path


def test_what_is_imported_in_turn_counts_too(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "script.py").write_text("import json\nfrom first import (\n    a,\n    b,\n)\n")
    (tmp_path / "first.py").write_text("def f():\n    from package import second  # late\n")
    (tmp_path / "package/second.py").write_text("from pathlib import Path\nfrom first import f\n")
    for unused in ("package/third.py", "late.py", "json.py"):
        (tmp_path / unused).write_text("")
    (tmp_path / "package/__init__.py").write_text("")
    found = [str(path.relative_to(tmp_path)) for path in needed_modules(tmp_path, "script.py")]
    assert found == ["first.py", "package/__init__.py", "package/second.py"]
