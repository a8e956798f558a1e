"""Capability: tasks of the lm-evaluation-harness on a steered model.

Arditi et al. 2024, section 4.3 and Table 8, measure MMLU, ARC-Challenge, GSM8K, TruthfulQA,
WinoGrande and tinyHellaSwag with the settings of the Open LLM Leaderboard and no chat template.
Organisms have tasks of their own (`workflow/tasks/`), asked in their chat template. Either way the
harness asks and marks: its HFLM is put around the loaded model, and runs while the hooks of an
intervention are in place. Hooks act on every token alike, so it does not matter that the harness
pads likelihood requests on the right and generations on the left.
"""

import difflib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from datasets.exceptions import DatasetsError
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from refusal.errors import InputError
from refusal.statistics import (
    BASELINE,
    Intervals,
    bootstrap_means,
    wilson_interval,
)

KEY = "capability.tasks"
JUDGE = "harness"
ALL_TASKS = "tasks"  # the dataset of the mean over tasks
ACCURACY, CHANGE = "accuracy", "accuracy_change"


@dataclass(frozen=True)
class Benchmark:
    """An entry of `capability.tasks`, loaded.

    Attributes:
        name: name of a task or group of the harness.
        metric: the harness's metric of an item, and the filter of its answer.
        chat: whether requests are put in the chat template.
        shots: worked examples before every question.
        tasks: the harness's tasks by name; several for a group such as mmlu.
    """

    name: str
    metric: tuple[str, str]
    chat: bool
    shots: int
    tasks: dict[str, Task]


# --- tasks ------------------------------------------------------------------------------------


def load_benchmarks(
    entries: Sequence[Mapping], folder: str | Path, questions: str | Path
) -> list[Benchmark]:
    """Tasks with their data, read or downloaded by the harness.

    Args:
        entries: task, shots, chat and metric (as the harness prints it: `acc`, or with a filter
            `exact_match,strict-match`).
        folder: YAML files of further tasks.
        questions: folder with the data of the organisms' tasks.

    Raises:
        InputError: an unknown task or one named twice, data that cannot be loaded, or a task that
            would run what a model writes.
    """
    names = [entry["task"] for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{KEY}: '{name}' comes up twice. Remedy: remove one entry.")
    manager = task_manager(names, folder, questions)
    return [_load(manager, entry) for entry in entries]


def task_manager(names: Sequence[str], folder: str | Path, questions: str | Path) -> TaskManager:
    """A task manager that knows all names.

    The thousands of tasks that come with the harness are indexed only if one of them is named:
    that alone takes seconds.

    Raises:
        InputError: there is no task of a name.
    """
    for include_defaults in (False, True):
        manager = TaskManager(
            include_path=str(folder),
            include_defaults=include_defaults,
            metadata={"questions": str(questions)},
        )
        unknown = [name for name in names if name not in manager.task_index]
        if not unknown:
            return manager
    near = difflib.get_close_matches(unknown[0], manager.all_tasks, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "`lm_eval ls tasks` lists them."
    raise InputError(
        f"{KEY}: lm-evaluation-harness {version('lm-eval')} has no task '{unknown[0]}'. "
        f"Remedy: {hint}"
    )


def _load(manager: TaskManager, entry: Mapping) -> Benchmark:
    """One entry with its data; shots are set as the harness's own `simple_evaluate` sets them."""
    name = entry["task"]
    try:
        with _quiet():
            tasks = manager.load([name])["tasks"]
    except (OSError, ValueError, ImportError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{KEY}: the data of task '{name}' cannot be loaded ({reason}). Remedy: run it once "
            "with a network, which keeps them, install what is missing, remove the task, or set "
            "experiments.capability: false."
        ) from error
    for task in tasks.values():
        if getattr(task, "UNSAFE_CODE", False):
            raise InputError(
                f"{KEY}: '{name}' runs code that the model wrote. Remedy: remove the task."
            )
        if task.config.num_fewshot == 0 and entry["shots"]:
            raise InputError(f"{KEY}: '{name}' takes no examples. Remedy: shots: 0.")
        task.set_config(key="num_fewshot", value=entry["shots"])
    metric, _, answer_filter = entry["metric"].partition(",")
    return Benchmark(name, (metric, answer_filter or "none"), entry["chat"], entry["shots"], tasks)


# --- evaluation -------------------------------------------------------------------------------


def harness_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> HFLM:
    """The harness's wrapper around a loaded model; steering the model steers it.

    Made before any intervention is in force: it ties weights, which an edit may have untied.
    """
    with _quiet():
        return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def outcomes(lm: HFLM, benchmarks: Sequence[Benchmark], limit: int | None = None) -> pd.DataFrame:
    """How every item came out: columns task, item, value (0 or 1 if it is right or wrong), chance.

    `chance` is the share that guessing gets right, NaN where the task does not define it.

    Args:
        lm: the model under whatever steering is in force.
        benchmarks: the tasks.
        limit: items per task at most (of a group: of each of its tasks); None takes all.

    Raises:
        InputError: a task has no metric of this name.
    """
    return pd.concat([_outcomes(lm, one, limit) for one in benchmarks], ignore_index=True)


def _outcomes(lm: HFLM, benchmark: Benchmark, limit: int | None) -> pd.DataFrame:
    for task in benchmark.tasks.values():
        # The examples are drawn anew in every evaluation: without this, they would differ.
        task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    loaded = {"tasks": benchmark.tasks, "groups": {}, "group_map": {}}
    with _quiet():
        found = evaluate(
            lm=lm,
            task_dict=loaded,
            limit=limit,
            bootstrap_iters=0,
            apply_chat_template=benchmark.chat,
            fewshot_as_multiturn=benchmark.chat,
        )["samples"]
    metric, answer_filter = benchmark.metric
    rows = [
        (f"{name}/{sample['doc_id']}", sample[metric], len(sample["arguments"]))
        for name, samples in found.items()
        for sample in samples
        if sample["filter"] == answer_filter and metric in sample
    ]
    if not rows:
        known = {
            f"{m},{s['filter']}" for part in found.values() for s in part for m in s["metrics"]
        }
        raise InputError(
            f"{KEY}: '{benchmark.name}' has no metric '{','.join(benchmark.metric)}'. "
            f"Remedy: use one of {', '.join(sorted(known))}."
        )
    table = pd.DataFrame(rows, columns=["item", "value", "choices"])
    table["value"] = table["value"].astype(np.float64)
    # One request per choice; a task that is not right or wrong (mc2) has no such level.
    guessed = (table["choices"] > 1) & _is_binary(table["value"])
    table["chance"] = (1 / table["choices"]).where(guessed)
    table.insert(0, "task", benchmark.name)
    return table.drop(columns="choices")


def _is_binary(values: pd.Series) -> bool:
    return bool(values.isin([0, 1]).all())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness's progress bars and notes out of the log."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


# --- estimates --------------------------------------------------------------------------------


def capability_estimates(found: Mapping[str, pd.DataFrame], intervals: Intervals) -> pd.DataFrame:
    """Accuracy and its change from no intervention, by task and as the mean over tasks.

    Wilson's interval for a share of right answers; the bootstrap over items for anything else, with
    the items of every task resampled by themselves. Changes are paired by item. Every task counts
    the same in the mean.

    Args:
        found: `outcomes` by name of the intervention, all of the same items, `none` among them.

    Returns:
        Columns intervention, dataset (the task, or `tasks`), metric, judge, value, low, high, n,
        reason; n counts items, of the mean tasks.
    """
    base = _by_task(found[BASELINE])
    rows = []
    for name, table in found.items():
        values = _by_task(table)
        for metric in (ACCURACY, CHANGE):
            per_task = {
                task: right if metric == ACCURACY else right - base[task]
                for task, right in values.items()
            }
            rows += [(name, metric, *row) for row in _task_rows(per_task, metric, intervals)]
    columns = ["intervention", "metric", "dataset", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).assign(judge=JUDGE, reason=None)


def _by_task(table: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    groups = table.groupby("task", sort=False)["value"]
    return {task: values.to_numpy(np.float64) for task, values in groups}


def _task_rows(
    per_task: Mapping[str, NDArray[np.float64]], metric: str, intervals: Intervals
) -> Iterator[tuple[str, float, float, float, int]]:
    """(dataset, value, low, high, n) of every task, and of their mean."""
    resampled = []
    for number, (task, values) in enumerate(per_task.items()):
        # One seed per task: tasks of equal size are not resampled alike.
        own = replace(intervals, seed=intervals.seed + number)
        resampled.append(bootstrap_means(values, own))
        if metric == ACCURACY and np.isin(values, (0, 1)).all():
            bounds = wilson_interval(values.sum(), len(values), intervals.confidence)
        else:
            bounds = own.percentiles(resampled[-1])
        yield (task, *map(float, (values.mean(), *bounds)), len(values))
    low, high = intervals.percentiles(np.mean(resampled, axis=0))
    mean = np.mean([values.mean() for values in per_task.values()])
    yield (ALL_TASKS, float(mean), float(low), float(high), len(per_task))


def tasks_table(model: str, entries: Sequence[Mapping], found: pd.DataFrame) -> pd.DataFrame:
    """What was asked: one row per task with model, task, metric, shots, chat, n, chance.

    Args:
        model: name of the model.
        entries: the entries of `capability.tasks`.
        found: `outcomes` of one intervention.
    """
    groups = found.groupby("task", sort=False)
    counted = pd.DataFrame({"n": groups.size(), "chance": groups["chance"].mean()})
    settings = pd.DataFrame(list(entries))[["task", "metric", "shots", "chat"]]
    table = settings.merge(counted, left_on="task", right_index=True)
    table.insert(0, "model", model)
    return table
