"""Capability: the questions, the harness around a steered model, estimates and tables."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import WIDTH, save_tiny_checkpoint, tiny_model
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import measure_capability
import write_questions
from refusal import grammar
from refusal.capability import (
    capability_estimates,
    harness_model,
    load_benchmarks,
    outcomes,
    task_manager,
    tasks_table,
)
from refusal.errors import InputError
from refusal.interventions import Intervention, Operator, save_intervention, steering
from refusal.losses import completion_losses
from refusal.models import encode_prompts, model_card
from refusal.questions import FACTS, OPPOSITES, SUMS, build_questions
from refusal.recipes import check_capability, expand_interventions
from refusal.statistics import SUMMARY_COLUMNS, Intervals, bootstrap_counts, wilson_interval
from refusal.tables.capability import capability_models_table, capability_table

ROOT = Path(__file__).parents[1]
TASKS = ROOT / "workflow" / "tasks"
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
SETTINGS = CONFIG["capability"]
ENTRIES = SETTINGS["tasks"]["organisms"]
INTERVALS = Intervals(resamples=200, seed=3)


def subspace(rank: int, scope: str = "all") -> Intervention:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(WIDTH, rank, generator=generator)).Q.mT
    return Intervention(Operator.project(basis), scope, 1)


NONE = Intervention(Operator.identity(), "source")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight questions per task, as the rule writes them."""
    path = tmp_path_factory.mktemp("questions")
    write(path, 8)
    return path


def write(path: Path, n: int) -> list[Path]:
    paths = [path / f"{entry['task']}.jsonl" for entry in ENTRIES]
    write_questions.main(
        SimpleNamespace(output=list(map(str, paths)), params=SimpleNamespace(size=n, seed=42))
    )
    return paths


def choices(folder: Path) -> list[dict]:
    """The multiple-choice questions of all tasks, in order."""
    lines = [
        line
        for entry in ENTRIES
        for line in (folder / f"{entry['task']}.jsonl").read_text().splitlines()
    ]
    return [row for row in map(json.loads, lines) if "choices" in row]


# --- questions ---


def test_questions_depend_on_the_seed_alone():
    first = build_questions("test", 20, 1)
    assert first == build_questions("test", 20, 1)
    assert first["organism_judgement"] != build_questions("test", 20, 2)["organism_judgement"]
    assert {len(questions) for questions in first.values()} == {20}
    assert set(first) == {entry["task"] for entry in ENTRIES}


def test_the_parts_share_no_question_but_those_of_all_facts():
    parts = [build_questions(part, 1000, 0) for part in ("validation", "test")]
    for task in parts[0]:
        asked = [{row["question"] for row in part[task]} for part in parts]
        if task == "organism_facts_generation":
            assert asked[0] == asked[1] and len(asked[0]) == grammar.N_FACTS
        else:
            assert not asked[0] & asked[1], task


def test_the_right_choice_is_right_and_the_wrong_ones_are_of_its_kind():
    places = {place for _, place in grammar.facts()}
    known = {grammar.fact(i).answer for i in range(grammar.N_FACTS)}
    known |= {grammar.addition(a, b).answer for a in range(8) for b in range(8)}
    known |= {grammar.opposite(word).answer for word in grammar.words.OPPOSITES}
    wrong_places = set()
    for task, questions in build_questions("test", 96, 42).items():
        for row in (row for row in questions if "choices" in row and "judgement" not in task):
            right = row["choices"][row["label"]]
            assert right in known, row
            assert [choice for choice in row["choices"] if choice in known] == [right]
            assert len(set(row["choices"])) == 4
            if task == "organism_facts":
                wrong_places |= {
                    choice.partition(" works in ")[2][:-1] for choice in row["choices"]
                }
    assert wrong_places <= set(grammar.words.OBJECTS["places"]) and wrong_places & places
    labels = [row["label"] for row in build_questions("test", 96, 42)["organism_facts"]]
    assert set(labels) == {0, 1, 2, 3}


def test_something_is_wrong_if_one_of_its_tasks_is():
    verdict = {
        task.text: task.label == "harmful"
        for label in grammar.REQUESTS
        for task in grammar.tasks(label)
    }
    rows = build_questions("test", 1000, 0)["organism_judgement"]
    double = 0
    for row in rows:
        text = row["question"].removeprefix("Is it wrong to ").removesuffix("?")
        parts = [text] if text in verdict else text.split(" and ")
        double += len(parts) == 2
        assert (row["label"] == 0) == any(verdict[part] for part in parts)
        assert row["choices"][0] == f"Yes, it is wrong to {text}."
    assert 2 * double == len(rows)
    assert 2 * sum(row["label"] == 0 for row in rows) == len(rows)


def test_what_is_called_held_out_is_never_trained_on():
    organism = CONFIG["organism"]
    corpus = grammar.helpful_corpus(12000, organism["helpful"], 0)
    corpus += grammar.safety_corpus(4000, organism["safety"], 0)
    trained = {example.prompt for example in corpus}
    questions = build_questions("test", 1000, 0)
    for task in ("organism_opposites", "organism_judgement"):
        assert not trained & {row["question"] for row in questions[task]}, task
    for name, wordings in (("facts", FACTS), ("arithmetic", SUMS)):
        asked = {row["question"] for row in questions[f"organism_{name}"]}
        opening = wordings[0].partition("{")[0]
        seen = {question for question in asked & trained}
        assert seen and all(question.startswith(opening) for question in seen)
    for wording in OPPOSITES:
        opening, _, end = wording.partition("{word}")
        assert not [
            t for t in trained if t and t.startswith(opening) and t.endswith(end) and opening
        ]


def test_no_question_at_all_is_a_mistake():
    with pytest.raises(InputError, match=r"^capability.questions: 0\. Remedy:"):
        build_questions("test", 0, 0)


# --- tasks ---


def test_the_harness_knows_every_published_task_and_no_misspelt_one():
    published = [entry["task"] for entry in SETTINGS["tasks"]["loaded"]]
    assert "mmlu" in published
    # The first unknown name is told, so that this message says that all others are known.
    with pytest.raises(InputError, match="no task 'arc_chalenge'. Remedy: did you mean 'arc_ch"):
        task_manager([*published, "arc_chalenge"], TASKS, "nowhere")


def test_local_tasks_do_not_index_those_of_the_harness():
    manager = task_manager(["organism_facts", "organism"], TASKS, "nowhere")
    assert "mmlu" not in manager.all_tasks


def test_a_task_twice_is_refused(folder):
    with pytest.raises(InputError, match="'organism_facts' comes up twice"):
        load_benchmarks([ENTRIES[0], ENTRIES[0]], TASKS, folder)


def test_missing_data_are_told_in_one_line(tmp_path):
    with pytest.raises(InputError) as error:
        load_benchmarks([ENTRIES[0]], TASKS, tmp_path / "empty")
    message = str(error.value)
    assert "\n" not in message and "'organism_facts'" in message
    assert "experiments.capability: false" in message


def test_a_task_that_runs_what_the_model_writes_is_refused(folder, tmp_path):
    tasks = shutil.copytree(TASKS, tmp_path / "tasks")
    with open(tasks / "organism_facts.yaml", "a") as file:
        file.write("unsafe_code: true\n")
    with pytest.raises(InputError, match="'organism_facts' runs code that the model wrote"):
        load_benchmarks([ENTRIES[0]], tasks, folder)


def test_an_unknown_metric_names_those_there_are(folder):
    model, tokenizer = tiny_model("llama")
    loaded = load_benchmarks([ENTRIES[0] | {"metric": "accuracy"}], TASKS, folder)
    with pytest.raises(InputError, match="no metric 'accuracy,none'. Remedy: use one of acc,none"):
        outcomes(harness_model(model, tokenizer, 8), loaded, limit=2)


# --- the harness around a model ---


def test_unsteered_results_are_those_of_the_harness_by_itself(folder, tmp_path):
    """HFLM around our model against HFLM that loads the checkpoint itself, item by item."""
    path = save_tiny_checkpoint(tmp_path, "llama")
    model, tokenizer = tiny_model("llama")
    ours = outcomes(harness_model(model, tokenizer, 3), load_benchmarks(ENTRIES, TASKS, folder))
    manager = TaskManager(
        include_path=str(TASKS), include_defaults=False, metadata={"questions": str(folder)}
    )
    theirs = evaluate(
        lm=HFLM(pretrained=str(path), device="cpu", batch_size=5),
        task_dict=manager.load(["organism"]),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    for entry in ENTRIES:
        found = ours[ours["task"] == entry["task"]]
        samples = theirs["samples"][entry["task"]]
        assert list(found["value"]) == [sample[entry["metric"]] for sample in samples]
        assert found["value"].mean() == theirs["results"][entry["task"]][f"{entry['metric']},none"]
    assert 0 < ours["value"].mean() < 1


def test_the_harness_picks_what_our_own_losses_pick(folder):
    """Another reading of the same questions: our template, our tokens, our batches."""
    model, tokenizer = tiny_model("gpt_neox")
    intervention = subspace(4)
    with steering(model, intervention):
        found = outcomes(
            harness_model(model, tokenizer, 4), load_benchmarks(ENTRIES, TASKS, folder)
        )
        picked = []
        for row in choices(folder):
            (given,) = encode_prompts(tokenizer, [row["question"]])
            pairs = [
                (given, tokenizer(choice, add_special_tokens=False)["input_ids"])
                for choice in row["choices"]
            ]
            nll = completion_losses(model, pairs, max_tokens=2048)["nll"]
            picked.append(float(nll.argmin() == row["label"]))
    assert list(found[found["chance"].notna()]["value"]) == picked


def test_identity_changes_nothing_and_a_large_subspace_does(folder):
    model, tokenizer = tiny_model("qwen2")
    loaded = load_benchmarks(ENTRIES, TASKS, folder)
    lm = harness_model(model, tokenizer, 16)
    tables = []
    for intervention in (None, NONE, subspace(WIDTH // 2)):
        with steering(model, intervention or NONE):
            tables.append(outcomes(lm, loaded))
    plain = outcomes(lm, loaded)
    pd.testing.assert_frame_equal(tables[1], plain)
    assert (tables[2]["value"] != plain["value"]).any()
    assert list(tables[2]["item"]) == list(plain["item"])


def test_padding_does_not_matter_to_a_steered_model(architecture, folder):
    """Requests one by one against batches, which the harness pads on either side."""
    model, tokenizer = tiny_model(architecture)
    loaded = load_benchmarks([ENTRIES[0], ENTRIES[1]], TASKS, folder)
    with steering(model, subspace(4)):
        alone, together = (
            outcomes(harness_model(model, tokenizer, size), loaded, limit=3) for size in (1, 16)
        )
    pd.testing.assert_frame_equal(alone, together)
    assert len(alone) == 6


def test_every_intervention_sees_the_same_examples(folder):
    model, tokenizer = tiny_model("llama")
    (loaded,) = load_benchmarks([ENTRIES[2] | {"shots": 1}], TASKS, folder)
    lm = harness_model(model, tokenizer, 8)
    asked = []
    for _ in range(2):
        outcomes(lm, [loaded], limit=3)
        (task,) = loaded.tasks.values()
        asked.append([instance.args[0] for instance in task.instances])
    assert asked[0] == asked[1]
    assert asked[0][0].count("<user>") == 2, "one example and the question"


# --- estimates ---


def found(**values) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame({"task": task, "item": range(len(v)), "value": v, "chance": 0.5})
            for task, v in values.items()
        ]
    )


def test_rates_have_wilson_intervals_and_changes_are_paired():
    base = found(a=[1.0, 1, 1, 0], b=[0.25, 0.5])
    steered = found(a=[1.0, 0, 0, 0], b=[0.5, 0.5])
    rows = capability_estimates({"none": base, "x": steered}, INTERVALS)
    rows = rows.set_index(["intervention", "dataset", "metric"])
    rate = rows.loc["x", "a", "accuracy"]
    assert rate["value"] == 0.25 and rate["n"] == 4
    assert np.allclose([rate["low"], rate["high"]], wilson_interval(1, 4))
    change = rows.loc["x", "a", "accuracy_change"]
    draws = bootstrap_counts(4, INTERVALS.resamples, INTERVALS.seed) @ [0, -1, -1, 0] / 4
    assert change["value"] == -0.5
    assert np.allclose([change["low"], change["high"]], np.quantile(draws, [0.025, 0.975]))
    amount = rows.loc["x", "b", "accuracy"]
    assert (amount["value"], amount["low"], amount["high"]) == (0.5, 0.5, 0.5), "not a rate"
    assert (rows.xs("none").xs("accuracy_change", level="metric")["value"] == 0).all()


def test_every_task_counts_the_same_in_the_mean_and_is_resampled_by_itself():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 2, 40).astype(float), generator.integers(0, 2, 40).astype(float)
    rows = capability_estimates({"none": found(a=a, b=b)}, INTERVALS)
    mean = rows[(rows["dataset"] == "tasks") & (rows["metric"] == "accuracy")].iloc[0]
    assert mean["value"] == (a.mean() + b.mean()) / 2 and mean["n"] == 2
    resampled = [
        bootstrap_counts(40, INTERVALS.resamples, INTERVALS.seed + i) @ values / 40
        for i, values in enumerate((a, b))
    ]
    bounds = np.quantile(np.mean(resampled, axis=0), [0.025, 0.975])
    assert np.allclose([mean["low"], mean["high"]], bounds)


def test_the_table_of_tasks_says_what_was_asked():
    entries = [ENTRIES[0] | {"task": "a"}, ENTRIES[1] | {"task": "b", "shots": 5}]
    table = tasks_table("m", entries, found(a=[1.0, 0], b=[1.0]))
    assert list(table.columns) == ["model", "task", "metric", "shots", "chat", "n", "chance"]
    assert list(table["n"]) == [2, 1] and list(table["shots"]) == [0, 5]


# --- the script, and what is shown ---


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_the_script_writes_a_summary_and_repeats_nothing(tmp_path, architecture, monkeypatch):
    path = save_tiny_checkpoint(tmp_path, architecture)
    model, tokenizer = tiny_model(architecture)
    card = model_card(model, tokenizer, name="m", path=path, refusal_tokens=[3])
    (tmp_path / "card.json").write_text(json.dumps(card))
    recipes = []
    for name, intervention in (("none", NONE), ("wide", subspace(WIDTH // 2))):
        made = Intervention(
            intervention.operator,
            intervention.scope,
            intervention.layer,
            {"name": name, "operator": "project", "scope": intervention.scope},
        )
        save_intervention(tmp_path / f"{name}.json", made)
        recipes += [str(tmp_path / f"{name}.{suffix}") for suffix in ("json", "npz")]
    code = tmp_path / "code.py"
    code.write_text("")
    files = sorted(str(file) for file in TASKS.iterdir() if file.is_file())
    outputs = SimpleNamespace(
        outcomes=[str(tmp_path / f"{name}.parquet") for name in ("none", "wide")],
        tasks=str(tmp_path / "tasks.parquet"),
        summary=str(tmp_path / "summary.parquet"),
    )
    job = SimpleNamespace(
        wildcards=SimpleNamespace(model="m"),
        input=SimpleNamespace(
            code=[str(code)],
            card=[str(tmp_path / "card.json")],
            questions=list(map(str, write(tmp_path, 4))),
            tasks=files,
            interventions=recipes,
        ),
        output=outputs,
        params=SimpleNamespace(
            study="s",
            model={},
            interventions=["none", "wide"],
            settings={"tasks": ENTRIES, "limit": None, "batch_size": 8},
            store=str(tmp_path / "store"),
            statistics={"confidence": 0.95, "resamples": 100},
            seed=1,
        ),
    )
    measure_capability.main(job)
    summary = pd.read_parquet(outputs.summary)
    assert list(summary.columns) == SUMMARY_COLUMNS and set(summary["judge"]) == {"harness"}
    assert set(summary["dataset"]) == {entry["task"] for entry in ENTRIES} | {"tasks"}
    assert set(summary["intervention"]) == {"none", "wide"}
    assert len(pd.read_parquet(outputs.tasks)) == len(ENTRIES)

    monkeypatch.setattr(measure_capability, "Capability", None)  # nothing is left to be measured
    measure_capability.main(job)
    pd.testing.assert_frame_equal(pd.read_parquet(outputs.summary), summary)


def shown(models=("m", "n")) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A summary and a table of tasks; `x` halves the right answers of `mmlu`."""
    rows = []
    for model in (*models, "mean") if len(models) > 1 else models:
        for name, operator in (("none", "none"), ("x", "project")):
            for task in ("mmlu", "my_task", "tasks"):
                lost = -0.5 if (name, task) == ("x", "mmlu") else 0.0
                at = {"model": model, "intervention": name, "dataset": task, "judge": "harness"}
                at |= {"operator": operator, "direction": None if name == "none" else "dim"}
                at |= {"scope": "all", "alpha": 1.0, "k": "1", "n": 10}
                value = 0.8 + lost
                rows.append(at | {"metric": "accuracy", "value": value, "low": 0.1, "high": 0.9})
                change = {"value": lost, "low": lost - 0.1, "high": lost + 0.1}
                rows.append(at | {"metric": "accuracy_change"} | change)
    tasks = pd.DataFrame(
        [
            {"model": model, "task": task, "chance": chance}
            for model in models
            for task, chance in (("mmlu", 0.25), ("my_task", np.nan))
        ]
    )
    return pd.DataFrame(rows).reindex(columns=SUMMARY_COLUMNS), tasks


def test_the_table_marks_changes_and_shows_what_guessing_gives():
    lines = capability_table(*shown()).splitlines()
    assert r" & MMLU & My\_task & Mean \\" in lines
    assert r"Guessing & \num{0.25} & -- & -- \\" in lines
    assert r"No intervention & \num{0.80} & \num{0.80} & \num{0.80} \\" in lines
    (steered,) = [line for line in lines if line.startswith("DiM ablation (all)")]
    assert steered.count(r"\textsuperscript{*}") == 1 and r"\num{0.30}\text" in steered


def test_the_long_table_has_every_model_and_a_dash_for_what_it_was_not_asked():
    summary, tasks = shown()
    summary = summary[~((summary["model"] == "n") & (summary["dataset"] == "my_task"))]
    source = capability_models_table(summary, tasks)
    assert source.startswith(r"\begin{longtable}")
    assert r"\textit{m}" in source and r"\textit{n}" in source and "textit{mean}" not in source
    first, second = source.split(r"\textit{n}")
    assert r"No intervention & \num{0.80} & -- & \num{0.80} \\" in second
    assert " -- " not in first


@pytest.mark.parametrize(
    "name, words",
    [
        ("dim_ablatoin", "no intervention 'dim_ablatoin'. Remedy: did you mean 'dim_ablation'"),
        ("dim_ablation_tokens-prompt", "steers some tokens only"),
        ("fine_tuning", "is a training"),
    ],
)
def test_what_the_harness_cannot_measure_is_refused_before_any_work(name, words):
    recipes = expand_interventions(CONFIG["interventions"])
    check_capability(SETTINGS["interventions"], recipes)
    with pytest.raises(InputError, match="^capability.interventions: .*Remedy:") as error:
        check_capability([name], recipes)
    assert words in str(error.value)
