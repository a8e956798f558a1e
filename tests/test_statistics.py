"""Intervals against closed forms, loops and scikit-learn; the three tables end to end."""

import time
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from refusal.errors import InputError
from refusal.statistics import (
    AGREEMENT_COLUMNS,
    COMPARISON_COLUMNS,
    SUMMARY_COLUMNS,
    Intervals,
    ModelResults,
    agreement,
    bootstrap_means,
    cohen_kappa,
    compare,
    draw_group,
    kappa_from_counts,
    mcnemar_exact,
    measurements,
    paired_bootstrap,
    perplexity,
    perplexity_ratio,
    student_mean,
    summarise,
    summarise_model,
    wilson_interval,
)

INTERVALS = Intervals(confidence=0.95, resamples=400, seed=7)


def rng(seed=0):
    return np.random.default_rng(seed)


# --- single estimates ---


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("n", [1, 7, 128])
def test_wilson_equals_scipy(n, confidence):
    successes = np.arange(n + 1)
    low, high = wilson_interval(successes, n, confidence)
    for k in successes:
        expected = stats.binomtest(int(k), n).proportion_ci(confidence, method="wilson")
        assert np.allclose([low[k], high[k]], expected, atol=1e-12)


def test_wilson_of_nothing_is_nan():
    assert np.isnan(wilson_interval(0, 0)).all()


def test_bootstrap_means_equal_explicit_resampling():
    values = rng().normal(size=(3, 20))
    counts = INTERVALS.counts(20)
    assert (counts.sum(1) == 20).all()
    for resample in (0, 1, 399):
        drawn = np.repeat(values, counts[resample].astype(int), axis=1)
        assert np.allclose(bootstrap_means(values, INTERVALS)[:, resample], drawn.mean(1))


def test_bootstrap_leaves_nan_out():
    values = rng().normal(size=20)
    holed = values.copy()
    holed[3] = np.nan
    counts = INTERVALS.counts(20)
    expected = [np.nanmean(np.repeat(holed, c.astype(int))) for c in counts[:10]]
    assert np.allclose(bootstrap_means(holed, INTERVALS)[:10], expected)


def test_paired_bootstrap_is_paired_seeded_and_near_the_normal_interval():
    base = rng(1).normal(scale=10, size=500)  # a large prompt effect, common to both sides
    noise = rng(2).normal(size=500)
    many = Intervals(resamples=4000)
    estimate = paired_bootstrap(base + 0.3 + noise, base, many)
    half = 1.96 * noise.std(ddof=1) / np.sqrt(500)
    assert np.isclose(estimate.value, 0.3 + noise.mean())
    assert np.allclose(
        [estimate.low, estimate.high], [estimate.value - half, estimate.value + half], atol=0.01
    )
    assert estimate == paired_bootstrap(base + 0.3 + noise, base, many)
    assert estimate != paired_bootstrap(base + 0.3 + noise, base, Intervals(seed=1, resamples=4000))


def test_paired_bootstrap_without_values_is_nan():
    assert np.isnan(paired_bootstrap([np.nan, 1.0], [1.0, np.nan], INTERVALS)).all()
    assert np.isnan(paired_bootstrap([], [], INTERVALS)).all()


@pytest.mark.parametrize("b,c", [(0, 0), (5, 0), (3, 9), (10, 10)])
def test_mcnemar_equals_the_binomial_sum(b, c):
    left = [1] * b + [0] * c + [1] * 4 + [np.nan]
    right = [0] * b + [1] * c + [1] * 4 + [1]
    n = b + c
    tail = sum(comb(n, k) for k in range(min(b, c) + 1)) / 2**n
    assert np.isclose(mcnemar_exact(left, right), min(1.0, 2 * tail))
    assert np.isclose(mcnemar_exact(left, right), mcnemar_exact(right, left))


def test_mcnemar_without_pairs_is_nan():
    assert np.isnan(mcnemar_exact([np.nan], [1]))


def test_kappa_equals_scikit_learn():
    for seed in range(5):
        a, b = (rng(seed).random((2, 60)) < [[0.3], [0.5]]).astype(float)
        b = np.where(rng(seed + 9).random(60) < 0.6, a, b)
        estimate = cohen_kappa(a, b, INTERVALS)
        assert np.isclose(estimate.value, cohen_kappa_score(a, b))
        assert estimate.low < estimate.value < estimate.high
        counts = INTERVALS.counts(60)[0].astype(int)
        drawn = cohen_kappa_score(np.repeat(a, counts), np.repeat(b, counts))
        x, y = np.repeat(a, counts).astype(bool), np.repeat(b, counts).astype(bool)
        cells = [(x & y).sum(), (x & ~y).sum(), (~x & y).sum(), (~x & ~y).sum()]
        assert np.isclose(kappa_from_counts(cells), drawn)


def test_kappa_of_constant_judges_is_nan():
    assert np.isnan(cohen_kappa([1, 1, 1], [1, 1, 1], INTERVALS).value)
    assert cohen_kappa([1, 1, 0, 0], [0, 0, 1, 1], INTERVALS).value == -1


def test_perplexity_equals_a_loop():
    nll, tokens = rng().uniform(1, 90, 30), rng(1).integers(1, 40, 30)
    estimate = perplexity(nll, tokens, INTERVALS)
    drawn = []
    for counts in INTERVALS.counts(30):
        total = sum(c * x for c, x in zip(counts, nll, strict=True))
        drawn.append(np.exp(total / sum(c * t for c, t in zip(counts, tokens, strict=True))))
    assert np.isclose(estimate.value, np.exp(nll.sum() / tokens.sum()))
    assert np.allclose(
        np.log(np.quantile(drawn, [0.025, 0.975])), np.log([estimate.low, estimate.high]), atol=1e-3
    )


def test_perplexity_ratio_is_paired():
    nll, tokens = rng().uniform(1, 90, 30), rng(1).integers(1, 40, 30)
    ratio = perplexity_ratio(nll + np.log(1.1) * tokens, tokens, nll, tokens, INTERVALS)
    assert np.allclose(ratio, 1.1)  # the same factor on every document: no uncertainty is left


def test_perplexity_with_a_missing_loss_is_nan():
    assert np.isnan(perplexity([1.0, np.inf], [1, 1], INTERVALS)).all()


def test_student_mean_equals_scipy():
    values = [0.2, 0.5, 0.4, 0.9]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert np.allclose(student_mean([*values, np.nan], 0.9), [np.mean(values), *expected])
    one = student_mean([0.3])
    assert one.value == 0.3 and np.isnan(one.low) and np.isnan(one.high)
    assert np.isnan(student_mean([np.nan])).all()


def test_bad_settings():
    with pytest.raises(InputError, match="statistics.confidence"):
        Intervals(confidence=95)
    with pytest.raises(InputError, match="statistics.resamples"):
        Intervals(resamples=0)


def test_draw_group():
    assert draw_group("random_ablation-draw12") == "random_ablation-draw*"
    assert draw_group("dim_ablation") is None


# --- tables ---


def recipe(name, **values):
    base = {
        "name": name,
        "family": name.split("-")[0],
        "direction": "dim",
        "operator": "project",
        "scope": "source",
        "k": 1,
        "rank": 1,
        "alpha": 1.0,
        "strength": None,
        "origin": "zero",
        "side": None,
        "draw": None,
    }
    return base | values


def score_frame(values_by_key, n):
    """values_by_key: (label, judge, metric) -> n values."""
    parts = [
        pd.DataFrame(
            {
                "id": [f"{label}-test-{i:04d}" for i in range(n)],
                "label": label,
                "judge": judge,
                "metric": metric,
                "value": np.asarray(values, dtype=float),
                "reason": [None if np.isfinite(v) else "no keywords" for v in values],
            }
        )
        for (label, judge, metric), values in values_by_key.items()
    ]
    return pd.concat(parts, ignore_index=True)


def loss_frame(seed, scale=1.0, n=12):
    generator = rng(99)  # the same documents for every intervention
    tokens = generator.integers(5, 30, n)
    nll = tokens * generator.uniform(0.5, 1.5, n) * scale
    text = pd.DataFrame(
        {
            "corpus": "text",
            "id": [f"text-{i}" for i in range(n)],
            "nll": nll,
            "tokens": tokens,
            "exact": None,
        }
    )
    capability = pd.DataFrame(
        {
            "corpus": "capability",
            "id": [f"cap-{i}" for i in range(n)],
            "nll": 1.0,
            "tokens": 2,
            "exact": rng(seed).random(n) < 0.7,
        }
    )
    kl = pd.DataFrame(
        {
            "corpus": "kl",
            "id": [f"harmless-test-{i}" for i in range(n)],
            "nll": rng(seed).random(n),
            "tokens": 1,
            "exact": None,
        }
    )
    return pd.concat([text, capability, kl], ignore_index=True)


NAMES = ["none", "dim_ablation", *[f"random_ablation-draw{d}" for d in range(3)]]


def model_results(seed, n=40):
    generator = rng(seed)
    rates = {"none": 0.9, "dim_ablation": 0.1}
    scores, losses, recipes = {}, {}, {}
    for i, name in enumerate(NAMES):
        refused = (generator.random(n) < rates.get(name, 0.8)).astype(float)
        noisy = np.where(generator.random(n) < 0.9, refused, 1 - refused)
        scores[name] = score_frame(
            {
                ("harmful", "substring", "refused"): noisy,
                ("harmful", "oracle", "refused"): refused,
                ("harmful", "length", "tokens"): generator.integers(4, 30, n),
                ("borderline", "oracle", "refused"): np.full(n, np.nan),
            },
            n,
        )
        losses[name] = loss_frame(seed + i, scale=1 + 0.02 * i)
        draw = int(name[-1]) if "draw" in name else None
        recipes[name] = recipe(
            name,
            draw=draw,
            k="full" if draw is not None else 1,
            rank=3 + seed if draw is not None else 1,
        )
    return ModelResults(recipes, scores, losses)


@pytest.fixture(scope="module")
def models():
    return {"neox-0": model_results(0), "llama-0": model_results(1), "gemma-0": model_results(2)}


@pytest.fixture(scope="module")
def summary(models):
    return summarise("organisms", models, INTERVALS)


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1, f"{len(table)} rows for {where}"
    return table.iloc[0]


def values_of(models, model, name, label, judge, metric):
    rows = models[model].scores[name]
    pick = (rows["label"] == label) & (rows["judge"] == judge) & (rows["metric"] == metric)
    return rows.loc[pick, "value"].to_numpy()


def test_summary_schema(summary):
    assert list(summary.columns) == SUMMARY_COLUMNS
    keys = ["study", "model", "intervention", "dataset", "metric", "judge"]
    assert not summary.duplicated(keys).any()
    assert set(summary["model"]) == {"neox-0", "llama-0", "gemma-0", "mean"}
    assert summary["k"].map(lambda k: k is None or isinstance(k, str)).all()
    assert (summary["low"].isna() | (summary["low"] <= summary["value"] + 1e-12)).all()
    assert (summary["high"].isna() | (summary["high"] >= summary["value"] - 1e-12)).all()


def test_summary_survives_parquet(summary, tmp_path):
    summary.to_parquet(tmp_path / "summary.parquet")
    read = pd.read_parquet(tmp_path / "summary.parquet")
    left, right = (t.astype(object).where(t.notna(), "null") for t in (read, summary))
    assert (left == right).all(axis=None)


def test_rate_and_change_rows(models, summary):
    where = {
        "model": "neox-0",
        "intervention": "dim_ablation",
        "dataset": "harmful",
        "judge": "oracle",
    }
    steered = values_of(models, "neox-0", "dim_ablation", "harmful", "oracle", "refused")
    base = values_of(models, "neox-0", "none", "harmful", "oracle", "refused")
    rate = one(summary, metric="refused", **where)
    assert rate["n"] == 40 and np.isclose(rate["value"], steered.mean())
    assert np.allclose([rate["low"], rate["high"]], wilson_interval(steered.sum(), 40))
    change = one(summary, metric="refused_change", **where)
    assert np.allclose(
        [change["value"], change["low"], change["high"]], paired_bootstrap(steered, base, INTERVALS)
    )


def test_baseline_changes_are_zero_and_ratios_one(summary):
    none = summary[(summary["intervention"] == "none") & (summary["model"] != "mean")]
    changes = none[none["metric"].str.endswith("_change") & none["value"].notna()]
    assert len(changes) and (changes[["value", "low", "high"]] == 0).all(axis=None)
    assert (none.loc[none["metric"] == "perplexity_ratio", ["value", "low", "high"]] == 1).all(None)


def test_unjudged_rows_are_nan_with_reason(summary):
    rows = summary[summary["dataset"] == "borderline"]
    assert len(rows) and rows[["value", "low", "high"]].isna().all(axis=None)
    assert (rows["n"] == 0).all() and rows["reason"].notna().all()
    assert "40 of 40 not judged: no keywords" in set(rows["reason"])


def test_tokens_perplexity_capability_and_kl(models, summary):
    where = {"model": "llama-0", "intervention": "dim_ablation"}
    losses = models["llama-0"].losses
    tokens = values_of(models, "llama-0", "dim_ablation", "harmful", "length", "tokens")
    assert np.isclose(one(summary, metric="tokens", **where)["value"], tokens.mean())
    text, base = (losses[name].query("corpus == 'text'") for name in ("dim_ablation", "none"))
    row = one(summary, metric="perplexity", dataset="text", judge="model", **where)
    expected = perplexity(text["nll"], text["tokens"], INTERVALS)
    assert np.allclose([row["value"], row["low"], row["high"]], expected)
    row = one(summary, metric="cross_entropy", dataset="text", judge="model", **where)
    assert np.isclose(row["value"], text["nll"].sum() / text["tokens"].sum(), rtol=1e-12)
    assert np.allclose([row["value"], row["low"], row["high"]], np.log(expected))
    row = one(summary, metric="perplexity_ratio", dataset="text", **where)
    expected = perplexity_ratio(text["nll"], text["tokens"], base["nll"], base["tokens"], INTERVALS)
    assert np.allclose([row["value"], row["low"], row["high"]], expected)
    exact = losses["dim_ablation"].query("corpus == 'capability'")["exact"].astype(float)
    row = one(summary, metric="capability", dataset="capability", judge="model", **where)
    assert np.allclose(
        [row["value"], row["low"], row["high"]],
        [exact.mean(), *wilson_interval(exact.sum(), len(exact))],
    )
    kl = losses["dim_ablation"].query("corpus == 'kl'")["nll"]
    row = one(summary, metric="kl", dataset="harmless", **where)
    assert np.isclose(row["value"], kl.mean()) and row["low"] < row["value"] < row["high"]


def test_a_document_without_finite_loss_makes_the_perplexity_nan():
    results = model_results(0)
    losses = results.losses["dim_ablation"].copy()
    losses.loc[0, "nll"] = np.nan
    changed = ModelResults(
        results.recipes, results.scores, {**results.losses, "dim_ablation": losses}
    )
    rows = summarise_model("s", "m", changed, INTERVALS)
    row = one(rows, intervention="dim_ablation", metric="perplexity")
    assert np.isnan(row["value"]) and row["reason"] == "1 of 12 documents have no finite loss"
    assert np.isfinite(one(rows, intervention="none", metric="perplexity")["value"])


def test_mean_rows_are_student_over_models(models, summary):
    where = {
        "intervention": "dim_ablation",
        "dataset": "harmful",
        "judge": "oracle",
        "metric": "refused_change",
    }
    per_model = [one(summary, model=model, **where)["value"] for model in models]
    row = one(summary, model="mean", **where)
    assert row["n"] == 3
    expected = student_mean(per_model)
    assert np.allclose(
        [row["value"], row["low"], row["high"]],
        [expected.value, max(-1, expected.low), min(1, expected.high)],
    )


def test_mean_of_ratios_is_geometric_and_perplexity_is_not_averaged(models, summary):
    where = {"intervention": "dim_ablation", "dataset": "text", "metric": "perplexity_ratio"}
    logs = [np.log(one(summary, model=model, **where)["value"]) for model in models]
    row = one(summary, model="mean", **where)
    assert np.allclose([row["value"], row["low"], row["high"]], np.exp(student_mean(logs)))
    assert "perplexity" not in set(summary.loc[summary["model"] == "mean", "metric"])


def test_mean_of_cross_entropies_is_plain(models, summary):
    where = {"intervention": "dim_ablation", "dataset": "text", "metric": "cross_entropy"}
    values = [one(summary, model=model, **where)["value"] for model in models]
    row = one(summary, model="mean", **where)
    assert np.allclose([row["value"], row["low"], row["high"]], student_mean(values))


def test_draw_group_rows(models, summary):
    where = {"dataset": "harmful", "judge": "oracle", "metric": "refused_change"}
    draws = [
        one(summary, model="neox-0", intervention=name, **where)["value"]
        for name in NAMES
        if "draw" in name
    ]
    group = one(summary, model="neox-0", intervention="random_ablation-draw*", **where)
    assert group["n"] == 3 and pd.isna(group["draw"])
    expected = student_mean(draws)
    assert np.allclose(
        [group["value"], group["low"], group["high"]],
        [expected.value, max(expected.low, -1), min(expected.high, 1)],
    )
    over = one(summary, model="mean", intervention="random_ablation-draw*", **where)
    per_model = [
        one(summary, model=m, intervention="random_ablation-draw*", **where)["value"]
        for m in models
    ]
    assert np.isclose(over["value"], np.mean(per_model))
    assert over["rank"] == 4 and over["k"] == "full"


def test_one_model_has_no_interval_over_models(models):
    table = summarise("s", {"neox-0": models["neox-0"]}, INTERVALS)
    row = one(
        table,
        model="mean",
        intervention="none",
        dataset="harmful",
        judge="oracle",
        metric="refused",
    )
    assert np.isfinite(row["value"]) and np.isnan(row["low"]) and np.isnan(row["high"])
    assert row["n"] == 1 and "no interval" in row["reason"]


def test_extra_rows_are_averaged_too(models, summary):
    rows = summary[
        (summary["model"] != "mean")
        & (summary["metric"] == "refused")
        & (summary["intervention"] == "none")
        & (summary["judge"] == "oracle")
        & (summary["dataset"] == "harmful")
    ].assign(metric="landing_t", judge="geometry")
    table = summarise("organisms", models, INTERVALS, extra=[rows])
    mean = one(table, model="mean", metric="landing_t")
    assert mean["n"] == 3 and np.isclose(mean["value"], rows["value"].mean())


def test_missing_baseline_is_an_input_error(models):
    results = models["neox-0"]
    recipes = {name: r for name, r in results.recipes.items() if name != "none"}
    with pytest.raises(InputError, match="'none' is missing for model neox-0"):
        summarise_model("s", "neox-0", ModelResults(recipes, results.scores), INTERVALS)


def test_interventions_that_were_not_measured_have_no_rows():
    results = model_results(0)
    scores = {name: frame for name, frame in results.scores.items() if name != "dim_ablation"}
    rows = summarise_model("s", "m", ModelResults(results.recipes, scores), INTERVALS)
    assert "dim_ablation" not in set(rows["intervention"]) and "none" in set(rows["intervention"])


def test_comparisons(models):
    pairs = [("dim_ablation", "none"), ("dim_ablation", "random_ablation-draw*")]
    pairs.append(pairs[0])
    table = compare("organisms", models, pairs, INTERVALS)
    assert list(table.columns) == COMPARISON_COLUMNS
    where = {"dataset": "harmful", "metric": "refused", "judge": "oracle", "left": "dim_ablation"}
    sides = {
        name: values_of(models, "llama-0", name, "harmful", "oracle", "refused") for name in NAMES
    }
    row = one(table, model="llama-0", right="none", **where)
    assert np.allclose(
        [row["difference"], row["low"], row["high"]],
        paired_bootstrap(sides["dim_ablation"], sides["none"], INTERVALS),
    )
    assert np.isclose(row["p_value"], mcnemar_exact(sides["dim_ablation"], sides["none"]))
    group = one(table, model="llama-0", right="random_ablation-draw*", **where)
    mean = np.mean([sides[name] for name in NAMES if "draw" in name], axis=0)
    assert np.isclose(group["difference"], (sides["dim_ablation"] - mean).mean())
    assert np.isnan(group["p_value"])
    over = one(table, model="mean", right="none", **where)
    per_model = [one(table, model=m, right="none", **where)["difference"] for m in models]
    assert np.isclose(over["difference"], np.mean(per_model)) and over["n"] == 3


def test_compared_perplexity_ratios(models, summary):
    table = compare("organisms", models, [("dim_ablation", "none")], INTERVALS)
    where = {"model": "gemma-0", "dataset": "text", "metric": "perplexity_ratio"}
    ratio = one(summary, intervention="dim_ablation", **where)
    row = one(table, **where)
    assert np.allclose(
        row[["difference", "low", "high"]].astype(float) + 1,
        ratio[["value", "low", "high"]].astype(float),
    )


def test_both_sides_of_a_perplexity_comparison_are_resampled_together(models):
    table = compare("s", models, [("random_ablation-draw2", "dim_ablation")], INTERVALS)
    row = one(table, model="gemma-0", dataset="text", metric="perplexity_ratio")
    text = {name: loss.query("corpus == 'text'") for name, loss in models["gemma-0"].losses.items()}
    counts = INTERVALS.counts(12)
    tokens = counts @ text["none"]["tokens"].to_numpy(dtype=float)

    def ratio(name):
        return np.exp(counts @ (text[name]["nll"] - text["none"]["nll"]).to_numpy() / tokens)

    drawn = np.quantile(ratio("random_ablation-draw2") - ratio("dim_ablation"), [0.025, 0.975])
    assert np.allclose([row["low"], row["high"]], drawn)


def test_unknown_comparison_is_an_input_error(models):
    with pytest.raises(InputError, match="statistics.comparisons: unknown intervention 'dim_abl'"):
        compare("s", models, [("dim_abl", "none")], INTERVALS)


def test_agreement_table(models):
    table = agreement(models, INTERVALS)
    assert list(table.columns) == AGREEMENT_COLUMNS
    row = one(table, model="neox-0", dataset="harmful")
    a, b = (
        np.concatenate(
            [values_of(models, "neox-0", name, "harmful", judge, "refused") for name in NAMES]
        )
        for judge in ("substring", "oracle")
    )
    assert (row["judge_a"], row["judge_b"]) == ("substring", "oracle")
    assert np.isclose(row["kappa"], cohen_kappa_score(a, b)) and row["low"] < row["kappa"]
    assert row["n"] == len(a) == row["both"] + row["only_a"] + row["only_b"] + row["neither"]
    assert row["only_a"] == ((a == 1) & (b == 0)).sum()
    pooled = one(table, model="all", dataset="harmful")
    assert pooled["n"] == 3 * len(a)


def test_agreement_bootstrap_resamples_prompts_not_completions(models):
    """Identical copies of an intervention add no information: the interval must not shrink."""
    results = models["neox-0"]
    base = results.scores["none"]
    single = ModelResults({"none": recipe("none")}, {"none": base})
    copies = {f"copy-{i}": base for i in range(20)}
    many = ModelResults({name: recipe(name) for name in copies}, copies)
    rows = [
        agreement({"m": r}, INTERVALS).query("model == 'm' and dataset == 'harmful'").iloc[0]
        for r in (single, many)
    ]
    assert np.allclose(
        rows[0][["kappa", "low", "high"]].astype(float),
        rows[1][["kappa", "low", "high"]].astype(float),
    )


def test_prompts_are_paired_by_id_not_by_row():
    results = model_results(3)
    shuffled = {
        name: frame.sample(frac=1, random_state=1) for name, frame in results.scores.items()
    }
    plain = measurements(results)["harmful", "refused", "oracle"]
    mixed = measurements(ModelResults(results.recipes, shuffled))["harmful", "refused", "oracle"]
    order = np.argsort(plain.ids), np.argsort(mixed.ids)
    assert (plain.values[:, order[0]] == mixed.values[:, order[1]]).all()


def test_speed_at_a_tenth_of_the_full_size():
    """Full size (100 interventions, 4 models, 3 datasets, 7 metrics) must stay below 30 s."""
    n, names = 128, ["none", *[f"x{i}" for i in range(39)]]
    metrics = [
        ("substring", "refused"),
        ("prefix", "refused"),
        ("oracle", "refused"),
        ("oracle", "complied"),
        ("oracle", "other"),
        ("repetition", "looping"),
        ("length", "tokens"),
    ]
    keys = [
        (label, *metric) for label in ("harmful", "harmless", "borderline") for metric in metrics
    ]
    scores = {
        name: score_frame({key: rng(i).integers(0, 2, n) for key in keys}, n)
        for i, name in enumerate(names)
    }
    results = ModelResults({name: recipe(name) for name in names}, scores)
    start = time.process_time()
    summarise("s", {"m": results}, Intervals(resamples=2000))
    assert time.process_time() - start < 6
