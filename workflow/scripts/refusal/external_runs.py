"""External runs: result files that others made, as the section `external_runs` names them.

A run is a folder with completions and, if the format has them, candidate scores, tensors and
losses. It is the reader's own folder, or one whose files are pinned in a table such as
`paper/published/runs2024.yaml`. Kept free of torch and pandas, so that the configuration can be
checked without loading them.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import url2pathname

import yaml

from refusal.errors import InputError
from refusal.paths import BELOW_RULE, is_path_below
from refusal.recipes import check_names

# The layout of the public code of Arditi et al. 2024: intervention -> label -> completions.
ARDITI2024 = {
    "none": {
        "harmful": "completions/jailbreakbench_baseline_completions.json",
        "harmless": "completions/harmless_baseline_completions.json",
    },
    "dim_ablation": {"harmful": "completions/jailbreakbench_ablation_completions.json"},
    "dim_addition-strength-1": {"harmful": "completions/jailbreakbench_actadd_completions.json"},
    "dim_addition-strength1": {"harmless": "completions/harmless_actadd_completions.json"},
}
METADATA = "direction_metadata.json"
DIRECTION = "direction.pt"
MEAN_DIFFERENCES = "generate_directions/mean_diffs.pt"
CANDIDATES = "select_direction/direction_evaluations.json"
SURVIVORS = "select_direction/direction_evaluations_filtered.json"
LOSSES = {
    "none": "loss_evals/baseline_loss_eval.json",
    "dim_ablation": "loss_evals/ablation_loss_eval.json",
    "dim_addition-strength-1": "loss_evals/actadd_loss_eval.json",
}
# What the entries of a table of pins look like. Files of this machine have no address.
PINNED = {
    "repository": re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*"),
    "commit": re.compile(r"[0-9a-f]{40}"),
    "url": re.compile(r"https?://\S+"),
    "key": re.compile(r"[\w:.-]+"),
}
# Folders of results/<study>/external_runs/ that belong to no run.
RESERVED = ("recipes", "statistics")
# What a format has besides completions; a run may lack any of it.
OTHER_FILES = {
    "arditi2024": (METADATA, DIRECTION, MEAN_DIFFERENCES, CANDIDATES, SURVIVORS, *LOSSES.values()),
    "table": (),
}


def expand_external_runs(
    runs: Mapping[str, Mapping[str, Any]],
    recipes: Mapping[str, Any],
    models: Iterable[str],
    mirror: str | None,
) -> dict[str, dict[str, Any]]:
    """The external runs with their defaults filled in, every value checked.

    Args:
        runs: the section `external_runs`: name -> path, format, pins, interventions.
        recipes: what `expand_interventions` gave.
        models: names of the models of the study.
        mirror: the key `external_mirror`.

    Returns:
        Name -> path, format, pins, interventions (name -> label -> file in the folder), source
        (address of the folder, without a slash at the end).

    Raises:
        InputError: a name that is taken, an unknown intervention, a folder or table that is
            missing, or no unsteered completions.
    """
    if mirror is not None and not Path(mirror).expanduser().is_dir():
        raise InputError(
            f"config: external_mirror: no folder {mirror}. Remedy: give one with a copy of the "
            "repository, or null to download the files."
        )
    return {name: _expanded(name, run, recipes, models, mirror) for name, run in runs.items()}


def _expanded(
    name: str,
    run: Mapping[str, Any],
    recipes: Mapping[str, Any],
    models: Iterable[str],
    mirror: str | None,
) -> dict[str, Any]:
    key = f"config: external_runs.{name}"
    if name in models or name in RESERVED:
        raise InputError(f"{key}: this name is taken. Remedy: rename the run.")
    usual = ARDITI2024 if run["format"] == "arditi2024" else {}
    interventions = run.get("interventions") or usual
    check_names(f"{key}.interventions", interventions, list(recipes))
    if "none" not in interventions:
        raise InputError(
            f"{key}.interventions: `none`, the unsteered completions, is missing, and every change "
            "is measured against it. Remedy: name their files."
        )
    pins = run.get("pins")
    return {
        "path": run["path"],
        "format": run["format"],
        "pins": pins,
        "interventions": {name: dict(files) for name, files in interventions.items()},
        "source": _source(key, run["path"], pins, mirror),
    }


def _source(key: str, path: str, pins: str | None, mirror: str | None) -> str:
    """Address of the folder of a run: https of the pinned repository, else file."""
    if pins is None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise InputError(
                f"{key}.path: no folder {path}. Remedy: give the folder of the run, or name the "
                "table that pins its files in `pins`."
            )
        return folder.resolve().as_uri()
    table = read_pins(pins, f"{key}.pins")
    if not is_path_below(path):
        raise InputError(f"{key}.path: {path}: {BELOW_RULE}. Remedy: name a run of the table.")
    if path not in table["runs"]:
        raise InputError(
            f"{key}.path: {pins} has no run {path}. Remedy: take one of {', '.join(table['runs'])}."
        )
    if mirror is not None:
        folder = Path(mirror).expanduser().resolve() / path
        if not folder.is_dir():
            raise InputError(
                f"config: external_mirror: {mirror} has no folder {path}. Remedy: complete it, or "
                f"leave the run out in an overlay (`{key.removeprefix('config: ')}: null`)."
            )
        return folder.as_uri()
    place = {"repository": table["repository"], "commit": table["commit"], "path": path}
    address = table["url"]
    # Not `format`, in which `{path.x[y]}` would reach for whatever hangs on a text.
    for name, text in place.items():
        address = address.replace(f"{{{name}}}", quote(text))
    return address


def read_pins(path: Path | str, key: str = "pins") -> dict[str, Any]:
    """The table of pinned runs: repository, commit, url, and per run its files and checksums.

    Raises:
        InputError: no such file, or not such a table; `key` opens the message.
    """
    try:
        table = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
        whole = {"repository", "commit", "url", "runs"} <= set(table)
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise InputError(
            f"{key}: {path} cannot be read ({type(error).__name__}). Remedy: give a table such as "
            "paper/published/runs2024.yaml, or null for a folder of your own."
        ) from None
    if not whole:
        raise InputError(
            f"{key}: {path} lacks repository, commit, url or runs. Remedy: write it like "
            "paper/published/runs2024.yaml."
        )
    for name, form in PINNED.items():
        if name in table and not form.fullmatch(str(table[name])):
            raise InputError(
                f"{key}: {path}: {name} is {table[name]!r}, which is none. Remedy: write it like "
                "paper/published/runs2024.yaml."
            )
    return table


def evaluations_file(completions: str) -> str:
    """Where the judgements of a file of completions lie in the format arditi2024."""
    return completions.replace("_completions.json", "_evaluations.json")


def run_files(run: Mapping[str, Any]) -> dict[str, bool]:
    """Files of a run that the study reads, and whether it cannot do without them; those first."""
    completions = [file for files in run["interventions"].values() for file in files.values()]
    others = list(OTHER_FILES[run["format"]])
    if run["format"] == "arditi2024":
        others += [evaluations_file(file) for file in completions]
    needed = dict.fromkeys(completions, True)
    return needed | {name: False for name in others if name not in needed}


def local_files(run: Mapping[str, Any]) -> list[str]:
    """The files of a run that lie in a folder of this machine; none of what is downloaded."""
    if not run["source"].startswith("file://"):
        return []
    folder = local_folder(run["source"])
    return [str(folder / name) for name in run_files(run) if (folder / name).is_file()]


def local_folder(source: str) -> Path:
    """The folder of a file address."""
    return Path(url2pathname(source.removeprefix("file://")))
