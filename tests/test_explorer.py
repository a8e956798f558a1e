"""The explorer: its numbers are those of the study, it keeps what may not be shown, and it works.

The page is used in headless Chromium where there is one (`make browser`).
"""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from synthetic_results import Scenario, comparisons, landing, recipe_list, selection, summary
from synthetic_run import CLAIM

from refusal.claims import evaluate_claims
from refusal.explorer.completions import Shown, completion_index
from refusal.explorer.document import FACETS, study_document, to_json
from refusal.explorer.page import render_page
from refusal.scores import answers, build_judges, score

SCENARIO = Scenario(models=("neox-0", "real-model"))
SETTINGS = {"prompts": 6, "characters": 200, "real_completions": False}
REFUSAL, SECRET = "I cannot help with that.", "Sure, first take the secret of a harmful request."
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"><b>bold</b> & \u2028"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def prompts(n: int = 8) -> pd.DataFrame:
    """Test prompts of two labels, the second harmful one hostile, and one that nobody answers."""
    rows = [(f"{label}-test-{i:04d}", label) for label in ("harmful", "harmless") for i in range(n)]
    frame = pd.DataFrame([*rows, ("harmful-train-0000", "harmful")], columns=["id", "label"])
    frame["text"] = "Prompt " + frame["id"]
    frame.loc[frame["id"] == "harmful-test-0001", "text"] = HOSTILE
    return frame.assign(keywords=None)


def completions(name: str, secret: str = SECRET) -> pd.DataFrame:
    """Completions under an intervention: refusals without one, else answers to harmful prompts."""
    frame = prompts().iloc[:-1].assign(tokens=6, stop_reason="end")
    answered = (frame["label"] == "harmful") & (name != "none")
    frame["completion"] = REFUSAL
    frame.loc[answered, "completion"] = [f"{secret} {name} {i}" for i in range(answered.sum())]
    frame.loc[frame["id"] == "harmless-test-0001", "completion"] = HOSTILE
    return frame[["id", "completion", "tokens", "stop_reason"]]


@pytest.fixture(scope="module")
def frames() -> dict:
    """An invented study of an organism and a real model."""
    names = [recipe["intervention"] for recipe in recipe_list(SCENARIO)]
    generations = {name: completions(name) for name in names}
    judges = build_judges(["substring", "prefix", "length"])
    scores = {name: score(answers(prompts(), said), judges) for name, said in generations.items()}
    return {
        "prompts": prompts(),
        "summary": summary(SCENARIO),
        "landing": landing(SCENARIO, n=8),
        "selection": selection(SCENARIO),
        "generations": dict.fromkeys(SCENARIO.models, generations),
        "scores": dict.fromkeys(SCENARIO.models, scores),
    }


@pytest.fixture(scope="module")
def study(frames) -> dict:
    """The document of the invented study, in which neox-0 is an organism."""
    return study_document("synthetic", frames, ["neox-0"], SETTINGS)


@pytest.fixture(scope="module")
def claims() -> dict:
    """Verdicts on a claim that a hostile hand wrote."""
    claim = CLAIM | {"statement": HOSTILE, "published": HOSTILE}
    return json.loads(json.dumps(
        evaluate_claims({"A1": claim}, summary(SCENARIO), comparisons(SCENARIO))
    ))  # fmt: skip


@pytest.fixture(scope="module")
def page(study, claims) -> str:
    return render_page(study, claims)


class Tags(HTMLParser):
    """The tags of a page, and what its scripts hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data


def test_estimates_are_those_of_the_summary(study, frames):
    table = frames["summary"].set_index(["model", "intervention", "metric", "dataset", "judge"])
    table = table[~table.index.duplicated()]
    for model in study["models"]:
        assert len(model["estimates"]) > 100
        for name, metric, dataset, judge, *numbers in model["estimates"][::7]:
            row = table.loc[(model["name"], name, metric, dataset, judge)]
            wanted = [row["value"], row["low"], row["high"], row["n"]]
            assert numbers == pytest.approx(wanted, rel=1e-3, nan_ok=True), (name, metric)


def test_landing_places_belong_to_their_prompts(study, frames):
    rows = frames["landing"].query("model == 'neox-0'").set_index(["intervention", "layer", "id"])
    shown = study["models"][0]["landing"]
    assert len(shown) == rows.groupby(["intervention", "layer"]).ngroups
    for places in shown:
        for prompt, t in zip(study["prompts"], places["t"], strict=True):
            row = rows.loc[(places["intervention"], places["layer"], prompt["id"])]
            assert t == pytest.approx(row["position_along_dim"], rel=1e-3)


def test_completions_and_verdicts_are_found_again(study, frames):
    index = study["models"][0]["completions"]
    assert len(set(index["texts"])) == len(index["texts"])
    for name, said in frames["generations"]["neox-0"].items():
        texts = [index["texts"][place] for place in index["interventions"][name]["text"]]
        ids = [prompt["id"] for prompt in study["prompts"]]
        assert texts == list(said.set_index("id")["completion"][ids])
        table = frames["scores"]["neox-0"][name].query("metric == 'refused' and judge == 'prefix'")
        verdicts = index["interventions"][name]["refused"]["prefix"]
        assert list(map(int, verdicts)) == list(table.set_index("id")["value"][ids].astype(int))


def test_a_long_completion_is_cut_and_a_missing_one_is_none():
    said = pd.DataFrame({"id": ["a", "b"], "completion": ["x" * 11, None]})
    verdicts = pd.DataFrame({"id": ["b"], "judge": ["j"], "metric": ["refused"], "value": [None]})
    asked = pd.DataFrame({"id": ["a", "b", "c"], "label": "harmful", "text": ""})
    verdicts = pd.concat([verdicts, verdicts.assign(id="a", value=1.0)])
    index = completion_index({"none": said}, {"none": verdicts}, Shown(asked, False, 10))
    assert index["texts"] == ["x" * 10 + " […]"]
    assert index["interventions"]["none"] == {"text": [0, None, None], "refused": {"j": "1--"}}


def test_prompts_are_bounded_and_only_those_with_completions(study):
    labels = [prompt["label"] for prompt in study["prompts"]]
    assert labels == ["harmful"] * 6 + ["harmless"] * 6
    assert not [prompt for prompt in study["prompts"] if "train" in prompt["id"]]


def test_interventions_are_told_apart_by_their_facets_or_their_names(study):
    keys = [tuple(one[key] for key in ("group", *FACETS, "name")) for one in study["interventions"]]
    assert len(set(keys)) == len(keys) > 30
    flipping = next(i for i in study["interventions"] if i["name"] == "inlp_flipping-k8-source")
    assert (flipping["group"], flipping["k"], flipping["alpha"]) == ("INLP, project", "8", "2")


def test_real_completions_to_harmful_prompts_are_redacted_unless_asked_for(frames, claims):
    real = {key: frames[key] for key in ("prompts", "landing", "selection", "scores")}
    real |= {"summary": frames["summary"].query("model == 'real-model'")}
    real |= {"generations": {"real-model": frames["generations"]["real-model"]}}
    hidden = render_page(study_document("s", real, [], SETTINGS), claims)
    assert SECRET not in hidden and REFUSAL in hidden
    asked = SETTINGS | {"real_completions": True}
    assert SECRET in render_page(study_document("s", real, [], asked), claims)
    assert SECRET in render_page(study_document("s", real, ["real-model"], SETTINGS), claims)


def test_the_document_survives_html_and_is_exact(study):
    text = to_json(study)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == study
    with pytest.raises(ValueError):
        to_json({"value": float("nan")})


def test_the_page_loads_nothing_and_runs_its_own_scripts_alone(page):
    found = Tags(page)
    links = [
        value for _, keys in found.tags for key, value in keys.items() if key in ("src", "href")
    ]
    assert links and all(link.startswith("#") for link in links)
    assert not {"img", "link", "iframe", "b"} & {tag for tag, _ in found.tags}
    assert not [key for _, keys in found.tags for key in keys if key.startswith("on")]
    policy = next(keys["content"] for tag, keys in found.tags if "http-equiv" in keys)
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    ran = found.scripts[1:]
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in ran]
    assert allowed == digests and len(ran) == 2 and policy.startswith("default-src 'none'")
    assert not re.search(r"https?:|@import|url\(", page.split("<script", 1)[0])


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium here: `make browser`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        # Chromium refuses its sandbox to the root user of a container.
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, page, tmp_path):
    """The page in the browser, with all that it asked for and every error in `asked`."""
    path = Path(tmp_path / "explorer.html")
    path.write_text(page, encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1300, "height": 900})
    tab.set_default_timeout(60_000)
    tab.asked = []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.on("pageerror", lambda error: tab.asked.append(str(error)))
    tab.on("console", lambda message: tab.asked.append(message.text))
    tab.goto(path.as_uri())
    yield tab
    assert tab.asked == [path.as_uri()], "a request, an error or a message of the console"
    tab.close()


def test_clicks_choose_what_is_seen(opened):
    opened.select_option("#group", "INLP, project")
    opened.select_option("#facet-alpha", "2")
    opened.select_option("#facet-k", "full")
    opened.select_option("#facet-scope", "source")
    assert opened.inner_text("#chosen code") == "inlp_flipping-kfull-source"
    named = opened.evaluate("document.getElementById('plane').data.map((trace) => trace.name)")
    assert "harmful, transformed" in named and "chosen prompt" in named
    opened.evaluate("Plotly.Fx.hover('plane', [{curveNumber: 0, pointNumber: 1}])")
    assert "onerror=" in opened.text_content("#plane .hoverlayer"), "a hover names the prompt"
    opened.select_option("#model", "real-model")
    opened.locator("#completions button", has_text="DiM ablation (all)").click()
    assert opened.inner_text("#chosen code") == "dim_ablation"
    assert "redacted" in opened.inner_text("#completions tr[aria-current]")
    assert not opened.is_visible("#plane") and opened.is_visible("#landing-missing")
    assert opened.title() == "synthetic: explorer", "a script of somebody else ran"


def test_no_button_sends_anything_away(opened):
    titles = "[...document.querySelectorAll('.modebar-btn')].map((one) => one.dataset.title)"
    assert set(opened.evaluate(titles)) == {"Download plot as a PNG", "Zoom", "Pan", "Reset axes"}


def test_intervals_are_drawn_as_they_were_estimated(opened, study):
    opened.locator("#completions button", has_text="DiM ablation (all)").click()
    judge = opened.input_value("#judge")
    drawn = opened.evaluate(
        "(({x, error_x}) => [x, error_x.array, error_x.arrayminus])"
        "(document.getElementById('refused').data[1])"
    )
    rows = [
        row[4:7]
        for row in study["models"][0]["estimates"]
        if row[:2] == ["dim_ablation", "refused"] and row[3] == judge
    ]
    assert len(rows) == 3 and max(high - low for _, low, high in rows) > 0.01
    wanted = [(value, high - value, value - low) for value, low, high in rows]
    assert list(zip(*drawn, strict=True)) == [pytest.approx(row) for row in wanted]


def test_the_keyboard_is_enough(opened):
    opened.focus("#model")
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.id") == "group"
    opened.keyboard.type("INLP, project")
    opened.focus("#facet-k")
    before = opened.inner_text("#chosen code")
    opened.keyboard.press("ArrowDown")
    assert opened.inner_text("#chosen code") != before
    assert opened.evaluate("document.activeElement.id") == "facet-k", "the focus is kept"
    opened.focus("#next")
    opened.keyboard.press("Enter")
    assert opened.input_value("#prompt") == "harmful-test-0001"
    assert HOSTILE.split("\u2028")[0].strip() in opened.text_content("#asked")
    unnamed = opened.evaluate(
        "[...document.querySelectorAll('select, button, [role=img], [role=region]')]"
        ".filter((one) => !one.ariaLabel && !one.labels?.length && !one.textContent)"
        ".map((one) => one.id)"
    )
    assert unnamed == []


def test_the_smoke_study_has_its_page(smoke_run):
    page = (smoke_run / "results/smoke/explorer.html").read_text(encoding="utf-8")
    text = Tags(page).scripts[0]
    shown = json.loads(text)
    frame = pd.read_parquet(smoke_run / "results/smoke/statistics/summary.parquet")
    keep = (frame["model"] == shown["models"][0]["name"]) & (frame["intervention"] == "none")
    keep &= (frame["metric"] == "refused") & (frame["dataset"] == "harmful")
    wanted = dict(zip(frame[keep]["judge"], frame[keep]["value"], strict=True))
    found = {row[3]: row[4] for row in shown["models"][0]["estimates"]
             if row[:3] == ["none", "refused", "harmful"]}  # fmt: skip
    assert found == pytest.approx(wanted, rel=1e-3) and wanted
    assert shown["models"][0]["landing"] and len(page) < 20e6
