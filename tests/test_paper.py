"""The paper says what was measured: for contrasting studies, reproducibly, or not at all."""

import json
from pathlib import Path

import pandas as pd
import pytest
import synthetic_results as synthetic
import yaml

from refusal.claims import evaluate_claims, load_claims
from refusal.configuration import check_config
from refusal.errors import InputError
from refusal.figures import FIGURES
from refusal.numbers import collect_numbers
from refusal.paper import Numbers, compile_pdf, intervention_labels, render
from refusal.tables import TABLES, judge_of

ROOT = Path(__file__).parents[1]
SCENARIOS = {
    "supported": synthetic.SUPPORTED,
    "contradicted": synthetic.CONTRADICTED,
    "not measured": synthetic.UNMEASURED,
}


def study(scenario: synthetic.Scenario, verdict: str = "supported") -> dict:
    """All frames that tables and numbers take; every claim with the same verdict."""
    names = ("summary", "comparisons", "agreement", "selection", "cosines", "angles", "cards")
    frames = {name: getattr(synthetic, name)(scenario) for name in names}
    claims = load_claims(ROOT / "paper" / "claims.yaml")
    frames["claims"] = evaluate_claims(claims, frames["summary"], frames["comparisons"])
    for claim in frames["claims"].values():
        claim["overall"]["verdict"] = verdict
    row = {"model": "m_1", "intervention": "none", "text": r"50% & \more", "completion": "{a}_b"}
    frames["examples"] = pd.DataFrame([row])
    return frames


def write(folder: Path, frames: dict) -> str:
    """Write everything that the paper includes; return its text."""
    for name in ("tables", "figures", "paper"):
        (folder / name).mkdir()
    for name, recipe in TABLES.items():
        source = recipe.function(*(frames[frame] for frame in recipe.frames))
        (folder / "tables" / f"{name}.tex").write_text(source)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    schema = yaml.safe_load((ROOT / "config.schema.yaml").read_text())
    reason = "Nothing was drawn in this test."
    absent = {"available": False, "rule": "figures", "reason": reason}
    context = {
        "config": check_config(config, schema),
        "cards": frames["cards"],
        "claims": frames["claims"],
        "labels": intervention_labels(frames["summary"]),
        "figures": {name: {"name": name, **absent} for name in FIGURES},
        "judge": judge_of(frames["summary"]),
        "organisms": True,
    }
    text, numbers = render(ROOT / "paper", collect_numbers(frames), context)
    (folder / "paper" / "main.tex").write_text(text)
    (folder / "paper" / "numbers.tex").write_text(numbers)
    bibliography = (ROOT / "paper" / "references.bib").read_text()
    (folder / "paper" / "references.bib").write_text(bibliography)
    return text


@pytest.fixture(scope="module", params=SCENARIOS)
def paper(request, tmp_path_factory):
    """(scenario, folder, text, claims) of one study."""
    folder = tmp_path_factory.mktemp("paper")
    frames = study(SCENARIOS[request.param], request.param)
    return request.param, folder, write(folder, frames), frames["claims"]


def test_it_compiles_to_the_same_bytes_twice(paper):
    _, folder, _, _ = paper
    source, target = folder / "paper" / "main.tex", folder / "paper" / "main.pdf"
    compile_pdf(source, target)
    first = target.read_bytes()
    compile_pdf(source, target)
    assert first.startswith(b"%PDF") and target.read_bytes() == first


def test_every_verdict_of_the_text_is_the_measured_one(paper):
    _, _, text, claims = paper
    words = {
        "supported": "is supported",
        "contradicted": "is contradicted",
        "inconclusive": "is left open",
        "not measured": "was not measured",
    }
    listed = text.partition("Claim by claim:")[2].partition(r"\paragraph")[0]
    for name, claim in claims.items():
        assert f"{name} {words[claim['overall']['verdict']]}" in listed


def test_the_abstract_counts_the_verdicts(paper):
    scenario, _, text, claims = paper
    words = {
        "supported": "are supported",
        "contradicted": "are contradicted",
        "not measured": "could not be checked",
    }
    abstract = text.partition(r"\begin{abstract}")[2].partition(r"\end{abstract}")[0]
    assert rf"\result{{count/claims {scenario}}} {words[scenario]}" in abstract
    assert not [w for verdict, w in words.items() if verdict != scenario and w in abstract]
    assert len(claims) == 8


def test_missing_figures_are_said_to_be_missing(paper):
    assert "Nothing was drawn in this test." in paper[2]


def test_an_unknown_number_is_an_error():
    numbers = Numbers({"a/b": r"\num{1}"})
    assert numbers.quote("a/b") == r"\result{a/b}"
    assert numbers.definitions() == "\\defineresult{a/b}{\\num{1}}\n"
    with pytest.raises(InputError, match="quotes the number 'a/c'"):
        numbers.quote("a/c")


def test_latex_stops_at_a_number_without_definition(paper):
    _, folder, _, _ = paper
    source = folder / "paper" / "main.tex"
    broken = source.with_name("broken.tex")
    broken.write_text(source.read_text().replace(r"\maketitle", r"\maketitle\result{nowhere}"))
    with pytest.raises(InputError, match="the number nowhere is not defined"):
        compile_pdf(broken, broken.with_suffix(".pdf"))


def test_numbers_are_plain_json(tmp_path):
    numbers = collect_numbers(study(synthetic.SUPPORTED))
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["count/models"] == rf"\num{{{len(synthetic.MODELS)}}}"
