"""A study file, a table of pins and names from elsewhere are data: nothing in them runs or leads
out of the folder (docs/security.md)."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic_runs
import yaml
from command_line import SMOKE_STUDY, clone, snakemake

from refusal.configuration import check_config
from refusal.errors import InputError
from refusal.external_runs import expand_external_runs, read_pins
from refusal.recipes import check_attacks, check_comparisons, expand_interventions

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "config.schema.yaml").read_text())
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
# Each would leave a file `ran`, read a file, or change a page if anything ran or expanded it.
SHELL = ("$(touch ran)", "`touch ran`", "a; touch ran", "| touch ran", "a && touch ran")
PYTHON = ("{__import__('os').system('touch ran')}", "{config}", "{wildcards.model.__class__}")
OTHERS = (
    "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
    "?open('ran', 'w')",
    r"\input{/etc/passwd}\immediate\write18{touch ran}",
    "<script>alert(1)</script>",
    "../../ran",
    "/etc/ran",
    "~/ran",
    "organisms\n",
)
HOSTILE = (*SHELL, *PYTHON, *OTHERS)
TERMINAL = "\x1b]0;ran\x07\x1b[2J"
# Free texts, which models read and which are printed with everything in them escaped. The two of
# the harness are looked up among its tasks before anything is loaded.
FREE = {
    "models.*.suffix",
    "hardware.name",
    "attacks.organisms.system",
    "attacks.loaded.system",
    "attacks.organisms.templates.[].text",
    "attacks.loaded.templates.[].text",
    "attacks.organisms.templates.[].opening",
    "attacks.loaded.templates.[].opening",
    "capability.tasks.organisms.[].task",
    "capability.tasks.loaded.[].task",
    "capability.tasks.organisms.[].metric",
    "capability.tasks.loaded.[].metric",
}
# Names of a metric, which select a row, and of files below a folder, whatever they are called.
HARMLESS = {"compare.tolerances.*", "lock_file", "external_runs.*.interventions.*.*"}


def resolved(part: dict) -> dict:
    return {**SCHEMA["$defs"][part["$ref"].rsplit("/", 1)[1]], **part} if "$ref" in part else part


def text_keys(schema: dict, path: tuple = ()):
    """Yield the path of every place of the configuration that takes a text of the user's own."""
    schema = resolved(schema)
    kind = schema.get("type", [])
    if "enum" not in schema and {"string"} & {*([kind] if isinstance(kind, str) else kind)}:
        yield path
    for name, part in schema.get("properties", {}).items():
        yield from text_keys(part, (*path, name))
    if isinstance(schema.get("additionalProperties"), dict):
        yield (*path, "*")  # the name itself
        yield from text_keys(schema["additionalProperties"], (*path, "*"))
    if isinstance(schema.get("items"), dict):
        yield from text_keys(schema["items"], (*path, "[]"))


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> dict:
    """A right configuration in which every key of the schema has a place."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "config.json").write_text("{}")
    run = {"path": str(folder), "format": "table", "interventions": {"none": {"harmful": "a.csv"}}}
    config = copy.deepcopy(CONFIG)
    config["models"] = {"named": {"path": str(folder)}}
    config["external_runs"] = {"run": run}
    config["judges"] = {"named": {"path": str(folder), "prompt": "wildguard", "parse": "wildguard"}}
    config["scores"]["models"] = ["named"]
    config["interventions"]["named"] = {"operator": "none"}
    config["compare"]["tolerances"] = {"named": 0.1}
    config["planted"]["organisms"] = {
        "named": {
            "rank": 1,
            "share_weight": 0,
            "reader_std": 0.1,
            "silence_weight": 0,
            "place_share": 0,
        }
    }
    return config


def planted(config: dict, path: tuple, text: str) -> dict:
    """The configuration with a text at a path; at a final `*` it becomes the name of an entry."""
    config = copy.deepcopy(config)
    place = config
    for step, following in zip(path, (*path[1:], None), strict=True):
        if step == "*":
            step = "named" if "named" in place else next(iter(place))
        if step == "[]":
            place.append(text if not place or following is None else copy.deepcopy(place[0]))
            step = len(place) - 1
        if following is None:
            if path[-1] == "*" and not isinstance(place[step], str):
                place[text] = place[step]
            else:
                place[step] = text
        elif isinstance(place, dict):
            place.setdefault(step, [] if following == "[]" else {})
            place[step] = place[step] if isinstance(place[step], dict | list) else {}
        place = place[step] if following is not None else place
    return config


def checked(config: dict) -> dict:
    """What the rules do with a configuration before the first job."""
    config = check_config(config, SCHEMA)
    recipes = expand_interventions(config["interventions"], config["directions"]["random"]["draws"])
    check_comparisons(config["statistics"]["comparisons"], recipes)
    for section in ("attacks", "capability", "kinds"):
        check_attacks(config[section]["interventions"], recipes)
    models, mirror = config["models"], config["external_mirror"]
    expand_external_runs(config["external_runs"], recipes, models, mirror)
    return config


def test_every_text_of_a_study_is_free_text_or_refused_in_one_line(full, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked(full)
    paths, accepted = list(text_keys(SCHEMA)), set()
    assert len(paths) > 50
    for path in paths:
        for text in (SHELL[0], PYTHON[0], *OTHERS):
            try:
                # A template has to hold {request}, so that it is refused for nothing else.
                checked(planted(full, path, text + "{request}" * (path[-1] == "text")))
                accepted.add(".".join(path))
            except InputError as mistake:
                assert len(str(mistake).splitlines()) == 1
    assert accepted == FREE | HARMLESS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [("hardware", "name"), ("study",), ("models", "*")])
def test_nothing_rewrites_the_terminal(full, path):
    with pytest.raises(InputError) as caught:
        checked(planted(full, path, TERMINAL))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", ["owner/..", "../name", "owner/na me", "-o/name", "a/b/c", "x/$y"])
@pytest.mark.parametrize("key", ["path", "base"])
def test_what_is_no_folder_is_a_name_of_the_hub(full, path, key):
    full = copy.deepcopy(full)
    full["models"]["named"][key] = path
    with pytest.raises(InputError, match=rf"models.named.{key}: {path[:2]}".replace("$", r"\$")):
        checked(full)


# --- code in a study file ---


CODE = {
    "YTE": "__use_yte__: true\nstudy: ?open('ran', 'w') and 'a'\n",
    "a Python tag": "study: !!python/object/apply:os.system ['touch ran']\n",
    "a list": "- study\n",
}


@pytest.mark.parametrize("text", CODE.values(), ids=CODE)
def test_a_study_file_that_is_no_plain_data_is_refused_unread(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text)
    command = [sys.executable, str(ROOT / "workflow/scripts/check_study.py"), "study.yaml"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 1 and not (tmp_path / "ran").exists()
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("study.yaml: ")


def test_the_studies_of_the_repository_are_plain_data(tmp_path):
    studies = sorted(map(str, (ROOT / "studies").glob("*.yaml")))
    command = [sys.executable, str(ROOT / "workflow/scripts/check_study.py")]
    for study in studies[:1], studies[-1:]:
        done = subprocess.run([*command, *study], cwd=tmp_path, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_no_rule_hands_anything_to_a_shell():
    for path in [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]:
        code = re.findall(r"^\s*(?:shell|run)\s*:|\b(?:shell|eval|exec)\(", path.read_text(), re.M)
        assert code == [], path
    for path in sorted((ROOT / "workflow").rglob("*.py")):
        assert "shell=True" not in path.read_text(), path


@pytest.fixture(scope="module")
def hostile_study(tmp_path_factory) -> Path:
    """A clone with a study that is hostile wherever it may be, and a hostile prompt file."""
    folder = clone(tmp_path_factory.mktemp("hostile"))
    rows = ["text,label,split,id,kind,source"]
    for label in ("harmful", "harmless", "borderline"):
        for split in ("train", "validation", "test"):
            rows += [
                f'"{text.strip()} {label} {split}",{label},{split},"{text.strip()}{label}{split}",'
                f'"{text.strip()}","{text.strip()}"'
                for text in HOSTILE
            ]
    (folder / "prompts.csv").write_text("\n".join(rows) + "\n")
    text = " ".join(HOSTILE)
    templates = [{"name": "a", "text": "{request} " + text, "opening": text}]
    study = yaml.safe_load((ROOT / SMOKE_STUDY).read_text())
    study |= {
        "study": "a..b-_",
        "lock_file": "$(touch ran)",
        "hardware": {"name": SHELL[0] + PYTHON[0]},
        "attacks": {"organisms": {"system": text, "templates": templates}},
        "compare": {"tolerances": {PYTHON[0]: 0.1}},
    }
    study["prompts"] = {**study["prompts"], "source": "prompts.csv"}
    study["experiments"] = dict.fromkeys(("kinds", "knob", "styles", "sparse_features"), False)
    (folder / "hostile.yaml").write_text(yaml.safe_dump(study))
    return folder


def test_a_hostile_study_and_prompt_file_run_nothing(hostile_study):
    results = "results/a..b-_"
    targets = (f"{results}/config.yaml", f"{results}/prompts/prompts.parquet")
    done = snakemake(hostile_study, *targets, study="hostile.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    planned = snakemake(hostile_study, "-n", study="hostile.yaml")
    assert planned.returncode == 0 and "attacks" in planned.stdout, planned.stdout[-3000:]
    merged = yaml.safe_load((hostile_study / targets[0]).read_text())
    assert merged["attacks"]["organisms"]["templates"][0]["opening"] == " ".join(HOSTILE)
    assert not [*hostile_study.rglob("ran"), *hostile_study.parent.glob("ran")]


def test_snakemake_too_refuses_a_file_with_the_switch(hostile_study):
    (hostile_study / "yte.yaml").write_text("__use_yte__: true\nstudy: ?'a' + 'b'\n")
    done = snakemake(hostile_study, "-n", study="yte.yaml")
    assert done.returncode == 1 and "makes Snakemake run Python" in done.stdout


# --- names of files and addresses in tables from elsewhere ---


OUTSIDE = ("../a.csv", "b/../../a.csv", "/etc/passwd", "~/a.csv", "{wildcards}.csv", "")


@pytest.mark.parametrize("name", OUTSIDE)
def test_files_of_a_run_lie_in_its_folder(full, name):
    full = copy.deepcopy(full)
    full["external_runs"]["run"]["interventions"]["none"]["harmful"] = name
    with pytest.raises(InputError, match=r"external_runs.run.interventions.none.harmful: "):
        checked(full)


@pytest.mark.parametrize("name", OUTSIDE[:3])
def test_the_lock_file_lies_below_the_repository(full, name):
    with pytest.raises(InputError, match="lock_file"):
        checked({**full, "lock_file": name})


PINS = {
    "url": ["file:///etc/{path}", "/etc/{path}", "ftp://host/{path}", 3],
    "repository": ["../..", "owner/name/../../x", "a b/c", r"a/\input{x}"],
    "commit": ["main", "../" * 13 + "a"],
    "key": [r"a}\input{/etc/passwd}"],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in PINS.items() for v in values])
def test_a_table_of_pins_names_commits_on_a_server(tmp_path, key, value):
    run = synthetic_runs.write_run(tmp_path / "run")
    path = synthetic_runs.write_pins(tmp_path / "pins.yaml", run, "https://host/{path}")
    table = yaml.safe_load(path.read_text())
    assert read_pins(path) == table
    path.write_text(yaml.safe_dump({**table, key: value}))
    with pytest.raises(InputError, match=f"pins.yaml: {key} is "):
        read_pins(path)


def test_an_address_is_filled_in_but_not_computed(full, tmp_path):
    run = synthetic_runs.write_run(tmp_path / "run")
    url = "https://host/{commit}/{path}/{path.__class__}{0}"
    pins = synthetic_runs.write_pins(tmp_path / "pins.yaml", run, url)
    full = copy.deepcopy(full)
    full["external_runs"] = {"a": {"path": "runs/a", "format": "table", "pins": str(pins)}}
    full["external_runs"]["a"]["interventions"] = {"none": {"harmful": "a.csv"}}
    recipes = expand_interventions(full["interventions"], 5)
    found = expand_external_runs(full["external_runs"], recipes, [], None)
    assert found["a"]["source"] == f"https://host/{'0' * 40}/runs/a/{{path.__class__}}{{0}}"
    table = yaml.safe_load(pins.read_text())
    pins.write_text(yaml.safe_dump({**table, "runs": {"../a": table["runs"]["runs/a"]}}))
    full["external_runs"]["a"]["path"] = "../a"
    with pytest.raises(InputError, match="external_runs.a.path: ../a"):
        expand_external_runs(full["external_runs"], recipes, [], None)


def test_every_claim_of_the_documentation_names_a_test():
    text = (ROOT / "docs" / "security.md").read_text()
    rows = [line.rsplit("|", 2)[1] for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 12
    tests = "".join(path.read_text() for path in sorted((ROOT / "tests").glob("test_*.py")))
    for name in re.findall("`([^`]+)`", " ".join(rows)):
        found = re.search(rf"def test_\w*{name}", tests)
        assert found or (ROOT / "tests" / name).is_file(), name
