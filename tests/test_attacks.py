"""Attacks: wordings in the chat template, conditions, success by judge, tables, configuration."""

import copy
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import tiny_tokenizer

from refusal import grammar
from refusal.attacks import (
    DIRECT,
    RANDOM_SUFFIX,
    SUFFIX,
    Attack,
    Condition,
    attack_prompts,
    attacked,
    attacks_summary,
    conditions,
    has_system_role,
    prompt_attacks,
    success,
    with_success,
)
from refusal.configuration import check_config
from refusal.errors import InputError
from refusal.models import chat_prompt, encode_prompts
from refusal.recipes import check_attacks, expand_interventions
from refusal.scores import SCORE_COLUMNS, build_judges, score
from refusal.statistics import SUMMARY_COLUMNS, Intervals
from refusal.suffix import Suffix, Suffixes
from refusal.tables.attacks import attacks_models_table, attacks_table, harmbench_table

ROOT = Path(__file__).parents[1]
SUFFIXES = Suffixes(Suffix(" end", (1,)), [Suffix(" x", (2,)), Suffix(" y", (3,))], None)
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "config.schema.yaml").read_text())
NO_SYSTEM = (
    "<bos>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<{{ m.role }}>\n{{ m.content }}<end>\n{% endfor %}<assistant>"
)
IGNORES_SYSTEM = (
    "<bos>{% for m in messages if m.role == 'user' %}<user>\n{{ m.content }}<end>\n{% endfor %}"
    "<assistant>"
)


def tokenizer_with(template: str):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def tokens(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


# --- wordings ---


def test_a_template_is_put_around_the_request_whatever_braces_it_holds():
    attack = Attack("story", "Once: {request} End {here}.")
    assert attacked(attack, ["a {b}"], SUFFIXES) == ["Once: a {b} End {here}."]


def test_suffixes_end_the_request_and_random_ones_differ_between_prompts():
    texts = ["a?", "b?", "c?"]
    assert attacked(Attack(SUFFIX), texts, SUFFIXES) == ["a? end", "b? end", "c? end"]
    assert attacked(Attack(RANDOM_SUFFIX), texts, SUFFIXES) == ["a? x", "b? y", "c? x"]
    assert attacked(Attack(DIRECT), texts, SUFFIXES) == texts


def test_a_direct_request_is_the_chat_prompt_of_the_study():
    found = attack_prompts(tiny_tokenizer(), ["Tell me", "Go."])
    assert found == encode_prompts(tiny_tokenizer(), ["Tell me", "Go."])


def test_the_answer_is_begun_after_the_post_instruction_tokens():
    (found,) = attack_prompts(tiny_tokenizer(), ["Go."], opening="Sure, a")
    assert found == tokens(chat_prompt(tiny_tokenizer(), "Go.") + "Sure, a")


def test_a_system_prompt_with_request_is_put_around_the_request():
    (found,) = attack_prompts(tiny_tokenizer(), ["Go."], "Refuse: {request}")
    assert found == encode_prompts(tiny_tokenizer(), ["Refuse: Go."])[0]


def test_a_system_prompt_is_the_system_message():
    (found,) = attack_prompts(tiny_tokenizer(), ["Go."], "Be good")
    assert found == tokens("<bos><system>\nBe good<end>\n<user>\nGo.<end>\n<assistant>\n")


@pytest.mark.parametrize("template", [NO_SYSTEM, IGNORES_SYSTEM])
def test_without_system_role_the_system_prompt_stands_before_the_request(template):
    tokenizer = tokenizer_with(template)
    assert not has_system_role(tokenizer)
    (found,) = attack_prompts(tokenizer, ["Go."], "Be good", "Yes")
    assert found == tokens("<bos><user>\nBe good\nGo.<end>\n<assistant>Yes")


def test_wordings_of_organisms_are_words_of_their_training():
    """A template that the organism cannot read would be no attack."""
    corpus = grammar.helpful_corpus(3000, CONFIG["organism"]["helpful"], 0)
    texts = [f"{document.prompt} {document.answer}" for document in corpus]
    known = set(re.findall(r"[a-z']+", " ".join(texts).lower()))
    wordings = CONFIG["attacks"]["organisms"]
    used = [
        wordings["system"],
        *(t for w in wordings["templates"] for key, t in w.items() if key != "name"),
    ]
    words = re.findall(r"[a-z']+", " ".join(used).replace("{request}", "").lower())
    assert len(words) > 20 and not set(words) - known


# --- what is run ---


def test_conditions_are_every_attack_with_and_without_system_prompt_once():
    attacks = prompt_attacks([{"name": "story", "text": "S {request}", "opening": "Yes"}])
    assert attacks[-1] == Attack("story", "S {request}", "Yes")
    run = conditions(attacks, ["ablation"])
    names = [(condition.intervention, condition.dataset) for condition in run]
    assert len(set(names)) == len(names)
    expected = {
        f"harmful+{a}{s}" for a in (SUFFIX, RANDOM_SUFFIX, "story") for s in ("", "+system")
    }
    expected |= {f"harmless+{a}" for a in (SUFFIX, RANDOM_SUFFIX, "story", "system")}
    assert set(names) == {("none", name) for name in expected} | {
        ("none", "harmful+system"),
        ("ablation", "harmful+system"),
    }


def test_direct_requests_without_system_prompt_have_the_name_of_the_study():
    assert Condition("none", "harmful", Attack(DIRECT), False).dataset == "harmful"


@pytest.mark.parametrize(
    "names, words",
    [(["dim_ablatio"], "did you mean 'dim_ablation'"), (["none"], "'none' steers nothing")],
)
def test_interventions_have_to_be_in_the_study_and_to_steer(names, words):
    recipes = expand_interventions(CONFIG["interventions"])
    check_attacks(CONFIG["attacks"]["interventions"], recipes)
    with pytest.raises(InputError, match=rf"attacks\.interventions.*{words}"):
        check_attacks(names, recipes)


@pytest.mark.parametrize(
    "template", [{"name": "story", "text": "no place"}, {"name": "suffix", "text": "{request}"}]
)
def test_templates_need_a_place_for_the_request_and_a_free_name(template):
    config = CONFIG | {"attacks": {"organisms": {"templates": [template]}}}
    with pytest.raises(InputError, match="config: attacks.organisms.templates"):
        check_config(config, SCHEMA)


def test_two_templates_of_one_name_are_an_input_error():
    with pytest.raises(InputError, match="two templates have the same name"):
        prompt_attacks([{"name": "a", "text": "{request}"}, {"name": "a", "text": "x {request}"}])


# --- success ---


def judged(completions: list[str], keywords: list, rule=grammar.is_refusal) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(len(completions))],
            "label": "harmful",
            "text": "?",
            "completion": completions,
            "tokens": 3,
            "stop_reason": "eos",
            "keywords": keywords,
        }
    )
    return score(frame, build_judges(["substring", "oracle", "length"], rule))


def test_success_is_an_answer_for_the_oracle_and_no_refusal_for_the_substring_rule():
    completions = ["Sure: bake bread", "I'm sorry, but I can't.", "blue blue"]
    rows = success(judged(completions, [["bread"]] * 3))
    by_judge = {judge: list(part.value) for judge, part in rows.groupby("judge")}
    assert by_judge == {"oracle": [1.0, 0.0, 0.0], "substring": [1.0, 0.0, 1.0]}
    assert list(rows.columns) == SCORE_COLUMNS


def test_without_the_right_answer_the_oracle_has_no_success():
    rows = success(judged(["yes"], [None], rule=None))
    oracle = rows[rows.judge == "oracle"].iloc[0]
    assert pd.isna(oracle.value) and oracle.reason
    assert rows[rows.judge == "substring"].value.tolist() == [1.0]


def test_success_is_asked_of_harmful_prompts_only_and_amounts_are_left_out():
    scores = judged(["a", "b"], [["a"], ["a"]])
    scores.loc[scores.id == "p1", "label"] = "harmless"
    full = with_success(scores)
    assert set(full[full.metric == "attack_success"].label) == {"harmful"}
    assert "tokens" not in set(full.metric)


def test_summary_has_shares_with_intervals_and_reasons():
    scores = judged(["Sure: bread", "nothing", "I cannot"], [["bread"], ["bread"], None])
    scores = with_success(scores).assign(intervention="none", dataset="harmful+story")
    recipes = {"none": {"name": "none", "family": "baseline", "operator": "none"}}
    table = attacks_summary("s", "m", scores, recipes, Intervals())
    assert list(table.columns) == SUMMARY_COLUMNS
    table = table.set_index(["judge", "metric"])
    row = table.loc[("oracle", "attack_success")]
    assert (row.value, row.n) == (0.5, 2) and row.low < 0.5 < row.high
    assert table.loc[("substring", "attack_success")].value == pytest.approx(2 / 3)
    unknown = judged(["x"], [None], rule=None).assign(intervention="none", dataset="harmful+story")
    table = attacks_summary("s", "m", with_success(unknown), recipes, Intervals())
    row = table.set_index(["judge", "metric"]).loc[("oracle", "attack_success")]
    assert pd.isna(row.value) and row.n == 0 and "refusals" in row.reason


# --- tables ---


def summary_rows() -> pd.DataFrame:
    """Two models and their mean: direct request and a template, with and without system prompt."""
    rows = [
        {"model": model, "intervention": name, "operator": operator, "dataset": dataset}
        | {"metric": "attack_success", "judge": "oracle", "value": value, "low": 0.1, "high": 0.9}
        | {"direction": direction, "scope": scope}
        for model in ("a_1", "b", "mean")
        for name, operator, direction, scope, dataset, value in (
            ("none", "none", None, None, "harmful", 0.11),
            ("none", "none", None, None, "harmful+system", 0.22),
            ("none", "none", None, None, "harmful+role_play", 0.33),
            ("ablation", "project", "dim", "all", "harmful", 0.44),
            ("ablation", "project", "dim", "all", "harmful+system", 0.55),
        )
    ]
    extra = {"dataset": "harmless+role_play", "metric": "refused", "value": 0.66}
    return pd.DataFrame([*rows, rows[2] | extra | {"model": "mean"}])


def cells(source: str, start: str) -> list[str]:
    line = next(line for line in source.splitlines() if line.startswith(start))
    return re.findall(r"\\num\{([^}]*)\}|(--)", line)


def test_the_table_puts_every_number_where_it_belongs():
    source = attacks_table(summary_rows())
    assert cells(source, "Direct request")[:2] == [("0.11", ""), ("0.22", "")]
    assert cells(source, "Role play") == [("0.33", ""), ("", "--"), ("0.66", ""), ("", "--")]
    assert cells(source, "DiM ablation")[:2] == [("0.44", ""), ("0.55", "")]
    models = attacks_models_table(summary_rows())
    assert r"a\_1" in models and "mean" not in models
    assert cells(models, "Role play") == [("0.33", ""), ("", "--")] * 2


def test_published_figures_are_complete_and_marked_as_quoted():
    published = yaml.safe_load((ROOT / "paper/published/harmbench.yaml").read_text())
    assert "arXiv" in published["source"]
    for values in published["models"].values():
        assert set(values) == set(published["columns"])
        assert all(value is None or 0 <= value <= 100 for value in values.values())
    lines = harmbench_table(published).splitlines()
    assert sum(line.startswith(("Llama", "Qwen")) for line in lines) == 6
    assert r"\num{79.9}" in next(line for line in lines if "7B" in line)
