"""What the section on planted organisms says: numbers in LaTeX, and which sentences hold."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from refusal.latex import estimate, number, scientific
from refusal.planted_measures import MEAN
from refusal.planted_reading import VARIANTS, group_label, in_order, variants

# Methods whose oracle gap the text gives for every group of organisms.
TOLD = {
    "dim": "the difference in means",
    "dim_nearest": "the one nearest to $U$ of all places",
    "inlp_first": "the first direction of INLP",
    "inlp": "all its directions",
    "gradient": "the gradient direction",
    "random": "random directions of the same number",
}
# Reader's names of what the claims compare.
LABELS = {
    "none": "the helpful-only base",
    "dim_removal": "DiM removed",
    "dim_nearest_removal-k1": "DiM nearest to $U$ removed",
    "dim_flipping": "DiM flipped",
    "inlp_faithful_removal-k1": "first INLP direction removed",
    "inlp_faithful_removal-kfull": "all INLP directions removed",
    "inlp_corrected_removal-kfull": "all directions of INLP corrected removed",
    "leace": "LEACE",
    "gradient_removal-k1": "gradient direction removed",
    "dim_outside_removal-k1": "part of DiM outside $U$ removed",
    "dim_outside_addition-strength-1": "part of DiM outside $U$ subtracted",
    "dim_inside_removal-k1": "part of DiM inside $U$ removed",
    "dim_inside_addition-strength-1": "part of DiM inside $U$ subtracted",
}
SUFFICES, MOST = 0.9, 0.5


def planted_section(
    organisms: pd.DataFrame,
    methods: pd.DataFrame,
    candidates: pd.DataFrame,
    verdicts: Mapping[str, Any],
) -> dict[str, Any]:
    """Context of paper/sections/planted.tex.j2.

    Args:
        organisms: planted/organisms.parquet.
        methods: planted/methods.parquet.
        candidates: planted/estimators/candidates.parquet.
        verdicts: planted/claims.json.
    """
    listed = organisms.assign(variant=variants(organisms), planted=organisms["rank"])
    accepted = listed[listed.accepted.astype(bool)]
    means = methods[(methods.organism == MEAN) & methods.planted.notna()]
    known = means.set_index(["planted", "variant", "method", "metric"]).sort_index()
    chosen = candidates[candidates.organism.isin(accepted.organism)]
    of_dim = chosen[(chosen.method == "dim") & (chosen.scope == "all")].groupby("organism")
    best = accepted.assign(best=accepted.organism.map(of_dim.recovery.max()))
    groups = [_group(known, best, *group) for group in in_order(accepted)]
    return {
        "organisms": len(organisms),
        "accepted": len(accepted),
        "bases": sorted(organisms.base.unique()),
        "ranks": sorted(organisms["rank"].unique().tolist()),
        "below": int((organisms.functional_rank < organisms["rank"]).sum()),
        "logits": scientific(accepted.logit_difference.max()),
        "leaks": _leaks(accepted),
        "groups": groups,
        "planting": _planting(known),
        "elsewhere": [group["label"] for group in groups if group["elsewhere"]],
        "truth_rejected": _never_passes(chosen, "truth"),
        "dim_rejected": _never_passes(chosen, "dim"),
        "dim_bypasses": int((of_dim.bypass.min() < 0).sum()),
        "claims": verdicts,
        "labels": LABELS,
    }


def _group(known: pd.DataFrame, accepted: pd.DataFrame, rank: int, variant: str) -> dict[str, Any]:
    """Oracle gaps of a group in LaTeX, and whether the gradient finds a handle other than U.

    `best`: of the recovery by DiM at the place where it is greatest, lowest and highest organism.
    """
    of_group = (accepted.planted == rank) & (accepted.variant == variant)
    best = accepted[of_group].best
    rows = {name: _row(known, rank, variant, name, "oracle_gap") for name in TOLD}
    found, recovered = rows["gradient"], _row(known, rank, variant, "gradient", "recovery")
    other = found is not None and recovered is not None
    return {
        "label": group_label(rank, variant),
        "n": int(of_group.sum()),
        "best": [number(best.min()), number(best.max())],
        "gaps": {TOLD[name]: _text(row) for name, row in rows.items() if row is not None},
        "elsewhere": bool(other and found.low >= SUFFICES and recovered.high < MOST),
    }


def _row(known: pd.DataFrame, rank: int, variant: str, method: str, metric: str) -> Any | None:
    key = (float(rank), variant, method, metric)
    return known.loc[key] if key in known.index else None


def _text(row: Any) -> str:
    return estimate(row.value, row.low, row.high)


def _leaks(accepted: pd.DataFrame) -> dict[str, str]:
    """Mean divergence by norms alone of accepted organisms, by variant."""
    means = accepted.groupby("variant").norms_alone_kl.mean()
    return {name: number(means[name], 3) for name in VARIANTS if name in means}


def _planting(known: pd.DataFrame) -> dict[str, Any] | None:
    """What DiM wins for every variant of rank one, and whether two of them differ.

    `differ` is None where no two intervals are apart but one is missing; None for all if fewer than
    two variants were measured.
    """
    rows = {name: _row(known, 1, name, "dim", "oracle_gap") for name in VARIANTS}
    rows = {name: row for name, row in rows.items() if row is not None}
    if len(rows) < 2:
        return None
    pairs = combinations(rows.values(), 2)
    apart = any(one.low > other.high or other.low > one.high for one, other in pairs)
    unknown = any(pd.isna(row.low) for row in rows.values())
    gaps = {name: _text(row) for name, row in rows.items()}
    return {"gaps": gaps, "differ": True if apart else None if unknown else False}


def _never_passes(candidates: pd.DataFrame, method: str) -> int:
    """Organisms of which the filters of DiM reject every candidate of a method."""
    passed = candidates[candidates.method == method].groupby("organism").passed.any()
    return int((~passed.astype(bool)).sum())
