"""Configuration, names and helper functions shared by all rules."""

import ast
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from refusal.configuration import check_config
from refusal.errors import InputError
from refusal.recipes import check_comparisons, expand_interventions

try:
    with open(Path(workflow.basedir) / "config.schema.yaml") as schema:
        config = check_config(config, yaml.safe_load(schema))
    RECIPES = expand_interventions(
        config["interventions"], config["directions"]["random"]["draws"]
    )
    check_comparisons(config["statistics"]["comparisons"], RECIPES)
except InputError as mistake:
    raise WorkflowError(str(mistake)) from None


RESULTS = f"results/{config['study']}"


pathvars:
    results=RESULTS,
    logs=f"logs/{config['study']}",
    benchmarks=f"{RESULTS}/benchmarks",


MODELS = list(config["models"])
ORGANISMS = [
    name for name, model in config["models"].items() if "architecture" in model
]
METHODS = ["dim", "inlp_faithful", "inlp_corrected", "leace"]
SELECTED = ["dim", "inlp_faithful", "inlp_corrected"]
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
CHECKPOINT_FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    *TOKENIZER_FILES,
]
FIGURES = [
    "refusal",
    "k_sweep",
    "alpha_sweep",
    "landing",
    "inlp_accuracy",
    "candidates",
    "agreement",
    "behaviour",
    "projections",
]
TABLES = [
    "models",
    "training",
    "selection",
    "rejections",
    "main",
    "all",
    "comparisons",
    "agreement",
    "claims",
    "conditions",
    "subspaces",
    "angles",
    "examples",
]
# Interventions whose completions are shown, of those that the study has.
EXAMPLES = [
    name
    for name in (
        "none",
        "dim_ablation",
        "inlp_flipping-kfull-source",
        "dim_addition-strength1",
    )
    if name in RECIPES
]
FAMILIES = {}
for name, recipe in RECIPES.items():
    FAMILIES.setdefault(recipe["family"], []).append(name)


wildcard_constraints:
    model="|".join(MODELS),
    intervention="|".join(RECIPES),


def library(script):
    """Return the modules that a script needs, found from the imports themselves.

    They are inputs of its rule: editing `figures.py` reruns no model job, editing
    `directions.py` reruns all that depends on directions. `job.py` only logs and is left out.
    """
    found, queue = set(), [SCRIPTS / script]
    while queue:
        for name in imported_modules(queue.pop()):
            path = SCRIPTS.joinpath(*name.split(".")).with_suffix(".py")
            if path.is_file() and path not in found and name != "job":
                found.add(path)
                queue.append(path)
    return sorted(str(path.relative_to(workflow.basedir)) for path in found)


def imported_modules(path):
    """Return the names that a file imports from: `a.b` of `from a.b import c`, and `a.b.c`."""
    nodes = [
        n
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.ImportFrom)
    ]
    modules = {node.module for node in nodes if node.module}
    return modules | {
        f"{n.module}.{alias.name}" for n in nodes for alias in n.names if n.module
    }


def checkpoint_path(wildcards):
    """Return the folder or hub id of a model."""
    model = config["models"][wildcards.model]
    if "architecture" in model:
        return f"{RESULTS}/models/{wildcards.model}"
    folder = Path(model["path"]).expanduser()
    return str(folder) if folder.is_dir() else model["path"]


def checkpoint_files(wildcards):
    """Return the files of a model's checkpoint: what was trained here, or a local folder's own."""
    path = Path(checkpoint_path(wildcards))
    if wildcards.model in ORGANISMS:
        return [f"{path}/{name}" for name in CHECKPOINT_FILES]
    return sorted(map(str, path.glob("*.json"))) + sorted(
        map(str, path.glob("*.safetensors"))
    )


def training_record(wildcards):
    """Return how an organism was trained; nothing for a loaded model."""
    is_organism = wildcards.model in ORGANISMS
    return f"{RESULTS}/models/{wildcards.model}/training.json" if is_organism else []


def final_outputs():
    """Return what a whole run makes.

    Generations and losses are named although the paper needs them anyway: a deleted one is then
    missed, and made again with all that depends on it.
    """
    per_intervention = collect(
        "<results>/{noun}/{model}/{intervention}.parquet",
        noun=["generations", "losses", "scores"],
        model=MODELS,
        intervention=RECIPES,
    )
    return [
        "<results>/config.yaml",
        "<results>/statistics/summary.parquet",
        "<results>/claims.json",
        "<results>/paper/main.pdf",
        *per_intervention,
    ]
