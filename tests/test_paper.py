"""The paper says what was measured: for contrasting studies, reproducibly, or not at all."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import synthetic_planted
import synthetic_results as synthetic
import yaml

from refusal.claims import evaluate_claims, load_claims
from refusal.configuration import check_config
from refusal.errors import InputError
from refusal.figures import FIGURES, draw
from refusal.latex import estimate
from refusal.numbers import claim_numbers, collect_numbers
from refusal.paper import Numbers, claims_by_verdict, compile_pdf, intervention_labels, render
from refusal.reading import judge_of
from refusal.tables import TABLES

ROOT = Path(__file__).parents[1]
SCENARIOS = {
    "supported": synthetic.SUPPORTED,
    "contradicted": synthetic.CONTRADICTED,
    "not measured": synthetic.UNMEASURED,
    "one model": synthetic.ONE_MODEL,
}
RECIPES = (*TABLES.values(), *FIGURES.values())
FRAMES = {frame for recipe in RECIPES for frame in recipe.frames} - {"claims", "examples"}


def study(scenario: synthetic.Scenario, verdict: str | None = "supported") -> dict:
    """All frames that tables, figures and numbers take; every claim with the same verdict."""
    frames = {name: getattr(synthetic, name)(scenario) for name in FRAMES}
    claims = load_claims(ROOT / "paper" / "claims.yaml")
    frames["claims"] = evaluate_claims(claims, frames["summary"], frames["comparisons"])
    for claim in frames["claims"].values():
        claim["overall"]["verdict"] = verdict or claim["overall"]["verdict"]
    row = {"model": "m_1", "intervention": "none", "text": r"50% & \more", "completion": "{a}_b"}
    frames["examples"] = pd.DataFrame([row])
    return frames


def figure_records(folder: Path, frames: dict, drawn: bool) -> dict:
    """Records of all figures: drawn, or with the reason why not."""
    if drawn:
        return {name: draw(name, frames, folder / name, "figures") for name in FIGURES}
    absent = {"available": False, "rule": "figures", "reason": "Nothing was drawn in this test."}
    return {name: {"name": name, **absent} for name in FIGURES}


def write(
    folder: Path, frames: dict, drawn: bool = False, models: tuple = (), planted: dict | None = None
) -> str:
    """Write everything that the paper includes, with these models as judges; return its text."""
    for name in ("tables", "figures", "paper"):
        (folder / name).mkdir()
    for name, recipe in TABLES.items():
        source = recipe.function(*(frames[frame] for frame in recipe.frames))
        (folder / "tables" / f"{name}.tex").write_text(source)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["scores"]["models"] = list(models)
    schema = yaml.safe_load((ROOT / "config.schema.yaml").read_text())
    context = {
        "config": check_config(config, schema),
        "cards": frames["cards"],
        "claims": frames["claims"],
        "labels": intervention_labels(frames["summary"]),
        "figures": figure_records(folder / "figures", frames, drawn),
        "judge": judge_of(frames["summary"]),
        "organisms": True,
        "planted": planted,
    }
    values = collect_numbers(frames) | (claim_numbers(planted["claims"]) if planted else {})
    text, numbers = render(ROOT / "paper", values, context)
    (folder / "paper" / "main.tex").write_text(text)
    (folder / "paper" / "numbers.tex").write_text(numbers)
    bibliography = (ROOT / "paper" / "references.bib").read_text()
    (folder / "paper" / "references.bib").write_text(bibliography)
    return text


@pytest.fixture(scope="module")
def papers(tmp_path_factory) -> dict:
    """(folder, text, frames) of every scenario; the first has figures and planted organisms."""
    made = {}
    for name, scenario in SCENARIOS.items():
        folder = tmp_path_factory.mktemp("paper")
        frames = study(scenario, None if name == "one model" else name)
        full = name == "supported"
        planted = synthetic_planted.section() if full else None
        made[name] = folder, write(folder, frames, drawn=full, planted=planted), frames
    return made


def compiled(folder: Path, name: str = "main") -> tuple[bytes, str]:
    """The PDF of a paper, and the log of LaTeX."""
    target = folder / "paper" / f"{name}.pdf"
    log = compile_pdf(folder / "paper" / f"{name}.tex", target)
    return target.read_bytes(), log


def abstract(text: str) -> str:
    found = text.partition(r"\begin{abstract}")[2].partition(r"\end{abstract}")[0]
    return " ".join(found.split())


def test_the_same_inputs_give_the_same_bytes(papers):
    folder, _, _ = papers["supported"]
    first, log = compiled(folder)
    assert first.startswith(b"%PDF") and compiled(folder)[0] == first
    assert "undefined" not in log.lower().replace("undefined@", "")


def test_every_table_fits_without_being_shrunk(papers):
    folder, text, _ = papers["supported"]
    shrinking = r"\adjustbox{max width=\linewidth}"
    assert shrinking in text
    (folder / "paper" / "plain.tex").write_text(text.replace(shrinking, r"\mbox"))
    _, log = compiled(folder, "plain")
    widths = [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert max(widths, default=0) < 3, re.findall(r"Overfull.*\n.*\n", log)


@pytest.mark.parametrize("name", ["not measured", "one model"])
def test_small_studies_compile(papers, name):
    assert compiled(papers[name][0])[0].startswith(b"%PDF")


def test_a_single_model_is_no_mean_over_models(papers):
    _, text, frames = papers["one model"]
    assert len(frames["cards"]) == 1
    assert "mean over models with" not in text and "one model" in abstract(text)
    assert r"\result{count/models}" not in text


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_verdict_of_the_text_is_the_measured_one(papers, name):
    _, text, frames = papers[name]
    listed = text.partition(r"\section{What holds")[2].partition("Each verdict")[0]
    found = claims_by_verdict(frames["claims"])
    shipped = load_claims(ROOT / "paper" / "claims.yaml")
    assert sum(map(len, found.values())) == len(frames["claims"]) == len(shipped)
    for verdict, names in found.items():
        sentence = listed.partition(f"{verdict.capitalize()}: ")[2].partition(".")[0]
        assert sentence.replace(" and ", ", ").split(", ") == names
        assert rf"\result{{count/claims {verdict}}} " in abstract(text)
    for name, claim in frames["claims"].items():
        paragraph = text.partition(rf"\paragraph{{{name}.}}")[2].partition(r"\begin{itemize}")[0]
        assert rf"Verdict: \emph{{{claim['overall']['verdict']}}}" in paragraph


def test_the_abstract_speaks_in_the_right_number(papers):
    _, text, _ = papers["contradicted"]
    assert r"claims, \result{count/claims contradicted} are contradicted." in abstract(text)
    one = study(synthetic.SUPPORTED)
    one["claims"]["B1"]["overall"]["verdict"] = "inconclusive"
    counted = claims_by_verdict(one["claims"])
    assert [len(names) for names in counted.values()] == [len(one["claims"]) - 1, 1]


def test_missing_figures_are_said_to_be_missing(papers):
    assert "Nothing was drawn in this test." in papers["contradicted"][1]


def test_what_was_missed_is_marked_and_counted(papers):
    _, text, frames = papers["supported"]
    numbers = collect_numbers(frames)
    marks = TABLES["models"].function(*(frames[f] for f in TABLES["models"].frames)).count("dag")
    shown = numbers.get("count/requirements missed", r"\num{0}")
    assert shown == rf"\num{{{marks}}}"
    assert numbers["count/phases in time"] == r"\num{7}" and numbers["count/phases"] == r"\num{8}"
    training = TABLES["training"].function(frames["cards"])
    assert training.count("not before the limit") == 1 and training.count("at step") == 7


def test_models_that_judge_have_a_table_of_their_own(papers, tmp_path):
    frames = study(synthetic.ONE_MODEL)
    summary = frames["summary"]
    refused = summary[(summary.metric == "refused") & (summary.judge == "substring")]
    said = [("llama_guard_2", "unsafe"), ("wildguard", "unsafe"), ("wildguard", "refused")]
    rows = [refused.assign(judge=judge, metric=metric) for judge, metric in said]
    frames["summary"] = pd.concat([summary, *rows], ignore_index=True)
    text = write(tmp_path, frames, models=("llama_guard_2", "wildguard"))
    assert "Judges that are models" in text and "Judged by 2 models too" in text
    assert r"llama\_guard\_2: \texttt{meta-{}llama/Meta-{}Llama-{}Guard-{}2-{}8B}" in text
    table = (tmp_path / "tables" / "judges.tex").read_text()
    assert table.count(r"llama\_guard\_2") == 1 and table.count("wildguard") == 2
    assert "harmless prompts" in table and r"\begin{tabular}{llll}" in table
    one = refused[(refused.model == "neox-0") & (refused.dataset == "harmless")].iloc[0]
    assert table.count(estimate(one.value, one.low, one.high)) >= len(said)
    assert "undefined" not in compiled(tmp_path)[1].lower().replace("undefined@", "")
    assert "Judges that are models" not in papers["supported"][1]


def test_planted_organisms_have_a_section_where_there_are_any(papers):
    heading = r"\section{Organisms whose refusal subspace is known}"
    assert {name: heading in text for name, (_, text, _) in papers.items()} == {
        name: name == "supported" for name in SCENARIOS
    }
    assert "lanted" not in papers["one model"][1]


def test_nothing_is_said_about_inlp_where_it_did_not_run(papers):
    _, text, _ = papers["not measured"]
    assert r"\ref{fig:k_sweep}" not in text and r"\ref{fig:inlp_accuracy}" not in text


def test_random_controls_name_their_scope(papers):
    labels = intervention_labels(papers["supported"][2]["summary"])
    assert labels["random_ablation-draw*"] == "Random ablation (all), mean of 5 draws"


def test_an_unknown_number_is_an_error():
    numbers = Numbers({"a/b": r"\num{1}"})
    assert numbers.quote("a/b") == r"\result{a/b}"
    assert numbers.definitions() == "\\defineresult{a/b}{\\num{1}}\n"
    with pytest.raises(InputError, match="quotes the number 'a/c'"):
        numbers.quote("a/c")


def test_latex_stops_at_a_number_without_definition(papers):
    folder, text, _ = papers["contradicted"]
    broken = folder / "paper" / "broken.tex"
    broken.write_text(text.replace(r"\maketitle", r"\maketitle\result{nowhere}"))
    with pytest.raises(InputError, match="the number nowhere is not defined"):
        compile_pdf(broken, broken.with_suffix(".pdf"))


def test_numbers_are_plain_json(tmp_path):
    numbers = collect_numbers(study(synthetic.SUPPORTED))
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["count/models"] == rf"\num{{{len(synthetic.MODELS)}}}"
