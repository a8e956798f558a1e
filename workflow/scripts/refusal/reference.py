"""Reference pages of the documentation: the configuration, and the public functions of the library.

Both are written from what the code itself says, the schema of the configuration and the docstrings,
so that a page cannot say anything else. Modules are parsed and never imported.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CONFIGURATION_PAGE = "docs/reference/configuration.md"
LIBRARY_PAGE = "docs/reference/library.md"

_WRITTEN = "<!-- Written by `make docs`; edit {source}. -->"
_CONFIGURATION_HEAD = f"""\
# Configuration

{_WRITTEN.format(source="config.schema.yaml")}

Every key of `config.yaml` and of the overlays in `studies/`. `<name>` stands for a name of your
own, `[]` for each entry of a list. A default is what a key has that neither `config.yaml` nor an
overlay names; without one it may be left out, unless it is required.
"""
_LIBRARY_HEAD = f"""\
# Library

{_WRITTEN.format(source="the docstrings")}

The public functions and classes of `workflow/scripts/refusal/`, module by module, each with the
first paragraph of its docstring; `help()` has the rest: shapes, units, errors, sources. With
`workflow/scripts` on the path of Python, `import refusal.directions` works without Snakemake.
"""
_ONE_LINE = 100  # characters of a signature; what is longer is told without its types

Schema = Mapping[str, Any]


def reference_texts(root: Path) -> dict[str, str]:
    """Return the text of every reference page, by its path, for the repository in `root`."""
    schema = yaml.safe_load((root / "config.schema.yaml").read_text(encoding="utf-8"))
    return {
        CONFIGURATION_PAGE: configuration_page(schema),
        LIBRARY_PAGE: library_page(root / "workflow" / "scripts" / "refusal"),
    }


def configuration_page(schema: Schema) -> str:
    """Return the page of the configuration: one section per top-level key, one row per key."""
    pages = [_CONFIGURATION_HEAD]
    for name, entry in schema["properties"].items():
        needed = name in schema.get("required", [])
        rows = [_configuration_row(*key) for key in schema_keys(schema, name, entry, needed)]
        table = ["| key | type | default | description |", "| --- | --- | --- | --- |", *rows]
        pages.append("\n".join([f"## {name}", "", *table, ""]))
    return "\n".join(pages)


def schema_keys(
    root: Schema, name: str, entry: Schema, required: bool = False
) -> Iterator[tuple[str, Schema, bool]]:
    """Yield a key by its dotted name, with its schema and whether it is required, then those below.

    Names that a user chooses (`additionalProperties`) are `<name>`, entries of lists are `[]`;
    `$ref` is followed within `root`.
    """
    entry = _resolved(root, entry)
    items = _resolved(root, entry.get("items", {}))
    yield name, {**entry, "items": items}, required
    for key, below in entry.get("properties", {}).items():
        needed = key in entry.get("required", [])
        yield from schema_keys(root, f"{name}.{key}", below, needed)
    if isinstance(entry.get("additionalProperties"), Mapping):
        yield from schema_keys(root, f"{name}.<name>", entry["additionalProperties"])
    if items.get("properties"):
        yield from schema_keys(root, f"{name}[]", items)


def _resolved(root: Schema, entry: Schema) -> Schema:
    """Return an entry with its `$ref`, a path into `root`, filled in; its own keys win."""
    if "$ref" not in entry:
        return entry
    found: Any = root
    for part in entry["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return {**_resolved(root, found), **entry}


def _configuration_row(name: str, entry: Schema, required: bool) -> str:
    default = "required" if required else ""
    # The default of a section is what its keys say.
    if entry.get("default", {}) != {}:
        default = f"`{json.dumps(entry['default'])}`"
    cells = [f"`{name}`", _type(entry), default, _escaped(entry.get("description", ""))]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Return one line in which `<` outside code is no HTML."""
    parts = " ".join(text.split()).split("`")
    return "`".join(p if i % 2 else p.replace("<", "\\<") for i, p in enumerate(parts))


def _type(entry: Schema) -> str:
    """Return what values a key takes: its type or choices, with the bounds that it has."""
    if "enum" in entry:
        return " or ".join(f"`{json.dumps(value)}`" for value in entry["enum"])
    choices = entry.get("anyOf") or entry.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_type(choice) for choice in choices))
    types = entry.get("type", "")
    text = " or ".join(types) if isinstance(types, list) else types
    if "array" in types and (item := _type(entry.get("items", {}))):
        text = text.replace("array", f"array of {item}")
    bounds = {"minimum": "at least", "exclusiveMinimum": "above"}
    bounds |= {"maximum": "at most", "exclusiveMaximum": "below"}
    told = [f"{words} {entry[bound]}" for bound, words in bounds.items() if bound in entry]
    return ", ".join([text, *told])


def library_page(folder: Path) -> str:
    """Return the page of the library: each module with its public functions and classes."""
    pages = [_LIBRARY_HEAD]
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines = list(_module_lines(tree))
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        about = _first_paragraph(ast.get_docstring(tree))
        pages.append("\n".join([f"## {name}", "", about, "", *lines, *([""] if lines else [])]))
    return "\n".join(pages)


def _module_lines(tree: ast.Module) -> Iterator[str]:
    """Yield one line per public function and class, and one per public method below its class."""
    for node in _public(tree):
        if isinstance(node, ast.ClassDef):
            bases = ", ".join(map(ast.unparse, node.bases))
            yield _entry(f"class {node.name}" + (f"({bases})" if bases else ""), node)
            for method in _public(node):
                if isinstance(method, ast.FunctionDef) and ast.get_docstring(method):
                    yield "  " + _entry(_signature(method), method)
        else:
            yield _entry(_signature(node), node)


def _public(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node


def _entry(signature: str, node: ast.FunctionDef | ast.ClassDef) -> str:
    about = _first_paragraph(ast.get_docstring(node))
    return f"- `{signature}`" + (f": {about}" if about else "")


def _signature(node: ast.FunctionDef) -> str:
    """Return the signature; a long one with the names of its arguments alone."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    text = f"{node.name}({ast.unparse(node.args)}){returns}"
    if len(text) <= _ONE_LINE:
        return text
    given = node.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    if given.kwonlyargs:
        names += [*([] if given.vararg else ["*"]), *(one.arg for one in given.kwonlyargs)]
    names += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return f"{node.name}({', '.join(names)})"


def _first_paragraph(docstring: str | None) -> str:
    return _escaped((docstring or "").partition("\n\n")[0])
