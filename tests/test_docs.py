"""The documentation: every command, link, path, key, overlay and line of Python in it holds."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from command_line import ROOT, clone
from jsonschema import Draft202012Validator
from snakemake.cli import get_argument_parser
from snakemake.utils import update_config

from refusal.recipes import check_comparisons, expand_interventions
from refusal.reference import schema_keys

DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "ARTIFACT.md", *(ROOT / "docs").rglob("*.md")],
    key=lambda path: path.as_posix(),
)
SCHEMA = yaml.safe_load((ROOT / "config.schema.yaml").read_text())
# Commands of which only the options, files and targets are checked, by a part of their text.
CANNOT_RUN = {
    "container=refusal.sif": "needs the image; test_container.py runs it with stand-ins",
    "external_mirror=/data": "needs a copy of their repository; test_external_study.py has one",
    "scancel": "needs jobs in SLURM; test_slurm.py cancels some",
    "--report": "needs a finished run; test_report.py has one",
    "docker build": "needs a network",
    "apptainer build": "needs an image",
}
# What the test of a command looks at: programs that commands may name.
PROGRAMS = {".venv/bin/snakemake", "snakemake", ".venv/bin/python", "make"}
PROGRAMS |= {"scancel", "docker", "apptainer"}
CONDA = """\
#!/bin/sh
case "$*" in
    *--version*) echo "conda 25.1.0" ;;
    *info*) echo '{"conda_prefix": "/opt/conda", "platform": "linux-64"}' ;;
    *config*) echo '{"get": {"channel_priority": "strict"}}' ;;
esac
"""


def name(path: Path) -> str:
    """Return the path of a document in the repository."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """Return the fenced blocks of a document in one language, also those in lists."""
    fence = rf"^( *)```{language}\n(.*?)^\1```$"
    return [textwrap.dedent(text) for _, text in re.findall(fence, path.read_text(), re.M | re.S)]


def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", path.read_text(), flags=re.M | re.S)


def commands() -> dict[str, str]:
    """Return every command of the documents, without its comment, and where it stands."""
    found: dict[str, str] = {}
    for path in DOCUMENTS:
        for block in blocks(path, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    found.setdefault(shlex.join(words), name(path))
    return found


COMMANDS = commands()


def words_of(command: str) -> list[str]:
    """Return the words of a command, without settings of the environment before it."""
    words = shlex.split(command)
    while re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words


def why_not(command: str) -> str | None:
    """Return why a command cannot be run here."""
    return next((why for part, why in CANNOT_RUN.items() if part in command), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A fresh clone with the overlay of the tutorial, and a program that answers for conda."""
    folder = clone(tmp_path_factory.mktemp("docs"))
    (overlay,) = blocks(ROOT / "docs/tutorial.md", "yaml")
    (folder / "mine.yaml").write_text(overlay)
    (folder / "programs").mkdir()
    (folder / "programs/conda").write_text(CONDA)
    (folder / "programs/conda").chmod(0o755)
    return folder


# --- commands ---


def test_every_reason_not_to_run_a_command_is_needed():
    assert COMMANDS and {words_of(command)[0] for command in COMMANDS} <= PROGRAMS
    unused = [part for part in CANNOT_RUN if not any(part in command for command in COMMANDS)]
    assert unused == []


def of_program(program: str, can_run: bool) -> list[str]:
    """Return the commands of a program, wherever it lies, that can be run here, or cannot."""
    chosen = [command for command in COMMANDS if Path(words_of(command)[0]).name == program]
    return sorted(command for command in chosen if can_run != bool(why_not(command)))


def run(folder: Path, command: list[str]) -> None:
    """Run a command in a folder and ask for status 0."""
    path = f"{folder / 'programs'}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:]


def dry_runs() -> list[str]:
    """Return the arguments of all dry runs; commands that differ in cores alone are run once."""
    found = set()
    for command in of_program("snakemake", can_run=True):
        words = words_of(command)[1:]
        found.add(re.sub(r"-n |--cores \w+ ", "", f"{shlex.join(words)} ").strip())
    return sorted(found)


@pytest.mark.parametrize("arguments", dry_runs())
def test_a_snakemake_command_runs_dry(folder, arguments):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "4", *shlex.split(arguments)]
    run(folder, command)


@pytest.mark.parametrize("command", of_program("make", can_run=True))
def test_a_make_command_has_its_targets(folder, command):
    run(folder, [*words_of(command), "--dry-run"])


@pytest.mark.parametrize("command", of_program("python", can_run=True))
def test_a_script_takes_its_options(folder, command):
    """What scripts with options do is tested by their own tests; those without are run."""
    script, *arguments = words_of(command)[1:]
    assert Path(script).parent == Path("workflow/scripts")
    module = import_module(Path(script).stem)
    if hasattr(module, "arguments"):
        module.arguments().parse_args(arguments)
    else:
        run(folder, [sys.executable, script, *arguments])


@pytest.mark.parametrize("command", of_program("snakemake", can_run=False))
def test_a_snakemake_command_that_cannot_run_has_known_options_and_files(command):
    found = get_argument_parser().parse_args(words_of(command)[1:])
    for path in [*(found.profile or []), *(found.configfile or [])]:
        assert (ROOT / path).exists(), path
    keys = [setting.partition("=")[0] for setting in found.config or []]
    assert set(keys) <= set(SCHEMA["properties"])


# --- links, paths, keys ---


def slugs(path: Path) -> set[str]:
    """Return the anchors of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if not target.startswith(("https://", "http://")):
            file, _, anchor = target.partition("#")
            linked = path.parent / file if file else path
            assert linked.exists(), target
            assert not anchor or anchor in slugs(linked), target


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


FOLDERS = (
    *("workflow", "refusal", "studies", "docs", "rules", "paper", "tests", "envs"),
    *("artifact", "profiles", "benchmarks"),
)


# The page of the library quotes docstrings, in which names are examples too.
@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.stem != "library"], ids=name)
def test_named_files_exist(path, smoke_run):
    """In the repository, in the library, or among the results of a run."""
    where = (ROOT, ROOT / "tests", ROOT / "workflow/scripts", ROOT / "workflow/scripts/refusal")
    where += (smoke_run, smoke_run / "results/smoke")
    for text in re.findall(r"`([^`\n]+)`", prose(path)):
        text = text.replace("results/organisms", "results/smoke")
        plain = re.fullmatch(r"[\w./-]+", text)
        if plain and (text.split("/")[0] in FOLDERS or re.fullmatch(r"\w+\.(py|md)", text)):
            assert any((folder / text).exists() for folder in where), text


KEYS = {
    key
    for name, entry in SCHEMA["properties"].items()
    for key, *_ in schema_keys(SCHEMA, name, entry)
}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_named_keys_are_in_the_schema(path):
    for text in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", prose(path)):
        if text.split(".")[0] in SCHEMA["properties"] and not text.endswith(
            (".py", ".yaml", ".html")
        ):
            assert text in KEYS, text


# --- overlays and Python ---


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_overlays_are_valid(path):
    for block in blocks(path, "yaml"):
        config = yaml.safe_load((ROOT / "config.yaml").read_text())
        update_config(config, yaml.safe_load(block))
        for section in ("models", "interventions"):
            config[section] = {k: v for k, v in config[section].items() if v is not None}
        for error in Draft202012Validator(SCHEMA).iter_errors(config):
            pytest.fail(f"{error.json_path}: {error.message}")
        recipes = expand_interventions(config["interventions"], 5)
        check_comparisons(config["statistics"]["comparisons"], recipes)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if blocks(path, "python")], ids=name)
def test_python_runs(path, smoke_run, monkeypatch):
    """The blocks of a document one after the other, on the results of the smoke study."""
    monkeypatch.chdir(smoke_run)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names: dict = {}
    for block in blocks(path, "python"):
        exec(compile(block.replace("results/organisms", "results/smoke"), path, "exec"), names)


# --- the tables of a run ---


PLANTED = "planted/organisms.parquet"


def described_tables() -> dict[str, list[str]]:
    """Return the columns of every table that the page of the results describes."""
    text = (ROOT / "docs/reference/results.md").read_text()
    rows = re.findall(r"^\| `([^`]+\.parquet)` \| [^|]+ \| (.+) \|$", text, re.M)
    (summary,) = re.findall(r"columns:\n(`study`.*?)\n\n", text, re.S)
    rows += [("statistics/summary.parquet", summary)]
    return {table: re.findall(r"`([^`]+)`", columns) for table, columns in rows}


def test_tables_have_the_columns_that_the_page_says(smoke_run):
    results = smoke_run / "results/smoke"
    described = described_tables()
    summary = pd.read_parquet(results / "statistics/summary.parquet")
    placeholders = {"<model>": set(summary.model), "<intervention>": set(summary.intervention)}
    placeholders |= {"<method>": {"dim", "inlp_faithful", "inlp_corrected"}}
    placeholders |= {"<organism>": set(pd.read_parquet(results / PLANTED).organism)}
    found = set()
    for path in results.rglob("*.parquet"):
        if path.relative_to(results).parts[0] == "store":
            continue
        table = general(path.relative_to(results), placeholders)
        experiment = table.endswith("/summary.parquet") and table not in described
        table = "statistics/summary.parquet" if experiment else table
        found.add(table)
        assert pq.read_schema(path).names == described[table], path
    assert found == set(described)


def general(path: Path, placeholders: dict[str, set[str]]) -> str:
    """Return a path with the names of a study replaced by what they are."""
    parts = []
    for part in path.parts:
        stem = part.removesuffix(path.suffix)
        (sign,) = [s for s, names in placeholders.items() if stem in names] or [stem]
        parts.append(sign + part.removeprefix(stem))
    return "/".join(parts)
