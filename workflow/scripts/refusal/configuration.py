"""Check a study's configuration before any work starts, with one clear line per mistake."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jsonschema

from refusal.errors import InputError
from refusal.harmless_values import FORMAT_RULES, check_characters, schema_validator
from refusal.judge_prompts import load_prompt
from refusal.verdicts import PARSE_RULES

# Of a checkpoint on the hub, as its library allows them.
HUB_ID = re.compile(r"(?!.*(\.\.|--))(?:[A-Za-z0-9][A-Za-z0-9_.-]*/)?[A-Za-z0-9][A-Za-z0-9_.-]*")
# Experiments that need the directions of the kinds of refusal.
ABOUT_KINDS = ("kinds", "knob", "styles", "sparse_features")


def check_config(config: Mapping, schema: Mapping) -> dict:
    """Return the configuration with the schema's defaults filled in and `null` entries removed.

    Args:
        config: the merged configuration (config.yaml and the study's overlay).
        schema: JSON schema (2020-12) of the configuration.

    Raises:
        InputError: naming the key, what is wrong with it, and the remedy.
    """
    config = {key: value for key, value in config.items() if value is not None}
    for section in ("models", "interventions", "judges", "external_runs"):
        if isinstance(config.get(section), Mapping):
            config[section] = {k: v for k, v in config[section].items() if v is not None}
    if isinstance(planted := config.get("planted"), Mapping):
        config["planted"] = dict(planted)
        for section in ("bases", "organisms"):
            if isinstance(parts := planted.get(section), Mapping):
                named = {k: v for k, v in sorted(parts.items()) if v is not None}
                config["planted"][section] = named
    check_characters(config)
    for error in schema_validator(schema).iter_errors(config):
        raise InputError(_one_line(error))
    config = _with_defaults(config, schema, schema)
    judge = schema["properties"]["judges"]["additionalProperties"]
    config["judges"] = {k: _with_defaults(v, judge, schema) for k, v in config["judges"].items()}
    if not (config["models"] or config["external_runs"] or config["planted"]["organisms"]):
        raise InputError(
            "config: models: none is named. Remedy: name a model, a run in external_runs, or a "
            "kind in planted.organisms."
        )
    _check_planted(config["planted"])
    _check_models(config["models"])
    _check_prompt_source(config["prompts"], config["experiments"])
    _check_compared_runs(config["compare"])
    _check_judges(config["judges"], config["scores"]["models"])
    if config["experiments"]["styles"] and config["styles"]["judge"]:
        _check_hub_id("config: styles.judge", config["styles"]["judge"])
    _check_autoencoder(config["sparse_features"]["autoencoder"])
    _check_image(config["container"])
    return config


def _one_line(error: jsonschema.ValidationError) -> str:
    """Say in one line which key is wrong and what to do about it."""
    key = ".".join(str(part) for part in error.absolute_path) or "the top level"
    known = list(error.schema.get("properties", {}))
    if error.validator == "additionalProperties" and known:
        unknown = [name for name in error.instance if name not in known]
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}."
        return f"config: unknown key `{unknown[0]}` in {key}; {hint}"
    if error.validator == "format":
        rule = FORMAT_RULES[error.validator_value]
        return f"config: {key}: {error.instance!r}: {rule}. Remedy: rename or move the file."
    remedy = error.schema.get("description", "see config.schema.yaml")
    return f"config: {key}: {error.message}. Remedy: {remedy}"


def _with_defaults(value: Mapping, schema: Mapping, root: Mapping) -> dict:
    """Fill in the defaults of `schema`, nested objects included, in the order of the schema.

    The order matters: Snakemake compares parameters as text, and in whatever order an overlay
    names its keys, the same configuration must not rerun anything.
    """
    schema = _resolved(schema, root)
    filled = {}
    for name, part in schema.get("properties", {}).items():
        part = _resolved(part, root)
        if name in value or "default" in part:
            filled[name] = value.get(name, part.get("default"))
        if isinstance(filled.get(name), Mapping):
            filled[name] = _with_defaults(filled[name], part, root)
    for name in (name for name in value if name not in filled):
        filled[name] = _ordered(value[name], schema["additionalProperties"])
    return filled


def _ordered(entry: Mapping, schema: Mapping) -> dict:
    """One named entry (a model, an intervention) in the order of the schema, nothing filled in."""
    if "properties" not in schema:  # a plain value, such as the tolerance of a metric
        return entry
    return {name: entry[name] for name in schema["properties"] if name in entry}


def _resolved(schema: Mapping, root: Mapping) -> Mapping:
    """Return the schema that a `$ref` points to, with the keys beside it."""
    if "$ref" not in schema:
        return schema
    return {**root["$defs"][schema["$ref"].rsplit("/", 1)[1]], **schema}


def _check_models(models: Mapping[str, Mapping]) -> None:
    """Each model is either trained here or loaded, and a local folder must exist."""
    for name, model in models.items():
        key = f"config: models.{name}"
        if ("architecture" in model) == ("path" in model):
            raise InputError(
                f"{key}: give either `architecture` (train an organism) or `path` "
                "(load a checkpoint), not both or neither."
            )
        if "path" in model:
            _check_checkpoint_path(key, model["path"])
            _check_hub_id(f"{key}.base", model.get("base"))
            continue
        extra = sorted(set(model) - {"architecture", "seed", "refusal_tokens"})
        if extra:
            raise InputError(
                f"{key}: `{extra[0]}` only applies to loaded models; remove it, "
                "or give `path` instead of `architecture`."
            )


def _check_planted(planted: Mapping) -> None:
    """Every rank has to fit into what bases keep empty, and there has to be a base."""
    for name, organism in planted["organisms"].items():
        if (rank := organism["rank"]) > planted["reserved"]:
            raise InputError(
                f"config: planted.organisms.{name}: rank {rank}, but bases keep "
                f"{planted['reserved']} directions empty; raise planted.reserved or lower the rank."
            )
        for base in organism.get("bases", ()):
            if base not in planted["bases"]:
                raise InputError(
                    f"config: planted.organisms.{name}.bases: no base {base!r}; name one of "
                    f"planted.bases ({', '.join(planted['bases'])})."
                )
    if planted["organisms"] and not planted["bases"]:
        raise InputError("config: planted.bases: none is named; name one, or no organisms.")


def _check_checkpoint_path(key: str, path: str) -> None:
    """A path that cannot be a hub id (owner/name) has to be a folder with a checkpoint."""
    folder = Path(path).expanduser()
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1 or folder.exists()
    if looks_local and not (folder / "config.json").is_file():
        raise InputError(
            f"{key}.path: {path} is not a checkpoint folder (no config.json in it); "
            "give the folder that `save_pretrained` wrote, or a hub id such as owner/name."
        )
    _check_hub_id(f"{key}.path", path)


def _check_hub_id(key: str, path: str | None) -> None:
    """What is no folder here is asked of the hub, so it has to be a name that the hub can have."""
    if path and not Path(path).expanduser().is_dir() and not HUB_ID.fullmatch(path):
        raise InputError(
            f"{key}: {path} is neither a folder nor a hub id; give a folder with a checkpoint, or "
            "a hub id such as owner/name."
        )


def _check_judges(judges: Mapping[str, Mapping], asked: Sequence[str]) -> None:
    """Every judge that is asked has an entry, a prompt, a checkpoint and a rule of its format."""
    for name in asked:
        if name not in judges:
            near = difflib.get_close_matches(name, judges, n=1)
            known = ", ".join(judges) or "none"
            hint = f"did you mean `{near[0]}`?" if near else f"known: {known}."
            raise InputError(
                f"config: scores.models: no judge `{name}` in the section `judges`; {hint}"
            )
        key, judge = f"config: judges.{name}", judges[name]
        rules = PARSE_RULES[judge["parse"]].rules
        if judge["rule"] not in rules:
            raise InputError(
                f"{key}.rule: verdicts of {judge['parse']} have no rule `{judge['rule']}`; "
                f"give one of {', '.join(rules)}."
            )
        try:
            load_prompt(judge["prompt"])
        except InputError as mistake:
            raise InputError(f"{key}: {mistake}") from None
        _check_judge_paths(key, judge)


def _check_judge_paths(key: str, judge: Mapping) -> None:
    """A judge is a checkpoint, or an adapter (checked where it is loaded) of one."""
    if not judge["base"]:
        _check_checkpoint_path(key, judge["path"])
        return
    _check_hub_id(f"{key}.path", judge["path"])
    try:
        _check_checkpoint_path(key, judge["base"])
    except InputError as mistake:
        raise InputError(str(mistake).replace(f"{key}.path", f"{key}.base")) from None


def _check_prompt_source(prompts: Mapping, experiments: Mapping) -> None:
    """A prompt file has to exist before anything runs; published kinds are for such files."""
    source, mirror = prompts["source"], prompts["mirror"]
    if source == "grammar" and prompts["published_kinds"]:
        raise InputError(
            "config: prompts.published_kinds: the grammar has kinds of its own, which organisms "
            "are trained on; take another prompts.source, or set it to false."
        )
    kinds_asked = [name for name in ABOUT_KINDS if experiments[name]]
    if source == "arditi2024" and kinds_asked and not prompts["published_kinds"]:
        raise InputError(
            f"config: experiments.{kinds_asked[0]}: the published splits hold no kinds of refusal; "
            "set prompts.published_kinds to true, or the experiments about kinds to false."
        )
    if mirror and not Path(mirror).expanduser().is_dir():
        raise InputError(
            f"config: prompts.mirror: no folder {mirror}; give one with copies of the data sets, "
            "or null to download them."
        )
    if source == "grammar" and prompts["texts"]:
        raise InputError(
            "config: prompts.texts: organisms know the grammar's texts alone; set it to false, or "
            "take another prompts.source."
        )
    if source not in ("grammar", "arditi2024") and not Path(source).expanduser().is_file():
        raise InputError(
            f"config: prompts.source: no file {source}; give an existing CSV, JSON-lines or "
            "parquet file, `arditi2024` or `grammar`."
        )


def _check_autoencoder(path: str | None) -> None:
    """A published autoencoder has to exist before anything runs."""
    if path is not None and not Path(path).expanduser().is_file():
        raise InputError(
            f"config: sparse_features.autoencoder: no file {path}; give a safetensors file, or "
            "null to train one."
        )


def _check_compared_runs(compare: Mapping) -> None:
    """Runs that are compared have to exist before anything runs."""
    left, right = compare["left"], compare["right"]
    if left is not None and right is None:
        raise InputError(
            "config: compare.right: there is a left run but nothing to compare it with; give a "
            "results folder, or set compare.left to null."
        )
    for side, folder in (("left", left), ("right", right)):
        if folder is not None and not Path(folder).expanduser().is_dir():
            raise InputError(
                f"config: compare.{side}: no folder {folder}; give the results folder of a "
                "finished run, or null."
            )


def _check_image(image: str | None) -> None:
    """An image that is a file has to exist; Apptainer fetches any other when jobs start."""
    if image is not None and not image.startswith("docker://") and not Path(image).is_file():
        raise InputError(
            f"config: container: no file {image}. Remedy: build it (docs/containers.md), or give "
            "docker://owner/name:tag."
        )
