"""The archive of a study: what must stay out is not in it, and it works where it is unpacked."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from command_line import ROOT, clone
from command_line import snakemake as run_snakemake
from synthetic_run import CLAIM, SECRET_COMPLETION, SECRET_PROMPT
from test_verification import made

import write_archive as script
from refusal.archive import shared_results
from refusal.errors import InputError
from refusal.manifest import MANIFEST, METADATA, code_files, read_manifest
from refusal.submission import collect_source, write_bundle

PAPER = r"""\documentclass{article}
\usepackage{graphicx,natbib}
\graphicspath{{figures/}}
\input{numbers.tex}
\begin{document}
\citet{arditi2024} \input{tables/main.tex} \includegraphics[width=1cm]{refusal.png}
\bibliographystyle{plainnat}\bibliography{references}
\end{document}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A repository with the finished run of an invented study and its expected values."""
    folder = clone(tmp_path_factory.mktemp("repository"))
    (folder / "paper" / "claims.yaml").write_text(yaml.safe_dump({"A1": CLAIM}))
    run = made(folder / "results" / "synthetic")
    (run / "store").mkdir()
    (run / "store" / "kept.txt").write_text(SECRET_COMPLETION)
    (run / "explorer.html").write_text(SECRET_PROMPT)
    (run / "models").mkdir()
    (run / "models" / "model.safetensors").write_text("weights")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    called(folder, sys.executable, "workflow/scripts/write_expected.py", "results/synthetic")
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        called(folder, *git, *arguments)
    return folder


@pytest.fixture(scope="module")
def archive(repository) -> Path:
    """The archive of that study, made by the script of the rule."""
    target = repository / "synthetic.zip"
    job = SimpleNamespace(
        input=SimpleNamespace(config="results/synthetic/config.yaml", bundle=[]),
        output=[str(target)],
    )
    before = Path.cwd()
    os.chdir(repository)
    try:
        script.main(job)
    finally:
        os.chdir(before)
    return target


def called(folder: Path, *command: str) -> subprocess.CompletedProcess:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run make with this environment in place of one of its own."""
    (folder / ".venv").mkdir(exist_ok=True)
    (folder / ".venv" / "installed").touch()
    command = ["make", *arguments, f"BIN={Path(sys.executable).parent}"]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True)


# --- what is in it ---


def test_no_prompt_completion_or_weight_is_packed(archive):
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        contents = {name: packed.read(name) for name in names if name.startswith("results/")}
    assert {"results/synthetic/claims.json", "results/synthetic/statistics/summary.parquet"} <= (
        contents.keys()
    )
    assert not [name for name in names if name.endswith(".safetensors")]
    for secret in (SECRET_COMPLETION, SECRET_PROMPT):
        # Parquet keeps short texts as they are, so they would be seen.
        assert not [name for name, data in contents.items() if secret.encode() in data]
    kept = {name.split("/")[2] for name in contents}
    assert kept.isdisjoint({"generations", "prompts", "store"})


def test_the_secret_would_be_seen_in_a_table(repository):
    table = repository / "results/synthetic/generations/neox-0/none.parquet"
    assert SECRET_COMPLETION.encode() in table.read_bytes()


def test_a_table_with_completions_is_left_out_wherever_it_lies(repository, tmp_path):
    folder = tmp_path / "study"
    (folder / "elsewhere").mkdir(parents=True)
    for name, of in (("words", "generations/neox-0/none"), ("numbers", "statistics/summary")):
        shutil.copyfile(
            repository / f"results/synthetic/{of}.parquet", folder / f"elsewhere/{name}.parquet"
        )
    assert shared_results(folder) == ["elsewhere/numbers.parquet"]


def test_a_table_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "broken.parquet").write_text("no table")
    with pytest.raises(InputError, match="broken.parquet.*again"):
        shared_results(tmp_path)


def test_the_code_is_what_git_tracks(repository, archive):
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
        executable = packed.getinfo(".ci/run").external_attr >> 16 & 0o100
    assert set(code_files(repository)) <= names
    assert {"requirements.txt", "Snakefile", "CITATION.cff", "config.yaml"} <= names
    assert executable


def test_the_same_files_give_the_same_bytes(repository, archive, tmp_path):
    first = archive.read_bytes()
    job = SimpleNamespace(
        input=SimpleNamespace(config="results/synthetic/config.yaml", bundle=[]),
        output=[str(tmp_path / "again.zip")],
    )
    before = Path.cwd()
    os.chdir(repository)
    try:
        script.main(job)
    finally:
        os.chdir(before)
    assert (tmp_path / "again.zip").read_bytes() == first


# --- unpacked elsewhere ---


def test_the_manifest_is_that_of_sha256sum(archive, tmp_path):
    folder = unpacked(archive, tmp_path)
    called(folder, "sha256sum", "--check", "--quiet", MANIFEST)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {*read_manifest(folder), MANIFEST}


def test_make_verify_passes_where_it_is_unpacked_and_fails_on_a_changed_file(archive, tmp_path):
    folder = unpacked(archive, tmp_path)
    done = make(folder, "verify", "STUDY=synthetic")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  pass  A1: " in done.stdout and f"  pass  {MANIFEST}: " in done.stdout
    claims = folder / "results/synthetic/claims.json"
    claims.write_text(claims.read_text().replace("supported", "contradicted"))
    done = make(folder, "verify", "STUDY=synthetic")
    assert done.returncode != 0
    assert "  FAIL  A1: " in done.stdout and f"  FAIL  {MANIFEST}: " in done.stdout


def test_an_unpacked_archive_can_be_packed_again(repository, archive, tmp_path):
    assert code_files(unpacked(archive, tmp_path)) == code_files(repository)


def test_a_folder_that_is_neither_clone_nor_archive_is_told(tmp_path):
    with pytest.raises(InputError, match="neither a clone"):
        code_files(tmp_path)


@pytest.mark.parametrize("line", ["no manifest", f"{'0' * 64}  ../up", f"{'0' * 64}  /etc/passwd"])
def test_a_manifest_that_is_none_is_told(tmp_path, line):
    (tmp_path / MANIFEST).write_text(line + "\n")
    with pytest.raises(InputError, match=MANIFEST):
        read_manifest(tmp_path)


# --- provenance ---


def test_the_crate_names_the_run_and_every_file(archive, tmp_path):
    folder = unpacked(archive, tmp_path)
    graph = json.loads((folder / METADATA).read_text())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    root = entities["./"]
    assert root["mainEntity"] == {"@id": "Snakefile"}
    assert "ComputationalWorkflow" in entities["Snakefile"]["@type"]
    (action,) = (entity for entity in graph if entity["@type"] == "CreateAction")
    results = {part["@id"] for part in action["result"]}
    names = set(read_manifest(folder)) - {METADATA}
    assert results == {name for name in names if name.startswith("results/")}
    assert names <= {part["@id"] for part in root["hasPart"]}
    assert action["instrument"] == {"@id": "Snakefile"}


def test_runcrate_reads_the_run_back(archive):
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    pins = str(ROOT / "tests" / "runcrate.txt")
    command = [uv, "run", "--no-project", "--with-requirements", pins, "runcrate"]
    found = {"UV_FIND_LINKS": os.environ.get("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", ""))}
    environment = {**os.environ, **{key: value for key, value in found.items() if value}}
    options = {"text": True, "capture_output": True, "env": environment}
    try:
        if subprocess.run([*command, "version"], **options).returncode != 0:
            pytest.skip("runcrate cannot be installed here")
    except FileNotFoundError:
        pytest.skip("uv is not installed")
    done = subprocess.run([*command, "report", str(archive)], **options)
    assert done.returncode == 0, done.stderr
    assert "action: #run-synthetic" in done.stdout and "instrument: Snakefile" in done.stdout
    assert "results/synthetic/claims.json" in done.stdout


# --- the paper's source ---


def written_paper(results: Path) -> Path:
    for name in ("paper", "tables", "figures"):
        (results / name).mkdir(parents=True)
    (results / "paper/main.tex").write_text(PAPER)
    (results / "paper/numbers.tex").write_text("% none\n")
    shutil.copyfile(ROOT / "paper/references.bib", results / "paper/references.bib")
    (results / "tables/main.tex").write_text("a table\n")
    shutil.copyfile(ROOT / "docs/refusal.png", results / "figures/refusal.png")
    return results


def test_the_source_reads_nothing_outside_its_folder(tmp_path):
    (tmp_path / "source").mkdir()
    names = collect_source(written_paper(tmp_path / "run"), tmp_path / "source")
    expected = ["figures/refusal.png", "main.tex", "numbers.tex", "references.bib"]
    assert names == [*expected, "tables/main.tex"]
    assert ".." not in (tmp_path / "source/main.tex").read_text()


def test_a_missing_figure_is_told(tmp_path):
    (tmp_path / "source").mkdir()
    results = written_paper(tmp_path / "run")
    (results / "figures/refusal.png").unlink()
    with pytest.raises(InputError, match="refusal.png.*again"):
        collect_source(results, tmp_path / "source")


@pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")
def test_the_bundle_compiles_on_its_own_without_bibtex(tmp_path):
    results = written_paper(tmp_path / "run")
    (tmp_path / "work").mkdir()
    write_bundle(results, tmp_path / "work", tmp_path / "arxiv.tar.gz")
    shutil.rmtree(results)
    with tarfile.open(tmp_path / "arxiv.tar.gz") as bundle:
        bundle.extractall(tmp_path / "elsewhere", filter="data")
    command = ("pdflatex", "-halt-on-error", "-interaction=nonstopmode", "main.tex")
    called(tmp_path / "elsewhere", *command)
    said = called(tmp_path / "elsewhere", *command).stdout
    assert (tmp_path / "elsewhere/main.pdf").stat().st_size > 10_000
    assert "undefined" not in said


# --- the workflow ---


def test_the_archive_is_made_when_asked_for(tmp_path):
    folder = clone(tmp_path)
    called(folder, "git", "init", "--quiet")
    called(folder, "git", "add", ".")
    done = run_snakemake(folder, "-n", "archive", study="studies/smoke.yaml")
    assert done.returncode == 0, done.stdout
    assert "archive" in done.stdout and "submission" in done.stdout
    plain = run_snakemake(folder, "-n", study="studies/smoke.yaml")
    assert plain.returncode == 0 and "submission" not in plain.stdout
