"""What the values of a configuration may hold: a study file may come from anywhere.

Values become names of files and parameters of rules, in which Snakemake replaces `{...}`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jsonschema
import yaml

from refusal.errors import InputError
from refusal.paths import BELOW_RULE, PATH_RULE, is_path, is_path_below

# By the `format` of a key in the schema.
FORMAT_RULES = {"path": PATH_RULE, "path below": BELOW_RULE}
# The switch of YTE, with which Snakemake reads every configuration file, and which runs Python.
YTE_SWITCH = "__use_yte__"

_FORMATS = jsonschema.FormatChecker(formats=())


_FORMATS.checks("path")(is_path)
_FORMATS.checks("path below")(is_path_below)


def _whole_text(validator, pattern: str, value: object, schema: Mapping) -> Iterator:
    """In JSON schema `$` is the end of the text; in Python also the place before a last newline."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _whole_text})


def schema_validator(schema: Mapping) -> jsonschema.protocols.Validator:
    """A validator of JSON schema (2020-12) with the formats of `FORMAT_RULES`."""
    return _Validator(schema, format_checker=_FORMATS)


def check_characters(value: object, key: str = "") -> None:
    """Refuse control characters in keys and texts, but for line breaks and tabs within texts.

    Raises:
        InputError: naming the key. They could rewrite what the terminal shows.
    """
    if isinstance(value, Mapping):
        for name, part in value.items():
            _refuse_control(str(name), f"{key}.{name}".strip("."), allowed="")
            check_characters(part, f"{key}.{name}".strip("."))
    elif isinstance(value, list | tuple):
        for part in value:
            check_characters(part, key)
    elif isinstance(value, str):
        _refuse_control(value, key, allowed="\n\t")


def _refuse_control(text: str, key: str, allowed: str) -> None:
    if any(not character.isprintable() and character not in allowed for character in text):
        raise InputError(
            f"config: {key}: there is a character in it that cannot be printed. Remedy: remove it."
        )


def check_file_is_data(path: str | Path) -> dict:
    """Return the content of a configuration file that is YAML without code.

    Raises:
        InputError: no such file, no YAML mapping, a tag that makes Python objects, or YTE.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as plain YAML ({error}). Mend it.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no keys. Write it like the files in studies/.")
    if YTE_SWITCH in content:
        raise InputError(
            f"{path}: {YTE_SWITCH} makes Snakemake run Python that stands in the file. "
            "Do not use a file with it; write plain values instead."
        )
    return content
