"""Snakemake's report: captions, categories and labels of all figures and tables, and no network."""

import json
import re
import zipfile
from pathlib import Path

import pytest
import yaml
from command_line import ROOT, SMOKE_STUDY, snakemake
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

from refusal.figures import FIGURES
from refusal.tables import TABLES

CAPTIONS = sorted((ROOT / "report").rglob("*.rst"))
AS_SNAKEMAKE = {"trim_blocks": True, "lstrip_blocks": True}


@pytest.mark.parametrize("folder, names", [("figures", FIGURES), ("tables", TABLES)])
def test_every_figure_and_table_has_a_caption_and_no_caption_is_left_over(folder, names):
    assert {path.stem for path in (ROOT / "report" / folder).iterdir()} == set(names)


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
def test_a_caption_is_sound(path):
    """Docutils has no complaint, and what the text takes from the configuration is there."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    template = Environment(**AS_SNAKEMAKE, undefined=StrictUndefined).from_string(path.read_text())
    text = template.render(snakemake={"config": config})
    strict = {"halt_level": 2, "report_level": 5}
    assert publish_parts(text, writer="html", settings_overrides=strict)["body"].strip()


def test_a_free_text_of_the_configuration_is_not_in_the_methods():
    """Docutils would take it for markup, which can hold HTML."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["prompts"]["source"] = "x\n\n.. raw:: html\n\n   <script>alert(1)</script>\n"
    template = Environment(**AS_SNAKEMAKE).from_string((ROOT / "report/workflow.rst").read_text())
    text = template.render(snakemake={"config": config})
    assert "From a file of the user" in text and "alert" not in text


@pytest.fixture(scope="module")
def report(smoke_run, tmp_path_factory) -> Path:
    """The report on the smoke study, unpacked."""
    path = tmp_path_factory.mktemp("report") / "report.zip"
    done = snakemake(smoke_run, "--nolock", "--report", str(path), study=SMOKE_STUDY)
    assert done.returncode == 0, done.stdout[-4000:]
    with zipfile.ZipFile(path) as packed:
        packed.extractall(path.parent)
    return path.parent / "report"


def kept(report: Path, name: str) -> dict:
    """What the report keeps in the script of that id."""
    page = (report / "report.html").read_text(encoding="utf-8")
    return json.loads(re.search(rf'<script id="{name}">\s*var \w+ = (.*);\n', page).group(1))


def test_the_report_has_every_figure_and_table_labelled(report):
    results, categories = kept(report, "results"), kept(report, "categories")
    assert set(categories) == {"Configuration", "Explorer", "Figures", "Paper", "Tables"}
    for category, names in (("Figures", FIGURES), ("Tables", TABLES)):
        listed = [path for paths in categories[category].values() for path in paths]
        assert {Path(path).stem for path in listed} == set(names)
        for path in listed:
            assert results[path]["labels"] and results[path]["caption"].strip(), path
            assert (report / results[path]["data_uri"]).is_file(), path
    assert "results/smoke/config.yaml" in results and "results/smoke/explorer.html" in results
    methods = kept(report, "workflow-desc")
    assert "The study" in methods and "arXiv 2406.11717" in methods


def test_the_report_loads_nothing(report):
    page = (report / "report.html").read_text(encoding="utf-8")
    markup = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?https?:""", markup)
    assert not re.findall(r"<script[^>]+src", page)
