"""Paths from a configuration, which may come from anywhere."""

from pathlib import PurePosixPath

PATH_RULE = "a path here has no braces, as Snakemake would take them for wildcards"
BELOW_RULE = "it has to be a relative path without braces and `..`, so that it leads nowhere else"


def is_path(value: object) -> bool:
    """Whether a value is no text, or a path in which Snakemake replaces nothing."""
    return not isinstance(value, str) or not set("{}") & set(value)


def is_path_below(value: object) -> bool:
    """Whether a value is no text, or a path that stays below the folder it is relative to."""
    if not isinstance(value, str):
        return True
    path = PurePosixPath(value)
    leads_up = path.is_absolute() or ".." in path.parts or value.startswith("~")
    return is_path(value) and bool(path.parts) and not leads_up
