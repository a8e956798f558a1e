"""What a model can do under interventions, as Table 8 of Arditi et al. 2024."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from refusal.latex import escape_latex, number, stacked, tabular
from refusal.reading import label, models_of, pooled_name, recipes
from refusal.tables.layout import Key, lookup

JUDGE = "harness"
ALL_TASKS = "tasks"
CHANGED = r"\textsuperscript{*}"
TASK_NAMES = {
    "organism_facts": "facts",
    "organism_facts_generation": "facts, generated",
    "organism_arithmetic": "arithmetic",
    "organism_arithmetic_generation": "arithmetic, generated",
    "organism_opposites": "opposites",
    "organism_judgement": "judgement",
    "mmlu": "MMLU",
    "tinyhellaswag_mean": "tinyHellaSwag",
    "arc_challenge": "ARC-Challenge",
    "winogrande": "WinoGrande",
    "gsm8k": "GSM8K",
    "truthfulqa_mc2": "TruthfulQA",
    ALL_TASKS: "mean over tasks",
}


def capability_table(summary: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """Accuracy by intervention and task, over models; intervals on a second line."""
    names = [*pd.unique(tasks["task"]), ALL_TASKS]
    lines = _lines(summary, pooled_name(summary), names)
    if lines:
        lines.insert(0, _guessing(tasks, names))
    return tabular("l" + "l" * len(names), _header(names), lines)


def capability_models_table(summary: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """The same model by model, on as many pages as it takes.

    Models that were asked other tasks have a dash where a column is not theirs.
    """
    names = [*pd.unique(tasks["task"]), ALL_TASKS]
    lines = []
    for model in models_of(summary):
        measured = _lines(summary, model, names)
        lines += [[escape_latex(model)], *measured] if measured else []
    return tabular("l" + "l" * len(names), _header(names), lines, "longtable")


def _lines(summary: pd.DataFrame, model: str, tasks: list[str]) -> list[list[str]]:
    """Two lines per intervention: values, marked where they changed, and intervals."""
    rows, table = lookup(summary), recipes(summary)
    measured = summary[(summary["metric"] == "accuracy") & (summary["model"] == model)]
    lines = []
    for name in pd.unique(measured["intervention"]):
        text = label(table.loc[name], table.loc[name, "scope"] not in ("source", "weights"))
        cells = [_cell(rows, model, name, task) for task in tasks]
        values, bounds = zip(*cells, strict=True)
        lines += [[escape_latex(text), *values], ["", *bounds]]
    return lines


def _cell(rows: Mapping[Key, Any], model: str, name: str, task: str) -> tuple[str, str]:
    """Accuracy and its interval; marked if the interval of its change lies on one side of zero."""
    value, bounds = stacked(rows.get((model, name, task, "accuracy", JUDGE)))
    change = rows.get((model, name, task, "accuracy_change", JUDGE))
    changed = change is not None and (change.low > 0 or change.high < 0)
    return value + CHANGED * changed, bounds


def _guessing(tasks: pd.DataFrame, names: list[str]) -> list[str]:
    chance = tasks.groupby("task")["chance"].mean()
    return ["Guessing", *(number(chance.get(name)) for name in names)]


def _header(tasks: list[str]) -> list[str]:
    """Names of the tasks, on two lines where they have two parts."""
    headings = []
    for task in tasks:
        text = "mean" if task == ALL_TASKS else TASK_NAMES.get(task, task)
        lines = escape_latex(text[0].upper() + text[1:]).split(", ")
        stack = r"\begin{tabular}[b]{@{}l@{}}%s\end{tabular}"
        headings.append(stack % r",\\".join(lines) if len(lines) > 1 else lines[0])
    return ["", *headings]
