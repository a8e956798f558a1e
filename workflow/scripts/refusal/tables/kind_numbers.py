"""Numbers of the experiments on kinds of refusal, one row per number and one column per model."""

from collections.abc import Mapping

import pandas as pd

from refusal.latex import escape_latex, tabular
from refusal.reading import models_of, pooled_name
from refusal.statistics import BASELINE, MEAN
from refusal.tables.layout import cell, lookup

STYLES = {
    "steered_refused": "Steered, refused",
    "own_style": "In the own style, of those",
    "own_style_gain": "The same minus others",
    "style_information": "Bits on style",
    "refusal_information": "Bits on refusal",
    "style_share": "Share, entropy of style",
    "refusal_share": "Share, entropy of refusal",
    "style_minus_refusal_share": "Their difference",
    "style_information_p": "$p$ of the bits on style",
    "style_judge_agreement": "Judge against exact wordings",
}
FEATURES = {
    "feature_explained": "Variance explained",
    "feature_dead": "Features that never fire",
    "feature_core_share": "In all lists, share of a list",
    "feature_core_null": "The same, labels shuffled",
    "feature_core_gain": "Their difference",
    "feature_jaccard": "Mean Jaccard index",
    "feature_direction_cosine": "Cosine with the direction",
    "feature_steering": "Harmless refused, steered",
    "feature_random_steering": "The same, random features",
}
SPREAD = {
    "knob_area": "Area, kinds",
    "knob_random_area": "Area, random directions",
    "knob_dim_area": "Area, DiM",
    "knob_refused_minus_complied_area": "Area, refused minus complied",
    "knob_spread_ratio": "Spread over resampling",
    "knob_spread_excess": "Excess spread",
    "knob_refusal": "RR, kinds",
    "knob_random_refusal": "RR, random directions",
    "knob_random_gap": "RR, kinds minus random",
    "knob_best_accuracy": "Best accuracy, kinds",
    "knob_satisfied": "Kinds that meet the rule",
}


def styles_table(summary: pd.DataFrame) -> str:
    """How against whether, per model."""
    return _table(summary, STYLES)


def features_table(summary: pd.DataFrame) -> str:
    """The sparse autoencoder and what the kinds share in it, per model."""
    return _table(summary, FEATURES)


def spread_table(summary: pd.DataFrame) -> str:
    """The trade-off curves in numbers, per model."""
    return _table(summary, SPREAD)


def _table(summary: pd.DataFrame, quantities: Mapping[str, str]) -> str:
    rows = lookup(summary)
    judges = {
        metric: judge
        for metric, judge in zip(summary.metric, summary.judge, strict=True)
        if metric in quantities
    }
    models = [MEAN] if pooled_name(summary) == MEAN else []
    models += models_of(summary)
    lines = [
        [words, *(cell(rows, m, BASELINE, "kinds", metric, judges[metric]) for m in models)]
        for metric, words in quantities.items()
        if metric in judges
    ]
    names = ["Mean" if model == MEAN else escape_latex(model) for model in models]
    return tabular("@{}l" + "l" * len(models) + "@{}", ["", *names], lines)
