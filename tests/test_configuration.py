"""The configuration: complete schema, defaults that agree with config.yaml, one-line mistakes."""

from pathlib import Path

import pytest
import yaml

from refusal.configuration import check_config
from refusal.errors import InputError
from refusal.recipes import check_comparisons, expand_interventions
from refusal.verdicts import PARSE_RULES

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "config.schema.yaml").read_text())
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


PLANTED = {"rank": 1, "share_weight": 1, "reader_std": 0.4} | {
    "silence_weight": 0,
    "place_share": 0,
}
JUDGE = {"path": "owner/name", "prompt": "wildguard", "parse": "wildguard"}


def judged(**keys) -> dict:
    """Return the sections of a study that asks one judge, `a`, with some keys changed."""
    return {"scores": {"models": ["a"]}, "judges": {"a": {**JUDGE, **keys}}}


def changed(**sections) -> dict:
    """Return the shipped configuration with some sections replaced."""
    return {**CONFIG, **sections}


def every_property(schema: dict, path: str = ""):
    """Yield (path, schema) of every key that the schema describes."""
    for name, part in schema.get("properties", {}).items():
        if "$ref" in part:
            part = {**part, **SCHEMA["$defs"][part["$ref"].rsplit("/", 1)[1]]}
        yield f"{path}.{name}", part
        yield from every_property(part, f"{path}.{name}")
        if isinstance(part.get("additionalProperties"), dict):
            yield from every_property(part["additionalProperties"], f"{path}.{name}.*")


def test_every_key_is_described_and_closed():
    for path, part in every_property(SCHEMA):
        assert part.get("description"), f"{path} has no description"
        if part.get("type") == "object":
            assert "additionalProperties" in part, f"{path} accepts unknown keys"


def test_every_key_outside_the_named_entries_has_a_default():
    for path, part in every_property(SCHEMA):
        if ".*" not in path:
            assert "default" in part, f"{path} has no default"


def test_shipped_values_are_the_defaults():
    """A reader of config.yaml and a reader of the schema must learn the same."""
    named = {"models", "interventions", "judges"}
    bare = check_config({k: CONFIG[k] for k in named}, SCHEMA)
    full = check_config(CONFIG, SCHEMA)
    for section in set(full) - named:
        if section == "statistics":
            bare[section]["comparisons"] = full[section]["comparisons"]
        assert bare[section] == full[section], section


def test_null_removes_an_entry():
    models = {**CONFIG["models"], "neox-1": None}
    assert "neox-1" not in check_config(changed(models=models), SCHEMA)["models"]


@pytest.mark.parametrize(
    "mistake, words",
    [
        ({"selektion": {}}, ["selektion", "did you mean `selection`"]),
        ({"selection": {"kl_mx": 1}}, ["kl_mx", "selection", "did you mean `kl_max`"]),
        ({"generations": {"max_new_tokens": "many"}}, ["generations.max_new_tokens", "many"]),
        ({"prompts": {"source": "no/such/file.csv"}}, ["prompts.source", "no/such/file.csv"]),
        ({"models": {}}, ["models"]),
        ({"models": {"a": {"architecture": "gpt9"}}}, ["models.a.architecture", "gpt9"]),
        ({"models": {"a": {"seed": 1}}}, ["models.a", "either `architecture`"]),
        ({"models": {"a": {"path": "/no/such"}}}, ["models.a.path", "/no/such", "config.json"]),
        (
            {"models": {"a": {"architecture": "llama", "dtype": "float16"}}},
            ["models.a", "`dtype` only applies"],
        ),
        ({"scores": {"models": ["wildgard"]}}, ["scores.models", "did you mean `wildguard`"]),
        ({"scores": {"models": ["a"]}, "judges": {}}, ["scores.models", "`a`", "known: none"]),
        (judged(path="/no/such"), ["judges.a.path", "/no/such", "config.json"]),
        (judged(base="/no/such"), ["judges.a.base", "/no/such", "config.json"]),
        (judged(prompt="wildgard"), ["judges.a", "no file wildgard", "wildguard"]),
        (judged(prompt="config.yaml"), ["judges.a", "config.yaml", "{request}", "exactly once"]),
        (judged(parse="yes"), ["judges.a.parse", "yes"]),
        (judged(rule="published"), ["judges.a.rule", "wildguard", "give one of strict"]),
        ({"judges": {"oracle": JUDGE}}, ["judges", "oracle", "not the name of a judge"]),
        (
            {"planted": {"organisms": {"a": PLANTED | {"rank": 9}}}},
            ["organisms.a: rank 9", "8 directions"],
        ),
        (
            {"planted": {"organisms": {"a": PLANTED}, "bases": {"llama-0": None}}},
            ["planted.bases", "none is named"],
        ),
        (
            {"planted": {"organisms": {"a": PLANTED | {"bases": ["llama-1"]}}}},
            ["organisms.a.bases", "llama-1", "llama-0, qwen2-0"],
        ),
        ({"planted": {"organisms": {"a": {"rank": 1}}}}, ["planted.organisms.a", "share_weight"]),
        (
            {"planted": {"bases": {"a": {"architecture": "gemma2", "seed": 0}}}},
            ["planted.bases.a.architecture", "gemma2"],
        ),
        ({"interventions": {"a": {"alpha": 1}}}, ["interventions.a", "operator"]),
        ({"interventions": {"a": {"operator": "none", "beta": 1}}}, ["beta", "interventions.a"]),
    ],
)
def test_a_mistake_gives_one_line_that_names_the_key(mistake, words):
    with pytest.raises(InputError) as error:
        check_config(changed(**mistake), SCHEMA)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_every_judge_of_the_catalogue_can_be_asked():
    models = list(CONFIG["judges"])
    config = check_config(changed(scores={"models": models}), SCHEMA)
    assert {"llama_guard_2", "llama_guard_3", "wildguard", "harmbench"} <= set(models)
    for name, judge in config["judges"].items():
        assert judge["rule"] == "strict" and len(judge["revision"]) == 40, name
        assert bool(judge["base"]) == bool(judge["base_revision"]), name
    assert check_config(CONFIG, SCHEMA)["scores"]["models"] == []


def test_the_schema_names_every_format_of_verdicts_and_every_rule():
    keys = SCHEMA["properties"]["judges"]["additionalProperties"]["properties"]
    assert keys["parse"]["enum"] == list(PARSE_RULES)
    assert set(keys["rule"]["enum"]) == {r for rule in PARSE_RULES.values() for r in rule.rules}


def test_compared_interventions_have_to_exist():
    recipes = expand_interventions(CONFIG["interventions"])
    check_comparisons(CONFIG["statistics"]["comparisons"], recipes)
    check_comparisons([["random_ablation-draw*", "none"]], recipes)
    with pytest.raises(InputError, match="did you mean 'dim_ablation'"):
        check_comparisons([["dim_ablatoin", "none"]], recipes)


def test_the_order_of_keys_changes_nothing():
    """Snakemake compares parameters as text, so an overlay's order of keys must not show."""

    def reversed_keys(value):
        if not isinstance(value, dict):
            return value
        return {key: reversed_keys(value[key]) for key in reversed(value)}

    shuffled = {k: reversed_keys(v) for k, v in CONFIG.items() if k not in ("models", "judges")}
    for named in ("models", "judges"):
        shuffled[named] = {name: reversed_keys(entry) for name, entry in CONFIG[named].items()}
    checked, expected = check_config(shuffled, SCHEMA), check_config(CONFIG, SCHEMA)
    for section in set(expected) - {"interventions"}:
        assert str(checked[section]) == str(expected[section]), section
    for name, entry in expected["interventions"].items():
        assert str(checked["interventions"][name]) == str(entry)


@pytest.mark.parametrize(
    "steered, control",
    [
        ("dim_ablation", "random_ablation-draw0"),
        ("dim_addition-strength1", "random_addition-draw0"),
        ("inlp_projection-kfull-source", "random_projection-kfull-draw0"),
        ("inlp_flipping-kfull-source", "random_flipping-kfull-draw0"),
    ],
)
def test_a_random_control_differs_in_its_direction_alone(steered, control):
    """The same operator, place and length; `selection` decides the layer and the length."""
    recipes = expand_interventions(CONFIG["interventions"])
    for part in ("operator", "scope", "selection", "alpha", "strength", "k"):
        assert recipes[control][part] == recipes[steered][part], part


@pytest.mark.parametrize("image", ["no.sif", "docker://a b", "docker://a;b", "../a.sif", "oci://a"])
def test_an_image_is_a_file_that_exists_or_one_to_fetch(image):
    """Snakemake puts it into a command as it is."""
    with pytest.raises(InputError, match="container.*Remedy"):
        check_config(changed(container=image), SCHEMA)
    assert check_config(changed(container="docker://owner/name:1.0"), SCHEMA)["container"]
