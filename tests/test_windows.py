"""Windows of layers: which are run, which is chosen, and what the summary says of it."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import N_LAYERS, WIDTH, save_tiny_checkpoint, tiny_model

import measure_windows
from refusal.directions import Direction, save_directions
from refusal.errors import InputError
from refusal.generations import generate
from refusal.interventions import Intervention, Operator, steering
from refusal.models import encode_prompts, model_card
from refusal.statistics import SUMMARY_COLUMNS, Intervals, wilson_interval
from refusal.windows import (
    MAP_COLUMNS,
    NO_WINDOW,
    choose_window,
    kinds_of_window,
    matrix,
    window_map,
    windows,
    windows_summary,
)

INTERVALS = Intervals(resamples=300, seed=1)
RECIPES = {"none": {"family": "baseline", "operator": "none", "scope": "source"}}
LAYERS = 4


def scores(rates: dict, n: int = 20, judges=("oracle",), seed: int = 0) -> pd.DataFrame:
    """Refusals of n prompts per split and label: the first share of them that `rates` gives."""
    generator = np.random.default_rng(seed)
    rows = []
    for window in windows(LAYERS):
        for split, label in (("validation", "harmful"), ("test", "harmful"), ("test", "harmless")):
            rate = rates.get((split, label, window), rates.get((split, label), 0.9))
            for index in generator.permutation(n):
                refused = float(index < round(rate * n))
                at = {"start": window[0], "length": window[1], "split": split, "label": label}
                at |= {"id": f"{label}-{split}-{index}", "reason": None}
                for judge in judges:
                    rows.append(at | {"judge": judge, "metric": "refused", "value": refused})
                    rows.append(at | {"judge": judge, "metric": "complied", "value": 1 - refused})
    return pd.DataFrame(rows)


def test_every_window_is_run_once_between_none_and_all():
    run = windows(LAYERS)
    assert run[0] == NO_WINDOW and run[-1] == (0, LAYERS)
    assert set(run[1:]) == {(s, n) for n in range(1, 5) for s in range(4) if s + n <= LAYERS}
    assert len(set(run)) == len(run) == 1 + 10


def test_chosen_lengths_always_include_all_layers_and_no_longer_ones():
    assert windows(LAYERS, [2, 9]) == [NO_WINDOW, (0, 2), (1, 2), (2, 2), (0, 4)]
    assert windows(1) == [NO_WINDOW, (0, 1)]


def test_local_is_at_most_half():
    assert kinds_of_window(5) == {"best_window": 4, "local_window": 2}


def test_the_map_holds_rates_with_wilson_intervals():
    table = scores({("test", "harmful", (1, 2)): 0.25})
    rows = window_map("m", table, INTERVALS)
    assert list(rows.columns) == MAP_COLUMNS
    row = rows.query("split == 'test' and label == 'harmful' and start == 1 and length == 2")
    row = row[row["metric"] == "refused"].iloc[0]
    assert row["value"] == 0.25 and row["n"] == 20
    assert np.allclose([row["low"], row["high"]], wilson_interval(5, 20, 0.95))


def test_what_no_judge_could_judge_is_left_out_of_map_and_summary():
    table = scores({}, judges=("oracle", "substring"))
    table.loc[table["judge"] == "oracle", "value"] = np.nan
    assert set(window_map("m", table, INTERVALS)["judge"]) == {"substring"}
    summary = windows_summary("s", "m", table, LAYERS, RECIPES, INTERVALS)
    assert set(summary["judge"]) == {"substring"}


def test_matrix_aligns_prompts_however_the_rows_are_ordered():
    table = scores({("test", "harmful", (0, 1)): 0.5})
    values = matrix(table.sample(frac=1, random_state=0), "test", "harmful", "oracle", "refused")
    assert all(
        np.array_equal(values[w], row)
        for w, row in matrix(table, "test", "harmful", "oracle", "refused").items()
    )
    assert values[0, 1].mean() == 0.5 and values[0, 2].mean() == 0.9


def test_of_equal_windows_the_shortest_then_first_is_chosen():
    refused = {(0, 2): np.array([0.0, 1, 1]), (2, 1): np.array([1.0, 0, 1])}
    refused |= {(1, 1): np.array([1.0, 1, 0]), (0, 3): np.zeros(3), NO_WINDOW: np.zeros(3)}
    assert choose_window(refused, 2, INTERVALS)[0] == (1, 1)
    assert choose_window(refused, 3, INTERVALS)[0] == (0, 3)
    assert choose_window({NO_WINDOW: np.zeros(3)}, 2, INTERVALS) is None


def test_resampled_choices_equal_a_plain_loop():
    generator = np.random.default_rng(3)
    refused = {(0, 1): generator.integers(0, 2, 12), (1, 1): generator.integers(0, 2, 12)}
    refused = {window: row.astype(float) for window, row in refused.items()}
    _, chosen = choose_window(refused, 1, INTERVALS)
    counts = INTERVALS.counts(12)
    for resample, choice in zip(counts, chosen, strict=True):
        totals = [round(float(resample @ refused[window]), 6) for window in ((0, 1), (1, 1))]
        assert choice[0] == (1 if totals[1] < totals[0] else 0)


def test_the_window_is_chosen_on_validation_and_measured_on_test():
    rates = {
        ("validation", "harmful", (1, 1)): 0.1,  # the choice
        ("test", "harmful", (1, 1)): 0.5,
        ("test", "harmful", (2, 1)): 0.0,  # better on test prompts, which must not matter
        ("test", "harmful", (0, 4)): 0.2,
        ("test", "harmless"): 0.05,
    }
    summary = windows_summary("s", "m", scores(rates), LAYERS, RECIPES, INTERVALS)
    assert list(summary.columns) == SUMMARY_COLUMNS
    at = summary[summary["dataset"] == "harmful"].set_index("metric")
    assert (at.loc["local_window_start", "value"], at.loc["local_window_length", "value"]) == (1, 1)
    expected = {
        "no_window_refused": 0.9,
        "all_layers_refused": 0.2,
        "all_layers_refused_change": -0.7,
        "local_window_refused": 0.5,
        "local_window_refused_change": -0.4,
        "local_window_refused_difference": 0.3,
        "best_window_complied": 0.5,
    }
    for metric, value in expected.items():
        assert np.isclose(at.loc[metric, "value"], value), metric
        assert at.loc[metric, "low"] < value < at.loc[metric, "high"]
    harmless = summary[summary["dataset"] == "harmless"].set_index("metric")
    assert np.isclose(harmless.loc["best_window_refused", "value"], 0.05)
    assert set(summary["intervention"]) == {"none"}


def test_without_a_window_of_a_kind_the_summary_says_so():
    table = scores({})
    table = table[table["length"].isin([0, 3, 4])]
    summary = windows_summary("s", "m", table, LAYERS, RECIPES, INTERVALS).set_index("metric")
    row = summary.loc["local_window_length"]
    assert np.isnan(row["value"]) and row["n"] == 0 and "at most 2 layers" in row["reason"]
    missing = summary.loc[["local_window_refused"]]
    assert missing["value"].isna().all() and (missing["reason"] == "no such window was run").all()
    assert summary.loc["best_window_length", "value"] == 3


# --- the job, on every architecture ---


@pytest.fixture
def study(tmp_path, architecture):
    """A fake job on a tiny checkpoint with a random direction, and its model."""
    checkpoint = save_tiny_checkpoint(tmp_path, architecture)
    model, tokenizer = tiny_model(architecture)
    card = model_card(model, tokenizer, name="m", path=checkpoint, refusal_tokens=[5])
    files = {name: tmp_path / name for name in ("card.json", "none.json")}
    files["card.json"].write_text(json.dumps(card))
    files["none.json"].write_text(json.dumps(RECIPES["none"]))
    rows = [
        {"id": f"{label}-{split}-{i}", "text": f"{label} {i}", "label": label, "split": split}
        for label in ("harmful", "harmless", "text")
        for split in ("train", "validation", "test")
        for i in range(3)
    ]
    pd.DataFrame(rows).assign(keywords=None).to_parquet(tmp_path / "prompts.parquet")
    basis = torch.nn.functional.normalize(torch.randn(1, WIDTH, generator=torch.manual_seed(0)))
    save_directions(tmp_path / "dim.npz", {(-1, 1): Direction(basis)})
    chosen = {"scope": ["source", "all"], "position": -1, "layer": [0, 1], "selected": True}
    pd.DataFrame(chosen).to_parquet(tmp_path / "dim.parquet")
    return SimpleNamespace(
        input=SimpleNamespace(
            card=[files["card.json"]],
            prompts=[tmp_path / "prompts.parquet"],
            directions=tmp_path / "dim.npz",
            selection=tmp_path / "dim.parquet",
            recipe=files["none.json"],
        ),
        output=SimpleNamespace(map=tmp_path / "map.parquet", summary=tmp_path / "summary.parquet"),
        params=SimpleNamespace(
            study="s",
            model={},
            windows={"lengths": None, "prompts": 2},
            generations={"max_new_tokens": 4, "max_tokens": 500},
            judges=["substring", "oracle", "length"],
            grammar=False,
            settings={"confidence": 0.95, "resamples": 50},
            seed=0,
        ),
        wildcards=SimpleNamespace(model="m"),
        basis=basis,
    )


def test_the_job_measures_every_window_of_any_architecture(study):
    measure_windows.main(study)
    table = pd.read_parquet(study.output.map)
    assert len(table[["start", "length"]].drop_duplicates()) == len(windows(N_LAYERS))
    assert set(table["judge"]) == {"substring"}  # the oracle does not know this model's refusals
    assert (table[table["split"] == "test"]["n"] == 2).all()
    assert (table[table["split"] == "validation"]["n"] == 3).all()
    assert set(table["label"]) == {"harmful", "harmless"}
    summary = pd.read_parquet(study.output.summary)
    assert "all_layers_refused" in set(summary["metric"])


def test_a_window_of_all_layers_completes_as_ablation_everywhere(study, architecture, monkeypatch):
    seen = {}

    def keep(tokenizer, ids, completions):
        seen.setdefault("tokens", []).append([c.tokens for c in completions])
        return real(tokenizer, ids, completions)

    real = measure_windows.completions_table
    monkeypatch.setattr(measure_windows, "completions_table", keep)
    measure_windows.main(study)
    model, tokenizer = tiny_model(architecture)
    prompts = pd.read_parquet(study.input.prompts[0])
    chosen = measure_windows._chosen_prompts(prompts, 2)
    with steering(model, Intervention(Operator.project(study.basis), "all", 1)):
        expected = generate(
            model,
            encode_prompts(tokenizer, list(chosen.text)),
            eos_ids=[tokenizer.eos_token_id],
            pad_id=tokenizer.pad_token_id,
            max_new_tokens=4,
            max_tokens=500,
        )
    everywhere = [completion.tokens for completion in expected]
    assert seen["tokens"][-1] == everywhere and seen["tokens"][0] != everywhere


def test_unknown_blocks_are_refused_with_the_key_of_the_experiment(monkeypatch):
    def unknown(model):
        raise InputError("odd: no known MLP module. Remedy: add its name.")

    monkeypatch.setattr(measure_windows, "write_modules", unknown)
    with pytest.raises(InputError, match=r"odd.*experiments\.windows: false"):
        measure_windows._require_writes(None)
