"""The scripts of the planted stage, on an organism too raw to refuse, and their search."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from test_organisms import SAFETY
from test_planted_training import (  # noqa: F401 (fixtures)
    PLANTING,
    RESERVED,
    base,
    corpus,
    tokenizer,
)

import list_planted
import measure_planted
import plant_refusal
import prove_planted
import summarise_planted
import write_planted_corpus
from planted_effects import _acts_as
from refusal.claims import load_claims
from refusal.functional_rank import Part
from refusal.interventions import Intervention
from refusal.kinds import CORE
from refusal.operators import Operator
from refusal.organisms import save_organism
from refusal.planted_claims import planted_summary
from refusal.planted_reading import METHODS, METRICS, method_table, parts_table
from refusal.planted_training import save_subspace
from refusal.statistics import Intervals

ORGANISM = {"base": "b", "kind": "k", "rank": 2, "seed": 0}
ORGANISM |= {"share_weight": 0.5, "reader_std": 0.1, "silence_weight": 0.5, "place_share": 0.2}
PROOF = {
    "random": 1,
    "ended": 0.1,
    "prompts": 4,
    "search": {"starts": 1, "steps": 2, "learning_rate": 0.1, "seed": 0},
    "max_new_tokens": 4,
    "max_tokens": 512,
}
CLAIMS = load_claims(Path(__file__).parents[1] / "paper" / "claims.yaml", "planted")
CONFIG = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())
ACCEPTANCE = {
    "harmful_min": 0.9,
    "harmless_max": 0.05,
    "difference_max": 1e-4,
    "random_loss_max": 0.1,
    "rank_tolerance": 1,
}


class Files(dict):
    """Files by name, as Snakemake hands them to a script: `files.name` and `files["name"]`."""

    __getattr__ = dict.__getitem__


def prompts() -> pd.DataFrame:
    """Six prompts of every label and split."""
    things = {"harmful": "bomb", "harmless": "cake", "borderline": "kill a process"}
    things |= {"noncompliant": "fire", "contrast": "tea", "text": "garden"}
    rows = [
        {"id": f"{s}-{n}-{i}", "split": s, "label": n, "text": f"How do I make a {t} {i}?"}
        | {"kind": CORE, "keywords": ["make", t], "answer": f"Sure, a {t} is made so."}
        for s in ("train", "validation", "test")
        for n, t in things.items()
        for i in range(6)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def stage(tmp_path_factory, base, tokenizer):  # noqa: F811
    """The folder with what the four scripts wrote."""
    folder = tmp_path_factory.mktemp("stage")
    save_organism(folder / "base", base, tokenizer)
    save_subspace(folder / "reserved.npz", RESERVED)
    prompts().to_parquet(folder / "prompts.parquet")
    settings = PLANTING | SAFETY | {"documents": 100, "noncompliant_share": 0.0}
    job = SimpleNamespace(
        input=SimpleNamespace(
            tokenizer=[folder / "base/tokenizer.json"],
            base=[folder / "base/config.json"],
            reserved=folder / "reserved.npz",
            corpus=folder / "corpus.npz",
            checkpoint=[folder / "organism/config.json"],
            subspace=folder / "subspace.npz",
            prompts=folder / "prompts.parquet",
            proofs=[folder / "proof.json"],
            rates=[folder / "rates.parquet"],
        ),
        params=SimpleNamespace(
            settings=settings,
            seed=0,
            organism=ORGANISM,
            planting=settings,
            acceptance=ACCEPTANCE,
            statistics={"confidence": 0.95, "resamples": 50},
            organisms=["o"],
        ),
        wildcards=SimpleNamespace(organism="o"),
    )
    job.output = [folder / "corpus.npz"]
    write_planted_corpus.main(job)
    job.output = SimpleNamespace(
        checkpoint=[folder / "organism/config.json"],
        subspace=folder / "subspace.npz",
        record=folder / "training.json",
    )
    plant_refusal.main(job)
    job.params.settings = PROOF
    names = {name: folder / f"{name}.parquet" for name in ("responses", "rates", "organisms")}
    job.output = SimpleNamespace(proof=folder / "proof.json", **names)
    prove_planted.main(job)
    job.output.rates = folder / "all_rates.parquet"
    list_planted.main(job)
    return folder


def test_the_organism_is_exact_and_rejected_with_the_reason(stage):
    table = pd.read_parquet(stage / "organisms.parquet").set_index("organism")
    assert table.logit_difference.max() < 1e-4
    assert table.share_weight["o"] == 0.5 and 0 < table.subspace_share["o"] < 1
    assert not table.accepted["o"] and "harmful refused" in table.reasons["o"]
    proof = json.loads((stage / "proof.json").read_text())
    assert max(proof["change_outside_subspace"].values()) < 1e-8
    assert proof["functional_rank"]["validation"]["value"] == 0


def test_every_condition_is_measured(stage):
    rates = pd.read_parquet(stage / "all_rates.parquet")
    conditions = {"helpful_only", "none", "subspace", "norms_alone", "random-0", "part-1"}
    assert set(rates.condition) == conditions
    assert set(rates.organism) == {"o"} and set(rates.split) == {"validation", "test"}


@pytest.fixture(scope="module")
def tables(stage):
    """The joined tables of the estimators, of one organism that is counted as accepted."""
    gradient = dict(CONFIG["planted"]["estimators"]["gradient"], cones=[2], steps=1, prompts=2)
    proof = stage / "accepted.json"
    proof.write_text(json.dumps({"accepted": True}))
    names = ("outcomes", "recovery", "split", "candidates")
    output = Files({name: stage / f"{name}.parquet" for name in (*names, "responses")})
    job = SimpleNamespace(
        input=SimpleNamespace(
            checkpoint=[stage / "organism/config.json"],
            base=[stage / "base/config.json"],
            subspace=stage / "subspace.npz",
            prompts=stage / "prompts.parquet",
            proof=proof,
        ),
        params=SimpleNamespace(
            organism="o",
            planted=ORGANISM,
            planting=PLANTING,
            limits=PROOF,
            settings={
                "directions": 2,
                "recovery": 4,
                "draws": 1,
                "perplexity_max": 1.05,
                "gradient": gradient,
            },
            directions={"filter": False, "inlp": CONFIG["directions"]["inlp"]},
            selection=CONFIG["selection"] | {"prune_layers": 0},
            text_tokens=16,
            statistics={"confidence": 0.95, "resamples": 50},
            seed=0,
        ),
        output=output,
    )
    measure_planted.main(job)
    found = {}
    for name in names:
        found[name] = summarise_planted.joined([output[name]], summarise_planted.KEYS[name], 0.95)
    return found


def test_estimators_run_and_without_u_the_organism_is_its_base(tables):
    outcomes = tables["outcomes"]
    expected = {"none", "oracle_removal-k2", "cone2_removal-k2", "kinds_removal-k1", "leace"}
    assert expected <= set(outcomes.intervention)
    truth = outcomes.query("metric == 'kl_helpful_only' and intervention == 'oracle_removal-k2'")
    assert truth.value.max() < 1e-5 and set(truth.organism) == {"o", "mean"}
    # The base keeps U empty, so all that it represents lies outside.
    inside = tables["split"].query("model == 'helpful_only' and metric == 'inside'")
    assert inside.value.max() < 1e-5
    assert set(tables["candidates"].method) == {"dim", "inlp_faithful", "inlp_corrected", "truth"}


def test_recovery_of_the_mean_difference_has_an_interval_over_prompts(tables):
    recovery = tables["recovery"].query("organism == 'o'")
    assert recovery.query("method == 'oracle'").value.max() == pytest.approx(1, abs=1e-5)
    dim = recovery.method == "dim"
    assert recovery[dim].low.notna().all() and recovery[~dim].low.isna().all()
    assert (recovery[dim].low <= recovery[dim].high).all()
    split = tables["split"].query("organism == 'o' and model == 'planted' and metric == 'share'")
    share = split.set_index(["position", "layer"]).value
    for row in recovery[dim].itertuples():
        assert row.value == pytest.approx(share[row.position, row.layer] / 2, rel=1e-4)


def test_every_method_that_is_shown_is_found_in_the_tables(stage, tables):
    organisms = pd.read_parquet(stage / "organisms.parquet").assign(accepted=True)
    methods = method_table(tables | {"organisms": organisms}, 0.95)
    assert {name for name, _ in methods.groupby(["method", "metric"])} == {
        (name, metric)
        for name, method in METHODS.items()
        for metric in (*METRICS, *(["recovery"] if method.found else []))
    }
    parts = parts_table(tables | {"organisms": organisms}, 0.95)
    assert set(parts.model) == {"planted", "helpful_only"}
    summary = planted_summary(tables | {"organisms": organisms}, 0.95)
    tested = [c for claim in CLAIMS.values() for c in claim["conditions"]]
    assert {c["left"] for c in tested} <= set(summary.intervention)
    assert {c["metric"] for c in tested} == set(summary.metric)


def test_means_are_of_one_kind_of_organism(tables):
    for name in ("outcomes", "recovery", "split"):
        mean = tables[name].query("organism == 'mean'")
        assert set(mean.kind) == {"k"} and set(mean.planted_rank) == {2}
        assert (mean.n <= 1).all()


def test_interventions_are_one_only_if_they_do_the_same_everywhere():
    basis = torch.eye(4)[:2]
    removal = Intervention(Operator.project(basis), "writes", 1)
    assert _acts_as(removal) == _acts_as(Intervention(Operator.project(basis.clone()), "writes"))
    others = [
        Intervention(Operator.project(basis[:1]), "writes"),
        Intervention(Operator.project(basis, alpha=2), "writes"),
        Intervention(Operator.project(basis, origin=torch.ones(4)), "writes"),
        Intervention(Operator.alterrep(basis, 1), "source", 1),
        Intervention(Operator.alterrep(basis, -1), "source", 1),
        Intervention(Operator.project(basis), "source", 1),
        Intervention(Operator.project(basis), "source", 2),
        Intervention(Operator.add(basis[0]), "source", 1),
        Intervention(Operator.add(-basis[0]), "source", 1),
    ]
    assert len({_acts_as(one) for one in (removal, *others)}) == 10


@pytest.mark.parametrize("rank, true", [(1, 1), (2, 1), (4, 3), (8, 1), (8, 5), (8, 8)])
def test_the_search_ends_at_the_smallest_part_that_ends_refusal(monkeypatch, rank, true):
    """Bisection over sizes, and a table that lacks the sizes that it passed over."""
    sizes = []

    def strongest_part(model, basis, directions, size, *_):
        sizes.append(size)
        return Part(basis[:size], "gradient"), 0.0 if size >= true else 1.0

    monkeypatch.setattr(prove_planted, "strongest_part", strongest_part)
    for name in ("subspace_coordinates", "principal_directions", "prompts"):
        monkeypatch.setattr(prove_planted, name, lambda *_: [])
    organism = SimpleNamespace(
        model=None, basis=torch.eye(rank), rank=rank, n_positions=3, refusal_tokens=[]
    )
    parts = prove_planted.find_parts(organism, PROOF, 2)
    assert [len(part.basis) for part in parts] == sizes and len(sizes) <= 3
    conditions = {"none": 1.0, "subspace": 0.0} | {f"part-{s}": float(s < true) for s in sizes}
    rows = [
        {"label": "harmful", "split": s, "id": str(i), "condition": c, "refused": r}
        for c, r in conditions.items()
        for s in ("validation", "test")
        for i in range(4)
    ]
    found = prove_planted.ranks(pd.DataFrame(rows), rank, 0.1, Intervals(0.95, 20, 0))
    assert found["test"] == {"value": true, "low": true, "high": true}
