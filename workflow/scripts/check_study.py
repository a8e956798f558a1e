"""Check a study file from elsewhere before Snakemake reads it: is it plain data, and is it right?

    python workflow/scripts/check_study.py FILE...

Snakemake reads configuration files with YTE, which runs the Python in a file that says so. Nothing
in the workflow can prevent that, since it happens before the first line of the Snakefile.
"""

import sys
from pathlib import Path

import yaml

from refusal.configuration import check_config
from refusal.errors import InputError
from refusal.harmless_values import check_file_is_data
from refusal.recipes import expand_interventions

ROOT = Path(__file__).parents[2]


def merged(base: dict, overlay: dict) -> dict:
    """Return the configuration with an overlay laid over it, mappings key by key."""
    both = {
        key: merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in overlay.items()
    }
    return {**base, **both}


def check_study(files: list[str]) -> str:
    """Return the name of the study that these files make of config.yaml.

    Raises:
        InputError: a file holds code, or the configuration a mistake.
    """
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    for file in files:
        config = merged(config, check_file_is_data(file))
    schema = yaml.safe_load((ROOT / "config.schema.yaml").read_text(encoding="utf-8"))
    config = check_config(config, schema)
    expand_interventions(config["interventions"], config["directions"]["random"]["draws"])
    return config["study"]


if __name__ == "__main__":
    try:
        print(f"{check_study(sys.argv[1:])}: plain data, and a study that can be run")
    except InputError as mistake:
        sys.exit(str(mistake))
