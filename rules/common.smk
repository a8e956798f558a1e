"""Configuration, names and helper functions shared by all rules."""

import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from refusal.configuration import ABOUT_KINDS, check_config
from refusal.errors import InputError
from refusal.estimate import estimate_lines, estimate_study
from refusal.judge_prompts import CONVERSATION, prompt_file
from refusal.harmless_values import check_file_is_data
from refusal.external_runs import expand_external_runs, local_files
from refusal.imports import needed_modules
from refusal.manifest import code_files
from refusal.resources import OF_ORGANISM, job_resources
from refusal.recipes import (
    check_attacks,
    check_capability,
    check_comparisons,
    check_kinds,
    expand_interventions,
)
from refusal.run_layout import part_files

try:
    # Too late to stop what such a file has run already, but no study has to be written like that.
    for file in workflow.configfiles if workflow.is_main_process else []:
        check_file_is_data(file)
    with open(Path(workflow.basedir) / "config.schema.yaml") as schema:
        config = check_config(config, yaml.load(schema, yaml.CSafeLoader))
    RECIPES = expand_interventions(
        config["interventions"], config["directions"]["random"]["draws"]
    )
    check_comparisons(config["statistics"]["comparisons"], RECIPES)
    if config["experiments"]["capability"]:
        check_capability(config["capability"]["interventions"], RECIPES)
    if config["experiments"]["attacks"]:
        check_attacks(config["attacks"]["interventions"], RECIPES)
    if any(config["experiments"][name] for name in ABOUT_KINDS):
        check_kinds(config["kinds"]["interventions"], RECIPES)
    EXTERNAL_RUNS = expand_external_runs(
        config["external_runs"], RECIPES, config["models"], config["external_mirror"]
    )
except InputError as mistake:
    raise WorkflowError(str(mistake)) from None


RESULTS = f"results/{config['study']}"


pathvars:
    results=RESULTS,
    logs=f"logs/{config['study']}",
    benchmarks=f"{RESULTS}/benchmarks",


PROMPT_SOURCE = config["prompts"]["source"]
# Files of the published splits, by their names in paper/published/splits.yaml.
PUBLISHED_SPLITS = [
    f"{label}_{split}"
    for label in ("harmful", "harmless")
    for split in ("train", "val", "test")
]
MODELS = list(config["models"])
ORGANISMS = [
    name for name, model in config["models"].items() if "architecture" in model
]
# Organisms with a planted subspace, of every base, kind and seed.
PLANTED = {
    f"{base}-{kind}-{seed}": {
        "base": base,
        "kind": kind,
        **{name: value for name, value in settings.items() if name != "bases"},
        "seed": seed,
    }
    for base in config["planted"]["bases"]
    for kind, settings in config["planted"]["organisms"].items()
    if base in settings.get("bases", config["planted"]["bases"])
    for seed in config["planted"]["seeds"]
}
EXTERNAL_PINS = sorted({run["pins"] for run in EXTERNAL_RUNS.values() if run["pins"]})
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
    "off_distribution",
    "offset",
    "tokens",
]
TABLES = [
    "models",
    "training",
    "selection",
    "rejections",
    "main",
    "all",
    "comparisons",
    "losses",
    "comparator",
    "agreement",
    "judges",
    "claims",
    "conditions",
    "subspaces",
    "angles",
    "examples",
]
# What an experiment writes per model besides its summary, and what the paper shows of it.
EXPERIMENTS = {
    "weights": {"frames": ["prompts"], "figures": [], "tables": ["weights"]},
    "capability": {
        "frames": ["tasks"],
        "figures": [],
        "tables": ["capability", "capability_models"],
    },
    "suffix": {
        "frames": ["cosines", "heads", "attention"],
        "figures": ["suffix_cosines", "suffix_heads"],
        "tables": ["suffix"],
    },
    "attacks": {
        "frames": [],
        "figures": [],
        "tables": ["attacks", "attacks_models", "harmbench"],
    },
    "before_tuning": {
        "frames": ["cosines"],
        "figures": ["before_tuning"],
        "tables": [],
    },
    "windows": {"frames": ["map"], "figures": ["windows"], "tables": []},
    "heads": {"frames": ["curve"], "figures": ["heads"], "tables": []},
    "kinds": {
        "frames": ["behaviour", "cosines", "stability", "span", "ablation"],
        "figures": ["kinds_cosines", "kinds_ablation", "kinds_span"],
        "tables": ["kinds", "kinds_stability"],
    },
    "knob": {
        "frames": ["curves", "chosen", "cells"],
        "figures": ["knob"],
        "tables": ["knob", "knob_cells", "knob_spread"],
    },
    "styles": {
        "frames": ["distribution", "confusion"],
        "figures": ["styles", "style_confusion"],
        "tables": ["styles"],
    },
    "sparse_features": {
        "frames": ["sharing"],
        "figures": ["sparse_features"],
        "tables": ["sparse_features"],
    },
}
EXPERIMENTS = {
    name: shown for name, shown in EXPERIMENTS.items() if config["experiments"][name]
}
FIGURES += [figure for shown in EXPERIMENTS.values() for figure in shown["figures"]]
TABLES += [table for shown in EXPERIMENTS.values() for table in shown["tables"]]
# What is shown of planted organisms, where there are any.
PLANTED_SHOWN = {
    "figures": ["planted_gap", "planted_recovery", "planted_split"],
    "tables": ["planted_organisms", "planted_methods"],
}
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
# Fine-tuning has a job of its own; of the rest, losses are measured where all tokens are steered.
STEERED = [
    name for name, recipe in RECIPES.items() if recipe["operator"] != "fine_tune"
]
WITH_LOSSES = [n for n, r in RECIPES.items() if r["tokens"] in (None, "all")]


# What the estimate says of a model whose size is not known.
UNKNOWN = {"size": None}
# Judges that are models, of those that the study asks.
JUDGES = config["scores"]["models"]


wildcard_constraints:
    model="|".join(MODELS) or "none",
    run="|".join(EXTERNAL_RUNS) or "none",
    intervention="|".join(RECIPES),
    # An empty pattern would match anything.
    judge="|".join(JUDGES) or "no_judge",


def jobs_of_a_model(names):
    """Return the interventions by the job that runs them: all in one, or each family in its own."""
    if not config["split_by_family"]:
        return {"interventions": names}
    found = {}
    for name in names:
        found.setdefault(RECIPES[name]["family"], []).append(name)
    return found


def library(script):
    """Return the modules that a script needs, found from the imports themselves.

    They are inputs of its rule: editing `figures/` reruns no model job, editing
    `directions.py` reruns all that depends on directions. `job.py` only logs and is left out.
    """
    modules = needed_modules(SCRIPTS, script)
    return [
        str(path.relative_to(workflow.basedir))
        for path in modules
        if path.name != "job.py"
    ]


def checkpoint_path(wildcards):
    """Return the folder or hub id of a model."""
    model = config["models"][wildcards.model]
    if "architecture" in model:
        return f"{RESULTS}/models/{wildcards.model}"
    return folder_or_hub_id(model["path"])


def folder_or_hub_id(path):
    """Return the path of a checkpoint: a folder with `~` spelt out, or the hub id as it is."""
    folder = Path(path).expanduser()
    return str(folder) if path and folder.is_dir() else path


def checkpoint_files(wildcards):
    """Return the files of a model's checkpoint: what was trained here, or a local folder's own."""
    path = Path(checkpoint_path(wildcards))
    if wildcards.model in ORGANISMS:
        return [f"{path}/{name}" for name in CHECKPOINT_FILES]
    return sorted(map(str, path.glob("*.json"))) + sorted(
        map(str, path.glob("*.safetensors"))
    )


def on_the_hub():
    """Return the checkpoints that the hub has, by the name of their folder in models/."""
    asked = {}
    for name, model in config["models"].items():
        asked[name] = (model.get("path"), model.get("revision"))
        # No revision of its own: the main branch, as it is when first used.
        asked[f"{name}-base"] = (model.get("base"), None)
    for name in JUDGES:
        judge = config["judges"][name]
        asked[f"judge-{name}"] = (judge["path"], judge["revision"])
        asked[f"judge-{name}-base"] = (judge["base"], judge["base_revision"])
    styles = config["styles"]
    if config["experiments"]["styles"]:
        asked["judge-of-styles"] = (styles["judge"], styles["revision"])
    return {
        folder: {"hub_id": path, "revision": revision}
        for folder, (path, revision) in asked.items()
        if path and not Path(path).expanduser().is_dir()
    }


HUB = on_the_hub()


def commit_of(folder):
    """Return the file that says at which commit a checkpoint was fetched; none of a local one."""
    return f"{RESULTS}/models/{folder}/commit.json" if folder in HUB else []


def judge_files(wildcards):
    """Return the local files of a judge: its prompt, and a checkpoint folder's own."""
    judge = config["judges"][wildcards.judge]
    prompt = prompt_file(judge["prompt"])
    files = [str(prompt)] if judge["prompt"] != CONVERSATION else []
    for name in ("path", "base"):
        folder = Path(judge[name] or "").expanduser()
        if judge[name] and folder.is_dir():
            files += sorted(map(str, folder.glob("*.json")))
            files += sorted(map(str, folder.glob("*.safetensors")))
    return files


def judge_settings(wildcards):
    """Return the entry of a judge, with `~` spelt out in its folders."""
    judge = config["judges"][wildcards.judge]
    paths = {
        name: judge[name] and folder_or_hub_id(judge[name]) for name in ("path", "base")
    }
    return {**judge, **paths}


def judgement_files(wildcards):
    """Return what the judges that are models say of a model's completions."""
    return [
        f"{RESULTS}/judgements/{wildcards.model}/{judge}.parquet" for judge in JUDGES
    ]


def capability_settings(wildcards):
    """Return the tasks that a model is asked, and how: those of organisms, or of loaded models."""
    group = "organisms" if wildcards.model in ORGANISMS else "loaded"
    settings = config["capability"]
    return {
        "tasks": settings["tasks"][group],
        "limit": settings["limit"],
        "batch_size": settings["batch_size"],
    }


with open(Path(workflow.basedir) / "workflow" / "models.yaml") as catalogue:
    ESTIMATE = estimate_study(config, RECIPES, yaml.load(catalogue, yaml.CSafeLoader))


def print_estimate():
    """Print what the loaded models of the study will cost: in a dry run, and before a real one."""
    for line in estimate_lines(ESTIMATE, config["hardware"]):
        print(line, file=sys.stderr)


if workflow.is_main_process:
    print_estimate()


def estimated(name, judge=False):
    """Return the row of a model or of a judge in the estimate; None of an organism."""
    loaded = len(MODELS) - len(ORGANISMS)
    rows = ESTIMATE[loaded:] if judge else ESTIMATE[:loaded]
    return next((row for row in rows if row["model"] == name), None)


def asked_for(first_attempt):
    """Return the resources of a rule, given what the first attempt of its job asks for.

    On one machine they change nothing, unless it is told what it has: `--resources gpu=1`.
    """
    hardware = config["hardware"]

    def at(wildcards, attempt):
        return first_attempt(wildcards).at(attempt, hardware["max_runtime"])

    resources = {
        "gpu": lambda wildcards: first_attempt(wildcards).gpus,
        "mem_mb": lambda wildcards, attempt: at(wildcards, attempt).memory,
        "runtime": lambda wildcards, attempt: at(wildcards, attempt).runtime,
        # Without it SLURM may spread the GPUs of one job over several nodes.
        "nodes": 1,
    }
    if hardware["gpu_model"]:
        resources["gpu_model"] = lambda wildcards: (
            hardware["gpu_model"] if first_attempt(wildcards).gpus else ""
        )
    return resources


def for_model(stage, share=1.0):
    """Return the resources of jobs that load the model of the wildcard and do a share of a stage."""

    def first_attempt(wildcards):
        device = config["models"][wildcards.model].get("device", "cpu")
        return job_resources(estimated(wildcards.model), device, stage, share)

    return asked_for(first_attempt)


def for_organism():
    """Return the resources of jobs that train an organism, or what comes before."""
    return asked_for(lambda wildcards: OF_ORGANISM)


def for_judge():
    """Return the resources of jobs in which one judge reads the completions of one model."""

    def first_attempt(wildcards):
        row = estimated(wildcards.judge, judge=True) or UNKNOWN
        device = config["judges"][wildcards.judge]["device"]
        return job_resources(row, device, "judgements", 1 / len(MODELS))

    return asked_for(first_attempt)


def for_judge_of_styles():
    """Return the resources of jobs that ask a chat model about styles, or measure words alone."""
    styles = config["styles"]
    if not styles["judge"]:
        return for_organism()
    return asked_for(
        lambda wildcards: job_resources(UNKNOWN, styles["device"], "styles")
    )


def base_path(wildcards):
    """Return the checkpoint before safety tuning: an organism's own, else as configured.

    Empty where none is named: the job then says so in one line.
    """
    if wildcards.model in ORGANISMS:
        return f"{RESULTS}/models/{wildcards.model}-helpful"
    return folder_or_hub_id(config["models"][wildcards.model].get("base") or "")


def base_files(wildcards):
    """Return the files of the checkpoint before safety tuning, of a local folder its own."""
    base = base_path(wildcards)
    path = Path(base)
    if not base:
        return []
    if wildcards.model in ORGANISMS:
        return [f"{path}/{name}" for name in CHECKPOINT_FILES]
    return sorted(map(str, path.glob("*.json"))) + sorted(
        map(str, path.glob("*.safetensors"))
    )


def training_record(wildcards):
    """Return how an organism was trained; nothing for a loaded model."""
    is_organism = wildcards.model in ORGANISMS
    return f"{RESULTS}/models/{wildcards.model}/training.json" if is_organism else []


def helpful_files(wildcards):
    """Return the checkpoint before safety tuning, whose answers the search aims at."""
    if wildcards.model not in ORGANISMS:
        return []
    folder = f"{RESULTS}/models/{wildcards.model}-helpful"
    return [f"{folder}/{name}" for name in CHECKPOINT_FILES]


def planted_base_files(organism):
    """Return the checkpoint of the base in which an organism's refusal is planted."""
    folder = f"{RESULTS}/planted/bases/{PLANTED[organism]['base']}"
    return [f"{folder}/{name}" for name in CHECKPOINT_FILES]


def reserved_subspace(organism):
    """Return the subspace that the base of an organism keeps empty."""
    return f"{RESULTS}/planted/bases/{PLANTED[organism]['base']}/subspace.npz"


def tables_of_planted(name):
    """Return one table of the estimators, of every planted organism."""
    return collect(
        f"<results>/planted/{{organism}}/estimators/{name}.parquet", organism=PLANTED
    )


def planted_section_files():
    """Return the tables that the section on planted organisms is written from; none without any."""
    names = ("organisms.parquet", "methods.parquet", "claims.json")
    tables = [f"<results>/planted/{name}" for name in names]
    tables.append("<results>/planted/estimators/candidates.parquet")
    return tables if PLANTED else []


def external_local_files(wildcards):
    """Return the files of an external run that lie on this machine: a newer one is read again."""
    return local_files(EXTERNAL_RUNS[wildcards.run])


def external_tables(folder, suffix):
    """Return `<folder>/<run>/<intervention>.<suffix>` of every external run."""
    return [
        f"<results>/{folder}/{run}/{intervention}.{suffix}"
        for run, entry in EXTERNAL_RUNS.items()
        for intervention in entry["interventions"]
    ]


def external_statistics_settings():
    """Return the section `statistics` with the comparisons that external runs can answer."""
    known = {name for run in EXTERNAL_RUNS.values() for name in run["interventions"]}
    pairs = [pair for pair in config["statistics"]["comparisons"] if known >= set(pair)]
    return {**config["statistics"], "comparisons": pairs}


def experiment_frames():
    """Return the frames of every experiment and model that figures and tables show."""
    return [
        f"<results>/{experiment}/{model}/{frame}.parquet"
        for experiment, shown in EXPERIMENTS.items()
        for frame in shown["frames"]
        for model in MODELS
    ]


def reported(folder, names, suffix):
    """Return figures or tables, marked for `snakemake --report` with their captions and labels."""
    owners = {
        name: experiment
        for experiment, shown in EXPERIMENTS.items()
        for name in shown[folder]
    } | dict.fromkeys(PLANTED_SHOWN[folder], "planted")

    def marked(name):
        return report(
            f"<results>/{folder}/{name}.{suffix}",
            caption=f"../report/{folder}/{name}.rst",
            category=folder.capitalize(),
            subcategory=owners.get(name, "main").replace("_", " "),
            labels={folder.removesuffix("s"): name.replace("_", " ")},
        )

    return list(map(marked, names))


def compared_files(side):
    """Return the files that are read of a compared run; of this study, all that a run makes."""
    folder = config["compare"][side]
    if folder is None:
        return run_outputs() if side == "left" else []
    return [str(path) for files in part_files(folder).values() for path in files]


def final_outputs():
    """Return what was asked for: of models, of external runs, and a comparison with another run."""
    if config["compare"]["right"] is None:
        return run_outputs()
    return [*run_outputs(), "<results>/compare/report.html"]


def run_outputs():
    """Return what a whole run makes."""
    outputs = ["<results>/config.yaml"]
    if MODELS:
        outputs += model_outputs()
    if EXTERNAL_RUNS:
        outputs += ["<results>/external_runs/report.pdf"]
    if PLANTED:
        outputs += ["<results>/planted/organisms.parquet"]
        outputs += [
            f"<results>/planted/estimators/{table}.parquet"
            for table in ("outcomes", "recovery", "split", "candidates")
        ]
    if PLANTED and not MODELS:
        # With models, the section on planted organisms is in the paper.
        outputs += ["<results>/planted/report.pdf"]
    return outputs


def model_outputs():
    """Return what is made of the models of the study.

    Generations, judgements and losses are named although the paper needs them anyway: a deleted one is then
    missed, and made again with all that depends on it.
    """
    per_intervention = collect(
        "<results>/{noun}/{model}/{intervention}.parquet",
        noun=["generations", "scores"],
        model=MODELS,
        intervention=RECIPES,
    )
    judgements = collect(
        "<results>/judgements/{model}/{judge}.parquet", model=MODELS, judge=JUDGES
    )
    losses = collect(
        "<results>/losses/{model}/{intervention}.parquet",
        model=MODELS,
        intervention=WITH_LOSSES,
    )
    return [
        "<results>/statistics/summary.parquet",
        "<results>/claims.json",
        "<results>/explorer.html",
        "<results>/paper/main.pdf",
        *per_intervention,
        *judgements,
        *losses,
    ]


def tracked_files(wildcards):
    """Return the files of the repository; asked for only when the archive is."""
    try:
        return code_files(Path(workflow.basedir))
    except InputError as mistake:
        raise WorkflowError(str(mistake)) from None
