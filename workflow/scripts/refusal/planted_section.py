"""What the section on planted organisms says: numbers in LaTeX, and which sentences hold."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from refusal.latex import estimate, number, scientific
from refusal.planted_measures import MEAN
from refusal.planted_reading import group_label

# Methods whose oracle gap the text gives for every group of organisms.
TOLD = {
    "dim": "the difference in means",
    "inlp_first": "the first direction of INLP",
    "inlp": "all its directions",
    "gradient": "the gradient direction",
    "random": "random directions of the same number",
}
# Reader's names of what the claims compare.
LABELS = {
    "none": "the helpful-only base",
    "dim_removal": "DiM removed",
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
    accepted = organisms[organisms.accepted.astype(bool)]
    means = methods[(methods.organism == MEAN) & methods.planted.notna()]
    known = means.set_index(["planted", "quiet", "method", "metric"]).sort_index()
    chosen = candidates[candidates.organism.isin(accepted.organism)]
    of_dim = chosen[(chosen.method == "dim") & (chosen.scope == "all")].groupby("organism")
    best = accepted.assign(best=accepted.organism.map(of_dim.recovery.max()))
    groups = [_group(known, best, rank, quiet) for rank, quiet in _keys(accepted)]
    return {
        "organisms": len(organisms),
        "accepted": len(accepted),
        "bases": sorted(organisms.base.unique()),
        "ranks": sorted(organisms["rank"].unique().tolist()),
        "below": int((organisms.functional_rank < organisms["rank"]).sum()),
        "logits": scientific(accepted.logit_difference.max()),
        "leaks": _leaks(accepted),
        "groups": groups,
        "loudness": _loudness(known),
        "elsewhere": [group["label"] for group in groups if group["elsewhere"]],
        "truth_rejected": _never_passes(chosen, "truth"),
        "dim_rejected": _never_passes(chosen, "dim"),
        "dim_bypasses": int((of_dim.bypass.min() < 0).sum()),
        "claims": verdicts,
        "labels": LABELS,
    }


def _keys(accepted: pd.DataFrame) -> list[tuple[int, bool]]:
    """Planted rank and quiet of the groups with an accepted organism."""
    return sorted(set(zip(accepted["rank"], accepted.share_weight > 0, strict=True)))


def _group(known: pd.DataFrame, accepted: pd.DataFrame, rank: int, quiet: bool) -> dict[str, Any]:
    """Oracle gaps of a group in LaTeX, and whether the gradient finds a handle other than U.

    `best`: of the recovery by DiM at the place where it is greatest, lowest and highest organism.
    """
    of_group = (accepted["rank"] == rank) & ((accepted.share_weight > 0) == quiet)
    best = accepted[of_group].best
    rows = {name: _row(known, rank, quiet, name, "oracle_gap") for name in TOLD}
    found, recovered = rows["gradient"], _row(known, rank, quiet, "gradient", "recovery")
    other = found is not None and recovered is not None
    return {
        "label": group_label(rank, quiet),
        "n": max((int(row.n) for row in rows.values() if row is not None), default=0),
        "best": [number(best.min()), number(best.max())],
        "gaps": {TOLD[name]: _text(row) for name, row in rows.items() if row is not None},
        "elsewhere": bool(other and found.low >= SUFFICES and recovered.high < MOST),
    }


def _row(known: pd.DataFrame, rank: int, quiet: bool, method: str, metric: str) -> Any | None:
    key = (float(rank), bool(quiet), method, metric)
    return known.loc[key] if key in known.index else None


def _text(row: Any) -> str:
    return estimate(row.value, row.low, row.high)


def _leaks(accepted: pd.DataFrame) -> dict[str, str]:
    """Mean divergence by norms alone of accepted organisms, loud and quiet."""
    quiet = accepted.share_weight > 0
    sides = {"loud": accepted[~quiet], "quiet": accepted[quiet]}
    return {
        name: number(rows.norms_alone_kl.mean(), 3) for name, rows in sides.items() if len(rows)
    }


def _loudness(known: pd.DataFrame) -> dict[str, Any] | None:
    """What DiM wins for a loud and for a quiet U of rank one, and whether the two differ.

    `differ` is None where an interval is missing; None for all if one side was not measured.
    """
    loud, quiet = (_row(known, 1, is_quiet, "dim", "oracle_gap") for is_quiet in (False, True))
    if loud is None or quiet is None:
        return None
    unknown = pd.isna([loud.low, quiet.low]).any()
    apart = bool(loud.low > quiet.high or quiet.low > loud.high)
    return {"loud": _text(loud), "quiet": _text(quiet), "differ": None if unknown else apart}


def _never_passes(candidates: pd.DataFrame, method: str) -> int:
    """Organisms of which the filters of DiM reject every candidate of a method."""
    passed = candidates[candidates.method == method].groupby("organism").passed.any()
    return int((~passed.astype(bool)).sum())
