"""Every verdict, every relation, the shipped claims, and one clear line for a broken file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from refusal.claims import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_MEASURED,
    RELATIONS,
    SUPPORTED,
    conjunction,
    evaluate_claims,
    interval_verdict,
    load_claims,
    required_comparisons,
    save_verdicts,
    unanimous,
)
from refusal.errors import InputError
from refusal.recipes import expand_interventions
from refusal.statistics import COMPARISON_COLUMNS, SUMMARY_COLUMNS, draw_group

CLAIMS = Path(__file__).parents[1] / "paper" / "claims.yaml"


def condition(**values):
    return {
        "left": "a",
        "dataset": "harmful",
        "metric": "refused_change",
        "judge": "oracle",
        "relation": "at_most",
        "threshold": -0.5,
        "rationale": "why",
    } | values


def claim(*conditions):
    return {
        "A1": {"statement": "s", "source": "p", "published": "v", "conditions": list(conditions)}
    }


def summary_row(value, low, high, **values):
    row = dict.fromkeys(SUMMARY_COLUMNS) | {
        "study": "s",
        "model": "m",
        "intervention": "a",
        "dataset": "harmful",
        "metric": "refused_change",
        "judge": "oracle",
        "rank": np.nan,
        "value": value,
        "low": low,
        "high": high,
        "n": 128,
        "reason": None,
    }
    return row | values


def comparison_row(difference, low, high, **values):
    row = dict(
        zip(
            COMPARISON_COLUMNS,
            [
                "s",
                "m",
                "a",
                "b",
                "harmful",
                "refused",
                "oracle",
                difference,
                low,
                high,
                np.nan,
                128,
            ],
            strict=True,
        )
    )
    return row | values


def tables(summary=(), comparisons=()):
    summary = list(summary) or [summary_row(0, 0, 0, intervention="unrelated")]
    return (
        pd.DataFrame(summary, columns=SUMMARY_COLUMNS),
        pd.DataFrame(list(comparisons), columns=COMPARISON_COLUMNS),
    )


def verdict(claims, summary=(), comparisons=(), model="m"):
    result = evaluate_claims(claims, *tables(summary, comparisons))["A1"]
    return result["models"][model] if model != "mean" else result["overall"]


# --- one interval ---


@pytest.mark.parametrize(
    "relation,numbers,supported,contradicted,inconclusive",
    [
        ("at_least", {"threshold": 0.5}, (0.5, 0.9), (0.1, 0.49), (0.4, 0.6)),
        ("at_most", {"threshold": 0.5}, (0.1, 0.5), (0.51, 0.9), (0.4, 0.6)),
        ("greater", {}, (0.01, 0.2), (-0.2, -0.01), (0.0, 0.2)),
        ("less", {"threshold": 0.5}, (0.1, 0.49), (0.51, 0.6), (0.4, 0.5)),
        ("between", {"lowest": 0.25, "highest": 0.75}, (0.25, 0.75), (0.8, 0.9), (0.2, 0.5)),
        ("equivalent", {"tolerance": 0.1}, (-0.1, 0.05), (-0.3, -0.11), (-0.3, 0.3)),
    ],
)
def test_relations(relation, numbers, supported, contradicted, inconclusive):
    rule = {"relation": relation, **numbers}
    assert interval_verdict(rule, *supported) == SUPPORTED
    assert interval_verdict(rule, *contradicted) == CONTRADICTED
    assert interval_verdict(rule, *inconclusive) == INCONCLUSIVE
    assert interval_verdict(rule, np.nan, np.nan) == INCONCLUSIVE


def test_a_tie_decides_no_strict_relation():
    for relation in ("greater", "less"):
        assert interval_verdict({"relation": relation}, 0.0, 0.0) == INCONCLUSIVE


def test_all_relations_are_tested():
    assert set(RELATIONS) == {"at_least", "at_most", "greater", "less", "between", "equivalent"}


# --- combining ---


def test_conjunction():
    assert conjunction([SUPPORTED, SUPPORTED]) == SUPPORTED
    assert conjunction([SUPPORTED, CONTRADICTED, NOT_MEASURED]) == CONTRADICTED
    assert conjunction([SUPPORTED, INCONCLUSIVE, NOT_MEASURED]) == NOT_MEASURED
    assert conjunction([SUPPORTED, INCONCLUSIVE]) == INCONCLUSIVE
    assert conjunction([]) == NOT_MEASURED


def test_unanimous():
    assert unanimous([CONTRADICTED, CONTRADICTED]) == CONTRADICTED
    assert unanimous([SUPPORTED, NOT_MEASURED]) == INCONCLUSIVE
    assert unanimous([SUPPORTED, CONTRADICTED]) == INCONCLUSIVE


# --- claims ---


@pytest.mark.parametrize(
    "value,low,high,expected",
    [
        (-0.8, -0.9, -0.6, SUPPORTED),
        (-0.2, -0.4, -0.1, CONTRADICTED),
        (-0.5, -0.6, -0.4, INCONCLUSIVE),
        (-0.8, np.nan, np.nan, INCONCLUSIVE),
        (np.nan, np.nan, np.nan, NOT_MEASURED),
    ],
)
def test_verdict_from_the_summary(value, low, high, expected):
    outcome = verdict(claim(condition()), [summary_row(value, low, high)])
    assert outcome["verdict"] == expected == outcome["conditions"][0]["verdict"]


def test_missing_row_is_not_measured_and_says_so():
    outcome = verdict(claim(condition(left="absent")), [summary_row(-0.8, -0.9, -0.6)])
    assert outcome["verdict"] == NOT_MEASURED
    assert "no such row" in outcome["conditions"][0]["reason"]


def test_reason_of_an_unjudged_row_is_passed_on():
    row = summary_row(np.nan, np.nan, np.nan, reason="128 of 128 not judged: no keywords")
    assert verdict(claim(condition()), [row])["conditions"][0]["reason"].endswith("no keywords")


def test_overall_reads_the_mean_rows_and_models_their_own():
    rows = [
        summary_row(-0.9, -1.0, -0.8),
        summary_row(-0.1, -0.2, 0.0, model="other"),
        summary_row(-0.5, -0.9, -0.1, model="mean", n=2),
    ]
    result = evaluate_claims(claim(condition()), *tables(rows))["A1"]
    assert result["overall"]["verdict"] == INCONCLUSIVE
    assert {m: o["verdict"] for m, o in result["models"].items()} == {
        "m": SUPPORTED,
        "other": CONTRADICTED,
    }


def compared(**values):
    return condition(right="b", metric="refused", relation="at_most", threshold=0.1, **values)


@pytest.mark.parametrize(
    "low,high,expected",
    [(-0.05, 0.05, SUPPORTED), (0.2, 0.4, CONTRADICTED), (0.0, 0.2, INCONCLUSIVE)],
)
def test_verdict_from_a_comparison(low, high, expected):
    row = comparison_row((low + high) / 2, low, high)
    assert verdict(claim(compared()), comparisons=[row])["verdict"] == expected


def test_a_reversed_comparison_is_turned_round():
    row = comparison_row(0.3, 0.2, 0.4, left="b", right="a")
    outcome = verdict(claim(compared()), comparisons=[row])
    measured = outcome["conditions"][0]
    assert (measured["value"], measured["low"], measured["high"]) == (-0.3, -0.4, -0.2)
    assert outcome["verdict"] == SUPPORTED


def test_missing_comparison_is_not_measured():
    assert verdict(claim(compared()))["verdict"] == NOT_MEASURED


def test_report_conditions_do_not_enter_the_verdict():
    rows = [summary_row(-0.9, -1.0, -0.8)]
    reported = condition(relation="at_least", threshold=0.5, role="report")
    outcome = verdict(claim(condition(), reported), rows)
    assert outcome["verdict"] == SUPPORTED
    assert outcome["conditions"][1]["verdict"] == CONTRADICTED


def test_settings_must_agree_and_share_the_unnamed_conditions():
    rows = [
        summary_row(-0.9, -1.0, -0.8),
        summary_row(-0.1, -0.2, 0.0, intervention="b"),
        summary_row(0.3, 0.2, 0.4, metric="looping_change"),
    ]
    one, two = condition(setting="one"), condition(setting="two", left="b")
    outcome = verdict(claim(one, two), rows)
    assert outcome["settings"] == {"one": SUPPORTED, "two": CONTRADICTED}
    assert outcome["verdict"] == INCONCLUSIVE
    common = condition(metric="looping_change", relation="less", threshold=0)
    outcome = verdict(claim(one, two, common), rows)
    assert outcome["verdict"] == CONTRADICTED  # what holds in no setting contradicts both


def test_judges_are_tried_in_order():
    rows = [summary_row(np.nan, np.nan, np.nan), summary_row(-0.8, -0.9, -0.7, judge="substring")]
    outcome = verdict(claim(condition(judge=["oracle", "substring"])), rows)
    assert outcome["verdict"] == SUPPORTED
    assert outcome["conditions"][0]["judge"] == "substring"
    rows[0] = summary_row(-0.1, -0.2, 0.0)
    outcome = verdict(claim(condition(judge=["oracle", "substring"])), rows)
    assert outcome["conditions"][0]["judge"] == "oracle" and outcome["verdict"] == CONTRADICTED


@pytest.mark.parametrize("rank,expected", [(8, SUPPORTED), (20, NOT_MEASURED)])
def test_restriction_needs_a_lower_rank(rank, expected):
    rows = [
        summary_row(0, 0, 0, intervention="a", rank=rank),
        summary_row(0, 0, 0, intervention="b", rank=20),
    ]
    outcome = verdict(claim(compared(needs_lower_rank=True)), rows, [comparison_row(0, -0.1, 0.05)])
    assert outcome["verdict"] == expected
    if expected == NOT_MEASURED:
        assert outcome["conditions"][0]["reason"] == "a uses no fewer directions than b"


def test_output_is_plain_json(tmp_path):
    rows = [
        summary_row(-0.9, -1.0, -0.8),
        summary_row(-0.9, -1.0, -0.8, model="other"),
        summary_row(np.nan, np.nan, np.nan, model="mean", n=0),
    ]
    results = evaluate_claims(claim(condition()), *tables(rows))
    save_verdicts(tmp_path / "claims.json", results)
    read = json.loads((tmp_path / "claims.json").read_text())
    assert read == results
    measured = read["A1"]["models"]["m"]["conditions"][0]
    assert measured["value"] == -0.9 and measured["n"] == 128 and measured["threshold"] == -0.5
    assert read["A1"]["overall"]["conditions"][0]["value"] is None


# --- the shipped claims ---


@pytest.fixture(scope="module")
def shipped():
    return load_claims(CLAIMS)


def test_shipped_claims(shipped):
    rocchetti, arditi, discussion, joad = (
        [f"{letter}{i}" for i in range(1, n)]
        for letter, n in (("B", 6), ("A", 9), ("D", 3), ("C", 6))
    )
    assert list(shipped) == [*rocchetti, *arditi, *discussion, *joad]
    assert all(c["rationale"] for item in shipped.values() for c in item["conditions"])


CONFIG = yaml.safe_load((CLAIMS.parents[1] / "config.yaml").read_text())
ALL_INTERVENTIONS = list(expand_interventions(CONFIG["interventions"]))


def test_shipped_claims_name_only_known_interventions(shipped):
    known = {*ALL_INTERVENTIONS, *(draw_group(name) for name in ALL_INTERVENTIONS)}
    conditions = [c for item in shipped.values() for c in item["conditions"]]
    assert {c["left"] for c in conditions} <= known
    assert {c["right"] for c in conditions if "right" in c} <= known


def target(rule):
    """A value well inside the region of a condition."""
    return {
        "at_least": rule.get("threshold", 0) + 0.2,
        "at_most": rule.get("threshold", 0) - 0.2,
        "greater": rule.get("threshold", 0) + 0.2,
        "less": rule.get("threshold", 0) - 0.2,
        "between": (rule.get("lowest", 0) + rule.get("highest", 0)) / 2,
        "equivalent": 0,
    }[rule["relation"]]


def world(shipped, outside):
    """Tables in which every tested condition holds, or (outside) in which none does."""
    summary, comparisons = {}, {}
    for item in shipped.values():
        for rule in item["conditions"]:
            if rule.get("role") == "report":
                continue
            value = target(rule)
            if outside:
                bound = rule.get("highest", rule.get("threshold", 0))
                value = 2 * bound - value if rule["relation"] != "between" else bound + 0.5
            judge = rule["judge"] if isinstance(rule["judge"], str) else rule["judge"][0]
            what = {"dataset": rule["dataset"], "metric": rule["metric"], "judge": judge}
            for model in ("m", "mean"):
                bounds = (value, value - 0.01, value + 0.01)
                if "right" in rule:
                    row = comparison_row(
                        *bounds, left=rule["left"], right=rule["right"], model=model, **what
                    )
                    comparisons[tuple(row[c] for c in COMPARISON_COLUMNS[:7])] = row
                else:
                    row = summary_row(*bounds, intervention=rule["left"], model=model, **what)
                    summary[model, rule["left"], *what.values()] = row
    ranks = [
        summary_row(
            0, 0, 0, intervention=name, model=model, metric="other", rank=8 if "k8" in name else 20
        )
        for name in ALL_INTERVENTIONS
        for model in ("m", "mean")
    ]
    for row in summary.values():
        row["rank"] = 8 if "k8" in row["intervention"] else 20
    return tables([*summary.values(), *ranks], comparisons.values())


@pytest.mark.parametrize("outside,expected", [(False, SUPPORTED), (True, CONTRADICTED)])
def test_shipped_claims_can_be_supported_and_contradicted(shipped, outside, expected):
    results = evaluate_claims(shipped, *world(shipped, outside))
    verdicts = {name: item["overall"]["verdict"] for name, item in results.items()}
    assert verdicts == dict.fromkeys(shipped, expected)


def test_shipped_claims_without_data_are_not_measured(shipped):
    results = evaluate_claims(shipped, *tables())
    assert all(item["overall"]["verdict"] == NOT_MEASURED for item in results.values())


def test_verdicts_do_not_depend_on_a_trip_through_parquet(shipped, tmp_path):
    paths = [tmp_path / "summary.parquet", tmp_path / "comparisons.parquet"]
    frames = world(shipped, outside=False)
    for frame, path in zip(frames, paths, strict=True):
        frame.to_parquet(path)
    read = (pd.read_parquet(path) for path in paths)
    assert evaluate_claims(shipped, *read) == evaluate_claims(shipped, *frames)


def test_required_comparisons(shipped):
    pairs = required_comparisons(shipped, ALL_INTERVENTIONS)
    assert ("inlp_flipping-kfull-source", "dim_ablation_source") in pairs
    assert len(pairs) == len(set(pairs))
    fewer = required_comparisons(shipped, ["dim_ablation", "inlp_flipping-kfull-source"])
    assert fewer == [("inlp_flipping-kfull-source", "dim_ablation")]
    drawn = claim(compared() | {"right": "random_ablation-draw*"})
    assert required_comparisons(drawn, ["a", "random_ablation-draw3"]) == [
        ("a", "random_ablation-draw*")
    ]
    assert required_comparisons(drawn, ["a", "random_ablation"]) == []


# --- broken files ---


def write(tmp_path, content):
    path = tmp_path / "claims.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    "change,message",
    [
        ({"relation": "smaller"}, "relation"),
        ({"relation": "between"}, "'lowest' is a required property"),
        ({"threshold": "half"}, "threshold"),
        ({"tolerence": 0.1}, "tolerence"),
        ({"judge": []}, "judge"),
        ({"role": "report"}, "all have role report"),
    ],
)
def test_broken_conditions_give_one_line_with_file_and_key(tmp_path, change, message):
    path = write(tmp_path, claim(condition(**change)))
    with pytest.raises(InputError, match=message) as error:
        load_claims(path)
    text = str(error.value)
    assert text.startswith(f"{path}: A1.conditions") and "\n" not in text


def test_missing_number_missing_key_and_empty_file(tmp_path):
    broken = claim({k: v for k, v in condition().items() if k != "threshold"})
    with pytest.raises(InputError, match="'threshold' is a required property"):
        load_claims(write(tmp_path, broken))
    broken = claim(condition())
    del broken["A1"]["source"]
    with pytest.raises(InputError, match="A1: 'source' is a required property"):
        load_claims(write(tmp_path, broken))
    with pytest.raises(InputError, match="top level"):
        load_claims(write(tmp_path, ""))


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="absent.yaml: No such file"):
        load_claims(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="not valid YAML near line 2"):
        load_claims(write(tmp_path, "A1:\n  a: b: c\n"))


def test_a_single_model_is_the_whole_study():
    rows = [summary_row(-0.9, -1.0, -0.8), summary_row(-0.9, np.nan, np.nan, model="mean", n=1)]
    outcome = evaluate_claims(claim(condition()), *tables(rows))["A1"]
    assert outcome["overall"] == outcome["models"]["m"]
    assert outcome["overall"]["verdict"] == SUPPORTED
