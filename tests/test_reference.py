"""The reference pages: up to date, complete, and readable as Markdown."""

import ast

import pytest
import yaml
from command_line import ROOT

from refusal.reference import configuration_page, library_page, reference_texts

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
# Sections whose keys are names of the user's own.
NAMED = ("models", "interventions", "judges", "external_runs", "bases")
SCHEMA = {
    "$defs": {
        "task": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "description": "One of <owner>."}},
        }
    },
    "properties": {
        "tasks": {
            "type": "array",
            "items": {"$ref": "#/$defs/task"},
            "default": [],
            "description": "What | who.",
        },
        "limits": {
            "type": "object",
            "default": {},
            "additionalProperties": {"type": ["integer", "null"], "minimum": 1, "default": 2},
        },
    },
}


@pytest.mark.parametrize("name", reference_texts(ROOT))
def test_a_reference_page_is_up_to_date(name):
    assert (ROOT / name).read_text() == reference_texts(ROOT)[name], f"{name}: run `make docs`"


def keys_of(section: dict, name: str):
    """Yield the dotted names of the keys in a configuration."""
    for key, value in section.items():
        yield f"{name}{key}"
        if isinstance(value, dict) and key not in NAMED:
            yield from keys_of(value, f"{name}{key}.")


def test_every_key_of_the_shipped_configuration_is_on_the_page():
    page = reference_texts(ROOT)["docs/reference/configuration.md"]
    keys = list(keys_of(CONFIG, ""))
    assert len(keys) > 200
    assert [key for key in keys if f"| `{key}` |" not in page] == []


def test_entries_of_lists_and_names_of_ones_own_are_told():
    page = configuration_page(SCHEMA)
    assert "| `tasks` | array of object | `[]` | What \\| who. |" in page
    assert "| `tasks[].name` | string | required | One of \\<owner>. |" in page
    assert "| `limits` | object |  |  |" in page
    assert "| `limits.<name>` | integer or null, at least 1 | `2` |  |" in page


def test_every_public_function_of_the_library_is_on_the_page():
    page = reference_texts(ROOT)["docs/reference/library.md"]
    missing = []
    for path in sorted((ROOT / "workflow/scripts/refusal").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            kinds = (ast.FunctionDef, ast.ClassDef)
            if isinstance(node, kinds) and not node.name.startswith("_"):
                told = (f"- `{node.name}(", f"- `class {node.name}(", f"- `class {node.name}`")
                missing += [] if any(text in page for text in told) else [node.name]
    assert missing == []


def test_a_long_signature_loses_its_types_and_keeps_every_name(tmp_path):
    (tmp_path / "a.py").write_text(
        '"""Module."""\n\n\n'
        f"def far(first: {'x' * 90}, *rest: int, last: int = 0, **more: int) -> None:\n"
        '    """Does\n    it.\n\n    More.\n    """\n\n\ndef _hidden():\n    pass\n'
    )
    page = library_page(tmp_path)
    assert "- `far(first, *rest, last, **more)`: Does it.\n" in page
    assert "_hidden" not in page and "More." not in page
