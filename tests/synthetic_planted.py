"""Invented tables of planted organisms in the schemas of the workflow; nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from refusal.claims import evaluate_claims, load_claims
from refusal.planted_claims import planted_summary
from refusal.planted_reading import method_table, parts_table
from refusal.planted_section import planted_section

WIDTH = 128
LAYERS, POSITIONS = range(4), (-2, -1)
TAKEN = (-1, 2)  # position and layer of the selected mean difference
# (planted rank, variant, functional rank)
GROUPS = ((1, "loud", 1), (1, "quiet", 1), (1, "silent", 1), (2, "quiet", 2), (4, "quiet", 4))
# Oracle gap by intervention, where a test asks for nothing else: what the claims state.
GAPS = MappingProxyType(
    {
        "dim_removal": 0.99,
        "inlp_faithful_removal-k1": 0.1,
        "inlp_faithful_removal-kfull": 0.98,
        "dim_outside_removal-k1": 0.0,
        "dim_outside_addition-strength-1": 0.05,
        "dim_inside_removal-k1": 0.95,
        "oracle_removal": 1.0,
    }
)
NO_COMPARISONS = pd.DataFrame(columns=["model", "left", "right", "dataset", "metric", "judge"])
OTHERS = (
    "none",
    "dim_nearest_removal-k1",
    "dim_flipping",
    "dim_affine-harmless",
    "inlp_corrected_removal-kfull",
    "inlp_faithful_flipping-kfull",
    "inlp_affine-alpha1-harmless",
    "alterrep-kfull",
    "leace",
    "kinds_removal-k11",
    "gradient_removal-k1",
    "cone4_removal-k4",
    "random_removal-draw0",
    "random_removal-draw1",
    "dim_inside_addition-strength-1",
)
BROKEN = ("inlp_faithful_flipping-kfull",)


@dataclass(frozen=True, eq=False)
class World:
    """What the invented organisms do.

    Attributes:
        gaps: oracle gap by intervention, or by (intervention, planted rank, variant).
        seeds: organisms per group.
        groups: planted rank, variant and functional rank.
        rejected: organisms that are not accepted.
        perplexity: ratio of all interventions.
        noise: whether the base's mean difference is sampling noise alone.
        bypass: refusal metric of harmful prompts that every candidate leaves.
    """

    gaps: Mapping = field(default_factory=dict)
    seeds: int = 3
    groups: tuple = GROUPS
    rejected: tuple[str, ...] = ("llama-0-k4-quiet-2",)
    perplexity: float = 1.01
    noise: bool = False
    bypass: float = 3.0

    def gap(self, name: str, rank: int, variant: str) -> float:
        """The oracle gap that was asked for; of rank above one, a single direction has little."""
        plain = 0.1 if rank > 1 and name != "oracle_removal" else GAPS.get(name, 0.1)
        return self.gaps.get((name, rank, variant), self.gaps.get(name, plain))


USUAL = World()


@cache
def tables(world: World = USUAL) -> dict[str, pd.DataFrame]:
    """Every table by name, as in planted/estimators/, and the list of organisms."""
    makers = {
        "outcomes": _outcomes,
        "recovery": _recovery,
        "split": _split,
        "candidates": _candidates,
    }
    listed = _organisms(world)
    made = {name: make(world, listed) for name, make in makers.items()}
    return {"organisms": listed} | made


def _organisms(world: World) -> pd.DataFrame:
    rows = []
    for (rank, variant, functional), seed in product(world.groups, range(world.seeds)):
        kind = f"k{rank}-{variant}"
        name = f"llama-0-{kind}-{seed}"
        accepted = name not in world.rejected
        rows.append(
            {
                "organism": name,
                "base": "llama-0",
                "kind": kind,
                "rank": rank,
                "share_weight": float(variant == "quiet"),
                "silence_weight": float(variant == "silent"),
                "place_share": 0.15 * (variant == "silent"),
                "seed": seed,
                "accepted": accepted,
                "reasons": "" if accepted else f"functional rank 2, planted {rank}",
                "functional_rank": float(functional if accepted else 2),
                "functional_rank_low": float(functional if accepted else 2),
                "functional_rank_high": float(functional if accepted else 3),
                "subspace_share": 0.03 if variant == "quiet" else 0.5,
                "logit_difference": 1.8e-5,
                "norms_alone_kl": 0.003 if variant == "quiet" else 0.338,
            }
        )
    return pd.DataFrame(rows)


def _about(organism) -> dict:
    return {
        "organism": organism.organism,
        "base": organism.base,
        "kind": organism.kind,
        "planted_rank": organism.rank,
        "seed": organism.seed,
        "accepted": organism.accepted,
    }


def _jitter(organism) -> float:
    """A spread over seeds that is the same at every call."""
    return 0.01 * (organism.seed - 1)


def _outcomes(world: World, listed: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for organism in listed.itertuples():
        for name in (*GAPS, *OTHERS):
            rank, variant = organism.rank, organism.kind.partition("-")[2]
            gap = world.gap(name, rank, variant) + _jitter(organism)
            size = rank if name.startswith(("oracle", "random")) else 1
            about = _about(organism) | {"intervention": _named(name, rank), "rank": float(size)}
            measured = {
                ("harmful", "oracle_gap"): gap,
                ("harmful", "oracle_gap_kept"): gap if name not in BROKEN else np.nan,
                ("harmful", "refused"): 1 - gap,
                ("harmful", "complied"): gap,
                ("harmful", "kl_helpful_only"): 4 * (1 - gap),
                ("text", "perplexity_ratio"): world.perplexity + _jitter(organism) / 10,
            }
            for (dataset, metric), value in measured.items():
                what = {"dataset": dataset, "metric": metric, "value": value}
                rows.append(about | what | {"low": value - 0.1, "high": value + 0.1, "n": 64})
    return pd.DataFrame(rows)


def _named(name: str, rank: int) -> str:
    """Names that hold the rank of U."""
    if name == "oracle_removal":
        return f"oracle_removal-k{rank}"
    return name.replace("random_removal", f"random_removal-k{rank}")


def _recovery(world: World, listed: pd.DataFrame) -> pd.DataFrame:
    sizes = {"oracle": None, "kinds": 11, "gradient": 1, "cone4": 4}
    methods = {(name, None): size for name, size in sizes.items()}
    for scope in ("source", "all"):
        methods |= {("dim", scope): 1, ("leace", scope): 1}
        methods |= {("inlp_faithful", scope): 7, ("inlp_corrected", scope): 5}
    rows = []
    for organism in listed.itertuples():
        for (method, scope), size in methods.items():
            for j in range(1, (size or organism.rank) + 1):
                value = j / organism.rank if method == "oracle" else 0.4 * (1 - 0.5**j)
                value = value if method == "oracle" else value + _jitter(organism)
                about = {"method": method, "scope": scope, "directions": j, "value": value}
                chance = {"chance": j / WIDTH, "chance_low": 0.0, "chance_high": 0.04 + j / WIDTH}
                rows.append(_about(organism) | about | chance)
    return pd.DataFrame(rows)


def _split(world: World, listed: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for organism, position, layer in product(listed.itertuples(), POSITIONS, LAYERS):
        outside, inside = 1.5 * layer, (2.0 if layer > 1 else 0.0) + _jitter(organism) * layer
        lengths = {
            "planted": {"inside": inside, "outside": outside, "length": np.hypot(inside, outside)},
            "helpful_only": {"inside": 0.0, "outside": layer, "length": layer},
        }
        # Resampling noise alone lengthens it by as much again, in the square.
        low, high = (1.45, 1.6) if world.noise else (0.9, 1.2)
        for model, metrics in lengths.items():
            for metric, value in metrics.items():
                bounds = {"value": value, "low": low * value, "high": high * value}
                at = {"model": model, "position": position, "layer": layer, "metric": metric}
                rows.append(_about(organism) | at | bounds)
    return pd.DataFrame(rows)


def _candidates(world: World, listed: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for organism, position, layer in product(listed.itertuples(), POSITIONS, LAYERS):
        for method, scope in product(("dim", "inlp_faithful", "truth"), ("source", "all")):
            at = {"method": method, "scope": scope, "position": position, "layer": layer}
            taken = (position, layer) == TAKEN
            chosen = {"selected": taken, "passed": taken and method != "truth"}
            scores = {"bypass": world.bypass, "recovery": 0.2 + _jitter(organism)}
            rows.append(_about(organism) | at | chosen | scores)
    return pd.DataFrame(rows)


def rates(world: World = USUAL) -> pd.DataFrame:
    """Shares refused as in planted/rates.parquet, of the unsteered organisms."""
    rows = [
        {
            "organism": organism,
            "condition": "none",
            "label": label,
            "split": split,
            "metric": "refused",
            "value": value,
        }
        for organism in tables(world)["organisms"].organism
        for label, value in (("harmful", 0.97), ("harmless", 0.01))
        for split in ("validation", "test")
    ]
    return pd.DataFrame(rows)


@cache
def verdicts(world: World = USUAL) -> dict:
    """The shipped claims on planted organisms in that world."""
    claims = load_claims(Path(__file__).parents[1] / "paper" / "claims.yaml", "planted")
    return evaluate_claims(claims, planted_summary(tables(world), 0.95), NO_COMPARISONS)


@cache
def section(world: World = USUAL) -> dict:
    """What the section of the paper is written from."""
    made = tables(world)
    methods = method_table(made, 0.95)
    return planted_section(made["organisms"], methods, made["candidates"], verdicts(world))


# Frames of figures and tables, which are looked up by their names.


def planted_organisms(scenario=None) -> pd.DataFrame:
    return tables()["organisms"]


def planted_rates(scenario=None) -> pd.DataFrame:
    return rates()


def planted_recovery(scenario=None) -> pd.DataFrame:
    return tables()["recovery"]


def planted_methods(scenario=None) -> pd.DataFrame:
    return method_table(tables(), 0.95)


def planted_parts(scenario=None) -> pd.DataFrame:
    return parts_table(tables(), 0.95)
