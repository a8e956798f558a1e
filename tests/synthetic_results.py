"""Invented result tables in the schemas of the workflow, for tests of figures, tables and paper.

Nothing here was measured. A `Scenario` fixes how strongly each intervention is made to act, so
that a test can ask for a study in which every published claim holds, or fails, or is not measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd
import synthetic_kinds
from synthetic_kinds import (  # noqa: F401  frames are looked up here by their names
    kinds_ablation,
    kinds_behaviour,
    kinds_cosines,
    kinds_span,
    kinds_stability,
    knob_cells,
    knob_chosen,
    knob_curves,
    sparse_features_sharing,
    styles_confusion,
    styles_distribution,
)
from synthetic_planted import (  # noqa: F401  the same
    planted_methods,
    planted_organisms,
    planted_parts,
    planted_rates,
    planted_recovery,
)

STUDY = "synthetic"
MODELS = ("neox-0", "neox-1", "llama-0", "gemma2-0")
ARCHITECTURES = {"neox": "gpt_neox", "llama": "llama", "gemma2": "gemma2"}
DATASETS = ("harmful", "harmless", "borderline")
JUDGES = ("substring", "prefix", "oracle")
CLAIMS = ("B1", "B2", "B3", "B4", "B5", "A1", "A2", "D1")
POSITIONS = (-3, -2, -1)
LAYERS = (0, 1, 2, 3)
KS = ("1", "2", "4", "8", "16", "full")
ALPHAS = (0.25, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Scenario:
    """How the invented study behaves: refusal of harmful prompts left by each kind of operator."""

    verdict: str = "supported"
    ablation: float = 0.05
    projection: float = 0.55
    flipping: float = 0.06
    addition: float = 0.95
    models: tuple[str, ...] = MODELS
    families: tuple[str, ...] | None = None
    fallback: bool = False
    seed: int = 0
    extra: dict = field(default_factory=dict)


SUPPORTED = Scenario()
CONTRADICTED = Scenario("contradicted", ablation=0.8, projection=0.1, flipping=0.7, addition=0.1)
ONE_MODEL = Scenario(models=("neox-0",))
UNMEASURED = Scenario(
    "not measured",
    models=("neox-0", "llama-0"),
    families=("none", "dim_ablation"),
    fallback=True,
)


def _recipe(family: str, name: str, direction: str | None, operator: str, **keys) -> dict:
    empty = {
        "k": None,
        "rank": None,
        "alpha": None,
        "strength": None,
        "origin": None,
        "side": None,
        "draw": None,
        "scope": "source",
    }
    base = {"family": family, "intervention": name, "direction": direction, "operator": operator}
    return base | empty | keys


def _dim(family: str, suffix: str = "", **keys) -> dict:
    """A projection of DiM: rank one, alpha 1 unless told otherwise."""
    rank_one = {"k": "1", "rank": 1, "alpha": 1.0}
    return _recipe(family, family + suffix, "dim", "project", **(rank_one | keys))


def _dim_recipes() -> list[dict]:
    none = _recipe("none", "none", None, "none", scope=None)
    additions = [
        _recipe("dim_addition", f"dim_addition-strength{s}", "dim", "add", k="1", strength=s)
        for s in (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
    ]
    return [
        none,
        _dim("dim_ablation", scope="all"),
        _dim("dim_ablation_source"),
        *additions,
        *(_dim("dim_reflection", f"-{s}", alpha=2.0, scope=s) for s in ("source", "writes")),
        *(_dim("dim_alpha", f"-alpha{a}", alpha=a) for a in ALPHAS),
        *(_dim("affine_ablation", f"-{o}", origin=o) for o in ("harmless", "midpoint")),
        _dim("dim_set_harmful", origin="harmful"),
        _recipe("dim_add_harmful", "dim_add_harmful", "dim", "add", strength=1.0, length="harmful"),
        *(
            _dim("dim_ablation_tokens", f"-{tokens}", scope="all", tokens=tokens)
            for tokens in ("prompt", "last", "generated")
        ),
    ]


def _subspace(family: str, suffix: str, direction: str, operator: str = "project", **keys) -> dict:
    """An operator on a subspace; "full" rank is 12, alpha 1 unless told otherwise."""
    keys = {"k": "full", "alpha": 1.0} | keys
    keys["rank"] = 12 if keys["k"] == "full" else int(keys["k"])
    return _recipe(family, family + suffix, direction, operator, **keys)


def _inlp_recipes() -> list[dict]:
    rows = []
    for direction, stem in (("inlp_faithful", "inlp"), ("inlp_corrected", "inlp_corrected")):
        for operator, alpha, wide in (("projection", 1.0, "all"), ("flipping", 2.0, "writes")):
            scopes = ("source", wide) if stem == "inlp" else ("source",)
            rows += [
                _subspace(f"{stem}_{operator}", f"-k{k}-{s}", direction, k=k, alpha=alpha, scope=s)
                for k in KS
                for s in scopes
            ]
    alphas = [_subspace("inlp_alpha", f"-alpha{a}", "inlp_faithful", alpha=a) for a in ALPHAS]
    return rows + alphas


def _random_recipes() -> list[dict]:
    rows = []
    for draw in range(5):
        suffix, rank_one = f"-draw{draw}", {"k": "1", "draw": draw}
        rows.append(_subspace("random_ablation", suffix, "random", scope="all", **rank_one))
        name = f"random_addition{suffix}"
        addition = {"strength": 1.0} | rank_one
        rows.append(_recipe("random_addition", name, "random", "add", **addition))
        rows += [
            _subspace(f"random_{name}", f"-k{k}{suffix}", "random", k=k, alpha=alpha, draw=draw)
            for name, alpha in (("projection", 1.0), ("flipping", 2.0))
            for k in ("8", "full")
        ]
    return rows


def _other_recipes() -> list[dict]:
    inlp, first = "inlp_faithful", "inlp_first_addition"
    return [
        *(
            _subspace("alterrep", f"-{s}", inlp, "alterrep", side=s)
            for s in ("harmless", "harmful")
        ),
        *(_subspace("affine_inlp", f"-{o}", inlp, origin=o) for o in ("harmless", "midpoint")),
        *(
            _recipe(first, f"{first}-strength{s}", inlp, "add", k="1", strength=s)
            for s in (-1.0, 1.0)
        ),
        _recipe("leace", "leace", "leace", "erase", k="1", rank=1, alpha=1.0),
        *_random_recipes(),
        _recipe("fine_tuning", "fine_tuning", None, "fine_tune"),
    ]


def recipe_list(scenario: Scenario) -> list[dict]:
    """Every intervention of the invented study, as rows of recipe columns."""
    rows = _dim_recipes() + _inlp_recipes() + _other_recipes()
    if scenario.families is not None:
        rows = [row for row in rows if row["family"] in scenario.families]
    return rows


def _progress(recipe: dict) -> float:
    """Share of the full effect that a restricted rank reaches."""
    ranks = {"1": 0.3, "2": 0.5, "4": 0.8, "8": 0.95, "16": 1.0, "full": 1.0}
    return 1.0 if recipe["direction"] == "dim" else ranks.get(str(recipe["k"]), 1.0)


def _harmful(recipe: dict, scenario: Scenario) -> float:
    base, direction, operator = 0.96, recipe["direction"], recipe["operator"]
    if operator == "none" or direction == "random":
        return base
    if operator == "fine_tune":
        return 0.0
    if operator == "add":
        strength = recipe["strength"]
        return base if strength > 0 else max(0.03, base + 0.7 * strength)
    alpha = recipe["alpha"] or 1.0
    if direction == "dim":
        target = scenario.ablation
        return base + (target - base) * min(alpha, 1.0)
    if operator == "alterrep" and recipe["side"] == "harmful":
        return 0.99
    target = scenario.flipping if alpha == 2 or operator == "alterrep" else scenario.projection
    scale = alpha / 2 if alpha > 1 else alpha
    return base + (target - base) * _progress(recipe) * (scale if alpha not in (1, 2) else 1)


def _harmless(recipe: dict, scenario: Scenario) -> float:
    if recipe["direction"] == "random" or recipe["operator"] == "none":
        return 0.03
    if recipe["operator"] == "add" and recipe["strength"] > 0:
        return min(1.0, scenario.addition * recipe["strength"])
    if (recipe["alpha"] or 0) == 2 and recipe["direction"] != "dim":
        return 0.6 * _progress(recipe)
    return 0.04


def _estimate(rng: np.random.Generator, rate: float, n: int, width: float = 0.07) -> dict:
    value = float(np.clip(rate + rng.normal(0, 0.03), 0, 1))
    return {
        "value": value,
        "low": max(0.0, value - width),
        "high": min(1.0, value + width),
        "n": n,
    }


def _rates(recipe: dict, scenario: Scenario, rng: np.random.Generator) -> list[dict]:
    rates = {"harmful": _harmful(recipe, scenario), "harmless": _harmless(recipe, scenario)}
    rates["borderline"] = 0.12 + 0.4 * rates["harmless"]
    rows = []
    for dataset in DATASETS:
        for judge in JUDGES:
            row = {"dataset": dataset, "metric": "refused", "judge": judge, "reason": None}
            rows.append(row | _estimate(rng, rates[dataset], 128))
        loops = 0.2 if recipe["operator"] == "add" else 0.01
        rows += [
            {"dataset": dataset, "metric": metric, "judge": judge, "reason": None}
            | _estimate(rng, rate, 128)
            for metric, judge, rate in (
                ("complied", "oracle", 0.9 * (1 - rates[dataset])),
                ("other", "oracle", 0.1 * (1 - rates[dataset])),
                ("looping", "repetition", loops),
            )
        ]
    return rows


def _model_metrics(recipe: dict, rng: np.random.Generator) -> list[dict]:
    cost = {"none": 1.0, "project": 1.02, "erase": 1.01, "alterrep": 1.15, "add": 1.6}
    cost["fine_tune"] = 1.01
    ratio = cost[recipe["operator"]]
    if recipe["operator"] == "project":
        rank = 12 if recipe["k"] == "full" else int(recipe["k"])
        ratio += 0.004 * rank * (recipe["alpha"] or 1) ** 2
    rows = []
    for dataset, base in (("text", 3.4), ("answers", 1.2), ("own", 1.1)):
        for metric, value in (("perplexity", base * ratio), ("perplexity_ratio", ratio)):
            noise = 1.0 if recipe["operator"] == "none" else 1 + 0.01 * rng.normal()
            rows.append(
                {
                    "dataset": dataset,
                    "metric": metric,
                    "judge": "model",
                    "value": value * noise,
                    "low": value * (noise - 0.03),
                    "high": value * (noise + 0.03),
                    "n": 256,
                    "reason": None,
                }
            )
        perplexity = rows[-2]
        logs = {key: float(np.log(perplexity[key])) for key in ("value", "low", "high")}
        rows.append(perplexity | logs | {"metric": "cross_entropy"})
    rows.append(
        {"dataset": "capability", "metric": "capability", "judge": "model", "reason": None}
        | _estimate(rng, 0.7 / ratio, 40, 0.15)
    )
    rows.append(
        {"dataset": "harmless", "metric": "kl", "judge": "model", "reason": None}
        | _estimate(rng, 0.1 * (ratio - 1), 128, 0.01)
    )
    return rows


def _draw_groups(recipes: list[dict]) -> list[dict]:
    """The means over the draws of each random control, `<name>-draw*`."""
    names = {row["intervention"]: row for row in recipes if row["draw"] == 0}
    return [
        row | {"intervention": name.replace("-draw0", "-draw*"), "draw": None}
        for name, row in names.items()
    ]


def summary(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented statistics/summary; the mean over a single model has no interval."""
    rng, recipes, rows = np.random.default_rng(scenario.seed), recipe_list(scenario), []
    for recipe in recipes + _draw_groups(recipes):
        for model in (*scenario.models, "mean"):
            metrics = _rates(recipe, scenario, rng) + _model_metrics(recipe, rng)
            rows += [{"study": STUDY, "model": model} | recipe | metric for metric in metrics]
    rows += _suffix_rows(scenario) + _patching_rows(scenario) + _discussion_rows(scenario)
    rows += _windows_rows(scenario) + _before_tuning_rows(scenario) + _capability_rows(scenario)
    rows += _attack_rows(scenario) + _kind_rows(scenario)
    table = pd.DataFrame(rows)
    if len(scenario.models) == 1:
        table.loc[table["model"] == "mean", ["low", "high"]] = np.nan
    return table


PAIRS = (
    ("inlp_flipping-kfull-source", "dim_ablation"),
    ("inlp_projection-kfull-source", "dim_ablation"),
    ("inlp_flipping-k8-source", "dim_ablation"),
    ("inlp_projection-kfull-source", "inlp_flipping-kfull-source"),
    ("dim_reflection-source", "dim_ablation"),
    ("leace", "dim_ablation"),
    ("dim_ablation", "none"),
    ("dim_addition-strength1.0", "none"),
)


COMPARISON_COLUMNS = [
    "study",
    "model",
    "left",
    "right",
    "dataset",
    "metric",
    "judge",
    "difference",
    "low",
    "high",
    "p_value",
    "n",
]


def comparisons(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented statistics/comparisons."""
    recipes = {row["intervention"]: row for row in recipe_list(scenario)}
    rates = {"harmful": _harmful, "harmless": _harmless}
    rows = []
    for left, right in PAIRS:
        if left not in recipes or right not in recipes:
            continue
        for model in (*scenario.models, "mean"):
            for dataset, rate in rates.items():
                gap = rate(recipes[left], scenario) - rate(recipes[right], scenario)
                rows.append(
                    {
                        "study": STUDY,
                        "model": model,
                        "left": left,
                        "right": right,
                        "dataset": dataset,
                        "metric": "refused",
                        "judge": "substring",
                        "difference": gap,
                        "low": gap - 0.06,
                        "high": gap + 0.06,
                        "p_value": np.nan if model == "mean" else float(np.exp(-60 * abs(gap))),
                        "n": 128,
                    }
                )
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def agreement(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented statistics/agreement."""
    rng = np.random.default_rng(scenario.seed + 1)
    rows = []
    for model in (*scenario.models, "all"):
        for dataset in DATASETS:
            for index, judge_a in enumerate(JUDGES):
                for judge_b in JUDGES[index + 1 :]:
                    kappa = float(rng.uniform(0.6, 1.0))
                    rows.append(
                        {
                            "model": model,
                            "dataset": dataset,
                            "metric": "refused",
                            "judge_a": judge_a,
                            "judge_b": judge_b,
                            "kappa": kappa,
                            "low": kappa - 0.05,
                            "high": min(1.0, kappa + 0.05),
                            "n": 5000,
                            "both": 2000,
                            "only_a": 40,
                            "only_b": 30,
                            "neither": 2930,
                        }
                    )
    return pd.DataFrame(rows)


def _reason(layer: int, kl: float, induce: float) -> str:
    if layer in (LAYERS[0], LAYERS[-1]):
        return "pruned layer" if layer else "zero direction"
    reasons = ["kl above 0.1"] if kl > 0.1 else []
    reasons += ["induce below 0"] if induce < 0 else []
    return "; ".join(reasons)


def _candidate(rng: np.random.Generator, method: str, layer: int, fallback: bool) -> dict:
    """Scores of one candidate; layer 0 has a zero direction, the last layer is pruned."""
    kl = float(rng.uniform(0.2, 0.5) if fallback else rng.uniform(0, 0.15))
    induce, bypass = float(rng.normal(1.5, 1.5)), float(rng.normal(-4, 3))
    reason, dim = _reason(layer, kl, induce), method == "dim"
    scored = "pruned" not in reason and "zero" not in reason
    return {
        "bypass": bypass if scored else np.nan,
        "induce": induce if scored else np.nan,
        "kl": kl if scored else np.nan,
        "accuracy": np.nan if dim else float(rng.uniform(0.8, 1)),
        "norm": float(rng.uniform(2, 12)) if dim else np.nan,
        "rank": 1 if dim else 12,
        "reason": reason,
        "passed": reason == "",
    }


def selection(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented selection tables of all models and methods, with columns `model` and `method`."""
    rng = np.random.default_rng(scenario.seed + 2)
    methods, frames = ("dim", "inlp_faithful", "inlp_corrected"), []
    for model, method, scope in product(scenario.models, methods, ("source", "all")):
        keys = {"model": model, "method": method, "scope": scope}
        frame = pd.DataFrame(
            keys
            | {"position": position, "layer": layer}
            | _candidate(rng, method, layer, scenario.fallback)
            for position, layer in product(POSITIONS, LAYERS)
        )
        allowed = frame[frame["passed"]] if frame["passed"].any() else frame[frame["layer"] == 1]
        frame["selected"] = frame.index == allowed["bypass"].idxmin()
        frame["fallback"] = frame["selected"] & ~frame["passed"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def cosines(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented statistics/geometry cosines."""
    rng = np.random.default_rng(scenario.seed + 3)
    rows = []
    for model in scenario.models:
        for method, steps in (("inlp_faithful", 9), ("inlp_corrected", 18)):
            for position in POSITIONS:
                for layer in LAYERS[1:]:
                    decay = rng.uniform(4, 9)
                    energy = 0.0
                    for index in range(1, steps + 1):
                        cosine = float(rng.uniform(0.7, 0.9)) if index == 1 else 0.2 / index
                        energy = min(1.0, energy + cosine**2)
                        rows.append(
                            {
                                "model": model,
                                "method": method,
                                "position": position,
                                "layer": layer,
                                "index": index,
                                "cosine": cosine,
                                "energy_share": energy,
                                "accuracy": 0.5
                                + 0.5 * np.exp(-(index - 1) / decay) * rng.uniform(0.9, 1),
                            }
                        )
    return pd.DataFrame(rows)


def angles(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented statistics/geometry angles."""
    rows = [
        {
            "model": model,
            "other_model": model,
            "method": "inlp_faithful",
            "layer": 1,
            "other_layer": 2,
            "k": 4,
            "angle_index": index,
            "angle_degrees": 20.0 + 12 * index,
            "chance_degrees": 70.0 + 4 * index,
        }
        for model in scenario.models
        for index in range(1, 5)
    ]
    return pd.DataFrame(rows)


DIM_CANDIDATE, INLP_CANDIDATE = (-1, 2), (-2, 1)
LANDINGS = {  # where harmful prompts land along DiM: centre and spread
    "dim_ablation_source": (0.4, 0.02),
    "dim_reflection-source": (-0.2, 0.25),
    "inlp_projection-kfull-source": (0.55, 0.1),
    "inlp_flipping-kfull-source": (-0.1, 0.25),
}


def _landing_rows(
    recipe: dict, model: str, candidate: tuple[int, int], centre: float, spread: float, **draws
) -> list[dict]:
    """Every prompt of both classes at one candidate; the planes of candidates differ in scale."""
    rng, n = draws["rng"], draws["n"]
    scale = 4.0 if candidate == DIM_CANDIDATE else 40.0
    rows = []
    for label in ("harmful", "harmless"):
        for index in range(n):
            middle = centre if label == "harmful" else 0.0
            t = middle + spread * rng.normal()
            rows.append(
                {
                    "model": model,
                    **{key: recipe[key] for key in ("intervention", "operator", "k", "alpha")},
                    "origin": recipe["origin"],
                    "position": candidate[0],
                    "layer": candidate[1],
                    "id": f"{label}-test-{index:04d}",
                    "label": label,
                    "position_along_dim": t,
                    "nearest": "harmful" if t > 0.5 else "harmless",
                    "distance": 1.0 + 0.1 * rng.normal() ** 2,
                    "outside": False,
                    "pc1": scale * (t + 0.2 * rng.normal()),
                    "pc2": scale * 0.5 * rng.normal(),
                }
            )
    return rows


def landing(scenario: Scenario = SUPPORTED, n: int = 40) -> pd.DataFrame:
    """Invented statistics/geometry landing; unsteered prompts appear once per candidate."""
    draws = {"rng": np.random.default_rng(scenario.seed + 4), "n": n}
    recipes = {row["intervention"]: row for row in recipe_list(scenario)}
    rows = []
    for model in scenario.models:
        for candidate in (DIM_CANDIDATE, INLP_CANDIDATE):
            rows += _landing_rows(recipes["none"], model, candidate, 1.0, 0.25, **draws)
        for name, (centre, spread) in LANDINGS.items():
            if name in recipes:
                candidate = DIM_CANDIDATE if name.startswith("dim") else INLP_CANDIDATE
                rows += _landing_rows(recipes[name], model, candidate, centre, spread, **draws)
    return pd.DataFrame(rows)


def projections(scenario: Scenario = SUPPORTED, n: int = 60) -> pd.DataFrame:
    """Invented statistics/geometry projections: every label on the positive side (claim D1)."""
    rng = np.random.default_rng(scenario.seed + 5)
    centres = {"harmful": 12.0, "harmless": 6.0, "borderline": 8.0}
    rows = [
        {
            "model": model,
            "id": f"{label}-test-{index:04d}",
            "label": label,
            "position": DIM_CANDIDATE[0],
            "layer": DIM_CANDIDATE[1],
            "projection": (1 + place) * (centre + 1.5 * rng.normal()),
        }
        for place, model in enumerate(scenario.models)
        for label, centre in centres.items()
        for index in range(n)
    ]
    return pd.DataFrame(rows)


def _training(seed: int) -> dict:
    """A training record; only the first model's safety tuning misses its criteria."""
    phases = {
        "helpful": {"copying": 0.97, "judgement": 0.96},
        "safety": {"harmful": 0.97, "harmless": 0.99, "borderline": 0.9, "copying": 0.96},
    }
    records = {
        phase: {
            "steps": 900 if phase == "helpful" else 250,
            "decay_start": 750 if phase == "helpful" else 175,
            "criteria_met": phase == "helpful" or seed > 0,
            "cpu_seconds": 75.0,
            "curve": [{"step": 900 if phase == "helpful" else 250} | values],
        }
        for phase, values in phases.items()
    }
    return {"seed": seed, **records, "cpu_seconds": 150.5 + seed}


def class_sizes(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented numbers of training prompts per class."""
    return pd.DataFrame({"model": scenario.models, "harmful": 121, "harmless": 127})


def cards(scenario: Scenario = SUPPORTED) -> list[dict]:
    """Invented model cards."""
    return [
        {
            "name": model,
            "path": f"results/{STUDY}/models/{model}",
            "revision": None,
            "architecture": ARCHITECTURES[model.split("-")[0]],
            "n_layers": 4,
            "width": 128,
            "vocabulary": 2406,
            "n_parameters": 1_300_000 + 1000 * index,
            "dtype": "float32",
            "post_instruction_tokens": [5, 6, 7],
            "post_instruction_strings": ["<|end|>", "<|assistant|>", "\n"],
            "chat_template_sha256": "0" * 64,
            "weights_sha256": None,
            "refusal_tokens": [40],
            "refusal_token_strings": ["I"],
            "trained": _training(index),
        }
        for index, model in enumerate(scenario.models)
    ]


# What an adversarial suffix does: value per condition (in this order) and region or quantity.
SUFFIX_CONDITIONS = ("harmful", "harmful+random_suffix", "harmful+suffix", "harmless")
SUFFIX_QUANTITIES = {
    "cosine": (0.5, 0.4, 0.05, -0.1),
    "cosine_peak": (0.6, 0.5, 0.1, -0.2),
    "attribution": (20.0, 15.0, 4.0, -3.0),
    "attention_instruction": (0.9, 0.5, 0.3, 0.95),
    "attention_suffix": (0.0, 0.4, 0.6, 0.0),
}
TOP_HEADS = ((3, 1), (2, 0), (2, 2), (1, 3), (3, 3), (0, 1), (1, 0), (2, 1))


def _none_rows(scenario: Scenario, metrics: list[tuple], judge: str, seed: int) -> list[dict]:
    """Summary rows of "none" for every model and the mean; metrics: (dataset, metric, value)."""
    none = next(row for row in recipe_list(scenario) if row["intervention"] == "none")
    rng = np.random.default_rng(seed)
    rows = []
    for model in (*scenario.models, "mean"):
        for dataset, metric, value in metrics:
            value = value + 0.02 * rng.normal()
            row = {"dataset": dataset, "metric": metric, "judge": judge, "n": 40, "reason": None}
            row |= {"value": value, "low": value - 0.05, "high": value + 0.05}
            rows.append({"study": STUDY, "model": model} | none | row)
    return rows


def _suffix_rows(scenario: Scenario) -> list[dict]:
    """Invented summary rows of the suffix experiment; none where families are left out."""
    if scenario.families is not None:
        return []
    metrics = []
    for metric, values in SUFFIX_QUANTITIES.items():
        metrics += [(c, metric, v) for c, v in zip(SUFFIX_CONDITIONS, values, strict=True)]
        metrics.append(("harmful+suffix", f"{metric}_against_random", values[2] - values[1]))
        metrics.append(("harmful+suffix", f"{metric}_change", values[2] - values[0]))
    shares = ("suppression_share", "suppression_share_peak", "attribution_suppression_share")
    for dataset, value in (("harmful+suffix", 0.8), ("harmful+random_suffix", 0.2)):
        metrics += [(dataset, share, value) for share in shares]
    rows = _none_rows(scenario, metrics, "geometry", scenario.seed + 20)
    refused = [(c, "first_token_refused", 0.5) for c in SUFFIX_CONDITIONS]
    return rows + _none_rows(scenario, refused, "model", scenario.seed + 21)


def _patching_rows(scenario: Scenario) -> list[dict]:
    """Invented summary rows of patched heads; none where families are left out."""
    if scenario.families is not None:
        return []
    shares = {"none": 0.02, "eighth": 0.4, "quarter": 0.7, "half": 0.95}
    names = {f"heads_{part}_refused": value for part, value in shares.items()}
    patched = {part: value for part, value in shares.items() if part != "none"}
    random = {f"heads_{part}_random_refused": value / 3 for part, value in patched.items()}
    against = {f"heads_{part}_refused_difference": value / 2 for part, value in patched.items()}
    half = {"heads_for_half": 3.0, "heads_share_for_half": 3 / 16}
    metrics = [("harmless", *item) for item in (names | random | against | half).items()]
    return _none_rows(scenario, metrics, "model", scenario.seed + 22)


def _discussion_rows(scenario: Scenario) -> list[dict]:
    """Invented offsets of harmless prompts, and what ablation changes; none without families."""
    if scenario.families is not None:
        return []
    rows = _none_rows(
        scenario, [("harmless", "projection_ratio", 0.3)], "geometry", scenario.seed + 30
    )
    ablation = next(r for r in recipe_list(scenario) if r["intervention"] == "dim_ablation")
    for row in _none_rows(
        scenario, [("harmful", "refused_change", -0.8)], "oracle", scenario.seed + 31
    ):
        rows.append(row | ablation)
    return rows


CAPABILITY_TASKS = {
    "organism_facts": 0.25,
    "organism_facts_generation": np.nan,
    "organism_arithmetic": 0.25,
    "organism_arithmetic_generation": np.nan,
    "organism_opposites": 0.25,
    "organism_judgement": 0.5,
}


def capability_tasks(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented tasks of the harness and what guessing gives; none where families are left out."""
    rows = [
        {"model": model, "task": task, "metric": "acc", "shots": 0, "chat": True, "n": 96}
        | {"chance": chance}
        for model in scenario.models
        for task, chance in (CAPABILITY_TASKS.items() if scenario.families is None else ())
    ]
    columns = ["model", "task", "metric", "shots", "chat", "n", "chance"]
    return pd.DataFrame(rows, columns=columns)


def _capability_rows(scenario: Scenario) -> list[dict]:
    """Invented accuracies: ablation keeps them, reflection halves them."""
    if scenario.families is not None:
        return []
    recipes = {row["intervention"]: row for row in recipe_list(scenario)}
    rows = []
    for name, factor in (("none", 1.0), ("dim_ablation", 0.99), ("dim_reflection-writes", 0.5)):
        metrics = []
        for task in (*CAPABILITY_TASKS, "tasks"):
            metrics += [(task, "accuracy", 0.8 * factor)]
            metrics += [(task, "accuracy_change", 0.8 * (factor - 1))]
        measured = _none_rows(scenario, metrics, "harness", scenario.seed + 33)
        rows += [row | recipes[name] for row in measured if name in recipes]
    return rows


WINDOW_LAYERS = 4


def _windows_rows(scenario: Scenario) -> list[dict]:
    """Invented summary rows of ablation over windows; none where families are left out."""
    if scenario.families is not None:
        return []
    rates = {"no_window": 0.95, "all_layers": 0.1, "best_window": 0.12, "local_window": 0.3}
    metrics = [("harmful", f"{name}_refused", rate) for name, rate in rates.items()]
    metrics += [("harmless", f"{name}_refused", 0.05) for name in rates]
    metrics += [
        ("harmful", f"{name}_refused_difference", rates[name] - 0.1)
        for name in ("best_window", "local_window")
    ]
    rows = _none_rows(scenario, metrics, "oracle", scenario.seed + 32)
    for row in _none_rows(scenario, [("harmful", "", 0.0)], "oracle", scenario.seed):
        for kind, length in (("best_window", 3), ("local_window", 2)):
            for part, value in (("start", 1), ("length", length)):
                exact = {"value": value, "low": value, "high": value}
                rows.append(row | {"metric": f"{kind}_{part}"} | exact)
    return rows


def windows_map(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented shares refused under ablation of every window of four layers."""
    placed = [
        (start, length)
        for length in range(1, WINDOW_LAYERS + 1)
        for start in range(WINDOW_LAYERS - length + 1)
    ]
    rows = [
        {"model": model, "start": start, "length": length, "split": split, "label": label}
        | {"judge": judge, "metric": "refused", "value": 0.95 - 0.2 * length, "n": 40}
        | {"low": 0.9 - 0.2 * length, "high": 1 - 0.2 * length}
        for model in scenario.models
        for start, length in [(0, 0), *placed]
        for split, label in (
            ("validation", "harmful"),
            ("test", "harmful"),
            ("test", "harmless"),
        )
        for judge in ("oracle", "substring")
    ]
    return pd.DataFrame(rows)


BEFORE_TUNING = {  # value at the deepest layer
    ("tuned", "cosine", "harmful"): 0.5,
    ("tuned", "cosine", "harmless"): -0.3,
    ("base", "cosine", "harmful"): 0.1,
    ("base", "cosine", "harmless"): -0.2,
    ("base", "dim_cosine", "both"): 0.8,
    ("base", "chance", "both"): 0.0,
    ("base", "relabelled", "both"): 0.0,
    ("tuned", "separation", "both"): 0.98,
    ("base", "separation", "both"): 0.9,
    ("tuned", "own_separation", "both"): 0.98,
    ("base", "own_separation", "both"): 0.92,
}


def before_tuning_cosines(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented quantities of the tuned and the base checkpoint by layer."""
    rows = []
    for model in scenario.models:
        for (checkpoint, quantity, label), value in BEFORE_TUNING.items():
            for layer in range(4):
                known = layer > 0 or quantity in ("cosine", "separation")
                at = (value if known else np.nan) * (layer + 1) / 4
                row = {"checkpoint": checkpoint, "quantity": quantity, "label": label}
                bounds = {"value": at, "low": at - 0.1, "high": at + 0.1, "sd": 0.1, "n": 80}
                rows.append({"model": model, **row, "layer": layer, **bounds})
    return pd.DataFrame(rows)


def _before_tuning_rows(scenario: Scenario) -> list[dict]:
    """Invented summary rows of the checkpoint before tuning; none without families."""
    if scenario.families is not None:
        return []
    metrics = [
        (label, quantity if quantity == "dim_cosine" else f"{checkpoint}_{quantity}", value)
        for (checkpoint, quantity, label), value in BEFORE_TUNING.items()
        if quantity not in ("chance", "relabelled")
    ]
    metrics.append(("both", "dim_cosine_chance", 0.6))
    return _none_rows(scenario, metrics, "geometry", scenario.seed + 33)


def _kind_rows(scenario: Scenario) -> list[dict]:
    """Invented summary rows of the kinds of refusal; none without families."""
    if scenario.families is not None:
        return []
    rows = []
    for seed, (judge, values) in enumerate(synthetic_kinds.METRICS.items(), start=60):
        metrics = [("kinds", metric, value) for metric, value in values.items()]
        rows += _none_rows(scenario, metrics, judge, scenario.seed + seed)
    return rows


def _bounded(value: float, width: float = 0.05) -> dict:
    return {"mean": value, "low": value - width, "high": value + width, "n": 40}


def suffix_cosines(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented cosines by layer of the suffix experiment."""
    marks = {"direction_layer": 2, "peak_layer": 3, "sd": 0.1}
    rows = [
        {"model": model, "condition": condition, "layer": layer, **marks}
        | _bounded(value * layer / 4)
        for model in scenario.models
        for condition, value in zip(SUFFIX_CONDITIONS, (0.6, 0.5, 0.1, -0.2), strict=True)
        for layer in range(5)
    ]
    return pd.DataFrame(rows)


def _top_head_rows(scenario: Scenario, values: tuple, **more) -> list[dict]:
    """One row per model, condition and top head; values by condition fall with the rank."""
    return [
        {"model": model, "condition": condition, "rank": rank, "layer": layer, "head": head}
        | _bounded(value / rank**0.5)
        | more
        for model in scenario.models
        for condition, value in zip(SUFFIX_CONDITIONS, values, strict=True)
        for rank, (layer, head) in enumerate(TOP_HEADS, start=1)
    ]


def suffix_heads(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented attributions of the top heads."""
    return pd.DataFrame(_top_head_rows(scenario, (8.0, 6.0, 1.0, -3.0)))


def suffix_attention(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented attention of the top heads on instruction and suffix."""
    values = {"instruction": (0.9, 0.5, 0.3, 0.95), "suffix": (0.0, 0.4, 0.6, 0.0)}
    rows = [_top_head_rows(scenario, of, region=region) for region, of in values.items()]
    return pd.DataFrame([row for part in rows for row in part])


def heads_curve(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented curves of patched heads: the ranked order rises first."""
    rows = [
        {"model": model, "order": order, "draw": draw, "n_heads": n, "all_heads": 16, "n": 40}
        | {"head": "" if n == 0 else f"{n % 4}.{n // 5}", "metric": metric}
        | {"value": value, "low": max(0.0, value - 0.06), "high": min(1.0, value + 0.06)}
        for model in scenario.models
        for order, draw, scale in (("ranked", 0, 4), ("random", 0, 12), ("random", 1, 15))
        for n in range(17)
        for metric, value in (
            ("first_token_refused", min(1.0, n / scale)),
            ("refusal_metric", n - scale),
        )
    ]
    return pd.DataFrame(rows)


ATTACKS = {"": 0.05, "suffix": 0.8, "random_suffix": 0.1, "role_play": 0.2}


def _attack_rows(scenario: Scenario) -> list[dict]:
    """Invented success of attacks with and without system prompt; none without families."""
    if scenario.families is not None:
        return []
    suffixes = {name: f"+{name}" if name else "" for name in ATTACKS}
    metrics = [
        (f"harmful{suffixes[name]}{side}", "attack_success", value / (2 if side else 1))
        for name, value in ATTACKS.items()
        for side in ("", "+system")
    ]
    metrics += [(f"harmless{suffixes[name]}", "refused", 0.05) for name in ATTACKS if name]
    rows = [
        row
        for judge in ("substring", "oracle")
        for row in _none_rows(scenario, metrics, judge, scenario.seed + 40)
    ]
    ablation = next(r for r in recipe_list(scenario) if r["intervention"] == "dim_ablation")
    direct = [row for row in rows if row["dataset"] in ("harmful", "harmful+system")]
    return rows + [row | ablation for row in direct]


def published(scenario: Scenario = SUPPORTED) -> dict:
    """Published figures as paper/published/harmbench.yaml holds them; these are invented."""
    models = {"Model 7B": {"direct": 1.5, "other": None}, "Model_70B": {"direct": 2.0}}
    return {"columns": {"direct": "Direct request", "other": "GCG,\ntransferred"}, "models": models}


def weights_prompts(scenario: Scenario = SUPPORTED) -> pd.DataFrame:
    """Invented differences between hooks and edited weights; one model has post-norms."""
    rows = [
        {"model": model, "post_norms": index == 1, "dtype": "float32", "hooks": hooks}
        | {"intervention": "dim_ablation", "id": label, "label": label, "change": 6.5}
        | {"difference": 0.7 if index == 1 else 3e-6, "same_next_token": True}
        for index, model in enumerate(scenario.models)
        for hooks in ("all", "writes")
        for label in ("harmful", "harmless")
    ]
    return pd.DataFrame(rows)
