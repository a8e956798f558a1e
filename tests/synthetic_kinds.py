"""Invented frames of the experiments on kinds of refusal; `synthetic_results` hands them on.

Every function takes a scenario, of which it reads the names of the models and the seed.
"""

from itertools import product

import numpy as np
import pandas as pd

from refusal.kinds import KINDS

METRICS = {
    "geometry": {
        "kind_cosine_mean": 0.55,
        "kind_cosine_lowest": 0.1,
        "kind_cosine_highest": 0.85,
        "kind_cosine_own_mean": 0.45,
        "kind_cosine_shared_pool": 0.1,
        "kind_stability_mean": 0.97,
        "kind_stability_lowest": 0.95,
        "kind_distinct_share": 1.0,
        "kind_effective_rank": 3.0,
        "kind_rank_95": 6.0,
        "kind_dim_cosine_mean": 0.5,
        "kind_dim_cosine_highest": 0.9,
        "kind_explains_chance": 0.09,
        "kind_explains_dim": 0.9,
        "kind_explains_inlp": 0.2,
        "feature_explained": 0.9,
        "feature_dead": 0.01,
        "feature_core_share": 0.4,
        "feature_core_null": 0.05,
        "feature_core_gain": 0.35,
        "feature_jaccard": 0.3,
        "feature_direction_cosine": 0.7,
    },
    "oracle": {
        "kind_ablation_own": 0.3,
        "kind_ablation_other": 0.9,
        "kind_ablation_specific": -0.6,
        "harmful_ablation_safety": 0.3,
        "harmful_ablation_other": 0.9,
        "harmful_ablation_difference": 0.6,
        "knob_area": 0.6,
        "knob_refusal": 0.95,
        "knob_over_refusal": 0.7,
        "knob_accuracy": 0.62,
        "knob_ablation_refusal": 0.3,
        "knob_ablation_over_refusal": 0.2,
        "knob_best_accuracy": 0.7,
        "knob_random_area": 0.5,
        "knob_random_refusal": 0.5,
        "knob_random_gap": 0.45,
        "knob_dim_area": 0.6,
        "knob_refused_minus_complied_area": 0.65,
        "knob_spread_ratio": 1.1,
        "knob_spread_excess": -0.05,
        "knob_satisfied": 0.9,
        "feature_steering": 0.5,
        "feature_random_steering": 0.1,
    },
    "style": {
        "style_information": 0.6,
        "refusal_information": 0.05,
        "style_share": 0.4,
        "refusal_share": 0.05,
        "style_minus_refusal_share": 0.35,
        "own_style": 0.5,
        "own_style_gain": 0.4,
        "steered_refused": 0.8,
        "style_information_p": 0.01,
        "style_judge_accuracy": 0.9,
        "style_judge_answered": 1.0,
        "style_judge_agreement": 0.99,
    },
}
DIRECTIONS = (*KINDS, "refused_minus_complied", "random-0", "random-1", "dim")
STRENGTHS = ("ablation", "0.25", "0.5", "1.0")


def _bounds(values: np.ndarray, width: float = 0.06) -> dict:
    return {"value": values, "low": np.clip(values - width, -1, 1), "high": values + width}


def _rows(scenario, columns: dict[str, tuple], seed: int) -> pd.DataFrame:
    """Every model with every combination of the columns, and a random share."""
    table = pd.DataFrame(product(scenario.models, *columns.values()), columns=["model", *columns])
    values = np.random.default_rng(scenario.seed + seed).uniform(0.05, 0.9, len(table))
    return table.assign(**_bounds(values), n=40)


def kinds_behaviour(scenario) -> pd.DataFrame:
    """Invented behaviour: one kind of the first model misses its style."""
    label = {"right_style": "noncompliant", "refused": "contrast"}
    table = _rows(scenario, {"kind": KINDS, "metric": tuple(label)}, 40)
    value = table.metric.map({"right_style": 0.95, "refused": 0.02}).to_numpy(copy=True)
    value[0] = 0.5
    return table.assign(label=table.metric.map(label), **_bounds(value, 0.04))


def kinds_cosines(scenario) -> pd.DataFrame:
    """Invented symmetric cosines with ones on the diagonal."""
    table = _rows(scenario, {"variant": ("shared", "own"), "a": KINDS, "b": KINDS}, 41)
    first, second = (table[side].map(KINDS.index) for side in ("a", "b"))
    value = np.where(first == second, 1.0, 0.9 - 0.07 * (first - second).abs())
    return table.assign(**_bounds(value)).drop(columns="n")


def kinds_stability(scenario) -> pd.DataFrame:
    """Invented stability, above all cosines between kinds."""
    table = _rows(scenario, {"kind": KINDS}, 42)
    return table.assign(**_bounds(np.full(len(table), 0.97), 0.02), draws=20)


def kinds_span(scenario) -> pd.DataFrame:
    """Invented span: less of INLP is explained, the more of it is taken."""
    inlp = _rows(scenario, {"subspace": ("inlp_faithful", "inlp_corrected"), "k": range(1, 9)}, 43)
    dim = _rows(scenario, {"subspace": ("dim",), "k": (1,)}, 44)
    table = pd.concat([inlp, dim], ignore_index=True)
    return table.assign(explained=0.9 / table.k**0.5, chance=0.09, largest_angle=60.0)


def kinds_ablation(scenario) -> pd.DataFrame:
    """Invented ablation map with configured interventions below the directions."""
    ablated = ("none", *DIRECTIONS, "dim_ablation", "inlp_projection-kfull-all", "leace")
    metrics = ("refused", "complied", "right_style")
    return _rows(scenario, {"ablated": ablated, "kind": KINDS, "metric": metrics}, 45)


def knob_curves(scenario) -> pd.DataFrame:
    """Invented curves."""
    metrics = ("refusal", "over_refusal", "accuracy")
    columns = {"direction": DIRECTIONS, "strength": STRENGTHS, "metric": metrics}
    return _rows(scenario, columns, 46)


def knob_chosen(scenario) -> pd.DataFrame:
    """Invented choices; random directions do not satisfy the rule."""
    table = _rows(scenario, {"direction": DIRECTIONS}, 47)[["model", "direction"]]
    satisfied = ~table.direction.str.startswith("random")
    return table.assign(strength=0.5, satisfied=satisfied, refusal=0.95, over_refusal=0.6)


def knob_cells(scenario) -> pd.DataFrame:
    """Invented sizes of the cells."""
    cells = ("harmful-refused", "harmful-complied", "benign-refused", "benign-complied")
    table = _rows(scenario, {"dataset": ("balanced", "balanced-validation"), "cell": cells}, 48)
    return table[["model", "dataset", "cell", "n"]]


def styles_distribution(scenario) -> pd.DataFrame:
    """Invented shares of styles."""
    return _rows(scenario, {"direction": DIRECTIONS, "style": (*KINDS, "answered")}, 49)


def styles_confusion(scenario) -> pd.DataFrame:
    """Invented confusion of the style judge, the same for all models."""
    classes = (*KINDS, "answered")
    table = _rows(scenario, {"style": classes, "said": classes}, 50)
    right = table["style"] == table.said
    return table.assign(value=np.where(right, 0.89, 0.01))


def sparse_features_sharing(scenario) -> pd.DataFrame:
    """Invented counts of shared features."""
    table = _rows(scenario, {"lists": range(1, len(KINDS) + 1)}, 51)
    value = 120.0 / table.lists**1.2
    return table.assign(value=value, null=value / 4, low=value / 6, high=value / 3, p_value=0.01)
