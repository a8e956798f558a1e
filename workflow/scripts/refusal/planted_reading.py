"""Reading the tables of planted organisms: methods, groups of organisms, means over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from refusal.planted_measures import MEAN
from refusal.statistics import student_mean

ORGANISMS_MIN = 3  # for an interval over organisms


@dataclass(frozen=True)
class Method:
    """How a method is shown: its name, its intervention, and where its recovery of U stands.

    Attributes:
        label: reader's name.
        intervention: regular expression; of several matches the one with most directions is
            taken, or of the rank of U if `of_rank`; draws are averaged.
        found: method, selection scope ("" for subspaces of no layer) and number of directions
            (None for all) in the table of recovery; None for controls.
    """

    label: str
    intervention: str
    found: tuple[str, str, int | None] | None = None
    of_rank: bool = False


METHODS = {
    "oracle": Method("$U$ (oracle)", r"oracle_removal-k\d+", ("oracle", "", None)),
    "dim": Method("DiM", "dim_removal", ("dim", "all", 1)),
    "dim_nearest": Method("DiM nearest $U$", "dim_nearest_removal-k1", ("dim_nearest", "", 1)),
    "dim_flipping": Method("DiM, flipped", "dim_flipping", ("dim", "source", 1)),
    "inlp_first": Method(
        "INLP, first direction", "inlp_faithful_removal-k1", ("inlp_faithful", "all", 1)
    ),
    "inlp": Method("INLP", "inlp_faithful_removal-kfull", ("inlp_faithful", "all", None)),
    "inlp_corrected": Method(
        "INLP corrected", "inlp_corrected_removal-kfull", ("inlp_corrected", "all", None)
    ),
    "inlp_flipping": Method(
        "INLP, flipped", "inlp_faithful_flipping-kfull", ("inlp_faithful", "source", None)
    ),
    "alterrep": Method("AlterRep", "alterrep-kfull", ("inlp_corrected", "source", None)),
    "dim_affine": Method("Affine DiM", "dim_affine-harmless", ("dim", "source", 1)),
    "inlp_affine": Method(
        "Affine INLP", "inlp_affine-alpha1-harmless", ("inlp_corrected", "source", None)
    ),
    "leace": Method("LEACE", "leace", ("leace", "source", None)),
    "kinds": Method("Span of kinds", r"kinds_removal-k\d+", ("kinds", "", None)),
    "gradient": Method("Gradient direction", "gradient_removal-k1", ("gradient", "", 1)),
    "cone": Method("Gradient cone", r"cone\d+_removal-k\d+", ("cone", "", None)),
    "random": Method("Random", r"random_removal-k\d+-draw\d+", of_rank=True),
}


# How U was planted: it may be loud, is kept short, or is empty of what is not refused.
VARIANTS = ("loud", "quiet", "silent")
# Metric -> data set in the table of outcomes.
METRICS = {
    "oracle_gap": "harmful",
    "oracle_gap_kept": "harmful",  # no value where the text is broken
    "kl_helpful_only": "harmful",
    "perplexity_ratio": "text",
}
RECOVERY = "recovery"
# What is meant over, beside the measure: means over a planted or a measured rank.
BY_PLANTED, BY_MEASURED = ["planted", "variant"], ["functional_rank", "variant"]


def variants(organisms: pd.DataFrame) -> pd.Series:
    """How U was planted in every organism.

    Loud: U may take any share of the residual stream; quiet: training keeps that share small;
    silent: training presses U to zero in documents that are not refused.

    Args:
        organisms: planted/organisms.parquet.
    """
    quiet = pd.Series("loud", index=organisms.index).mask(organisms.share_weight > 0, "quiet")
    return quiet.mask(organisms.silence_weight > 0, "silent")


def method_table(tables: Mapping[str, pd.DataFrame], confidence: float) -> pd.DataFrame:
    """What every method does to every organism, and means over accepted ones.

    Args:
        tables: organisms, and outcomes and recovery of all organisms.

    Returns:
        organism ("mean" for means), planted and functional_rank (a mean has one of them), variant
        (of `VARIANTS`), accepted, method, metric (`METRICS` and recovery), value, low, high
        (Student's t over organisms, which takes three), n.
    """
    frames = [_recoveries(tables["recovery"]).assign(metric=RECOVERY)]
    for metric, dataset in METRICS.items():
        found = _values(tables["outcomes"], metric, dataset)
        frames.append(found.assign(metric=metric))
    single = _described(pd.concat(frames, ignore_index=True), tables["organisms"])
    return _with_means(single, [BY_PLANTED, BY_MEASURED], ["method", "metric"], confidence)


def parts_table(tables: Mapping[str, pd.DataFrame], confidence: float) -> pd.DataFrame:
    """Lengths of the mean difference inside and outside U by layer, and means as above.

    At the position that the selection of DiM chose for the organism, of it (model planted) and of
    its base (helpful_only).

    Returns:
        Columns as of `method_table`, with model, layer and metric (length, inside, outside, share)
        in place of method.
    """
    taken = chosen_places(tables["candidates"])[["organism", "position"]]
    split = tables["split"].merge(taken, on=["organism", "position"])
    split = split[["organism", "model", "layer", "metric", "value"]]
    single = _described(split, tables["organisms"])
    return _with_means(single, [BY_PLANTED], ["model", "layer", "metric"], confidence)


def chosen_places(candidates: pd.DataFrame) -> pd.DataFrame:
    """Where the selection of DiM, acting on all layers, put it: organism, position, layer."""
    rows = candidates[(candidates.method == "dim") & (candidates.scope == "all")]
    return rows[rows.selected.astype(bool)][["organism", "position", "layer"]]


def _described(table: pd.DataFrame, organisms: pd.DataFrame) -> pd.DataFrame:
    """Rows of single organisms with their planted and functional rank, variant and accepted."""
    known = organisms.assign(variant=variants(organisms)).rename(columns={"rank": "planted"})
    known = known[["organism", "planted", "functional_rank", "variant", "accepted"]]
    return table.merge(known, on="organism", validate="many_to_one")


def _with_means(
    single: pd.DataFrame, groups: Sequence[list[str]], keys: list[str], confidence: float
) -> pd.DataFrame:
    """The rows, and behind them means over accepted organisms of every kind of group."""
    accepted = single[single.accepted.astype(bool)]
    rows = []
    for group in groups:
        for key, part in accepted.groupby([*group, *keys], sort=False):
            n = int(np.isfinite(part.value.astype(float)).sum())
            value, low, high = student_mean(part.value, confidence)
            bounds = {"low": low, "high": high} if n >= ORGANISMS_MIN else {}
            about = dict(zip([*group, *keys], key, strict=True))
            about |= {"organism": MEAN, "accepted": True, "value": value, "n": n}
            rows.append(about | bounds)
    means = pd.DataFrame(rows, columns=[*single.columns, "low", "high", "n"])
    table = pd.concat([single.assign(low=np.nan, high=np.nan, n=1), means], ignore_index=True)
    kinds = {"planted": float, "functional_rank": float, "accepted": bool}
    return table.astype(kinds | {"value": float, "low": float, "high": float, "n": int})


def _values(outcomes: pd.DataFrame, metric: str, dataset: str) -> pd.DataFrame:
    """A metric of every organism under every method: organism, method, value.

    Args:
        outcomes: planted/estimators/outcomes.parquet.
    """
    rows = outcomes[(outcomes.organism != MEAN) & (outcomes.metric == metric)]
    rows = rows[rows.dataset == dataset]
    found = []
    for name, method in METHODS.items():
        part = rows[rows.intervention.str.fullmatch(method.intervention)]
        widest = part.groupby("organism")["rank"].transform("max")
        part = part[part["rank"] == (part.planted_rank if method.of_rank else widest)]
        means = part.groupby("organism", sort=False, as_index=False).value.mean()
        found.append(means.assign(method=name))
    return pd.concat(found, ignore_index=True)[["organism", "method", "value"]]


def _recoveries(recovery: pd.DataFrame) -> pd.DataFrame:
    """Recovery of U by what every method removes: organism, method, value."""
    rows = recovery[recovery.organism != MEAN]
    scope = rows.scope.astype(object).where(rows.scope.notna(), "")
    found = []
    for name, method in METHODS.items():
        if method.found is None:
            continue
        source, selected, directions = method.found
        part = rows[rows.method.str.fullmatch(rf"{source}\d*") & (scope == selected)]
        last = part.groupby("organism").directions.transform("max")
        part = part[part.directions == (last if directions is None else directions)]
        found.append(part[["organism", "value"]].assign(method=name))
    return pd.concat(found, ignore_index=True)[["organism", "method", "value"]]


def group_label(rank: float, variant: str) -> str:
    """How a group of organisms is called."""
    return f"Rank {rank:g}, {variant} $U$"


def in_order(table: pd.DataFrame) -> list[tuple[float, str]]:
    """The groups of a table, by planted rank and then variant."""
    found = set(zip(table.planted, table.variant, strict=True))
    return sorted(found, key=lambda group: (group[0], VARIANTS.index(group[1])))
