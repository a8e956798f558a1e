"""A rehearsal of studies/rocchetti2026.yaml: from downloads to its PDF, with tiny stand-ins.

The study file is used as it is, with smaller sizes. A hub on the loopback address holds the five
models and two judges under their own names, a mirror folder the prompts and texts. All are fetched;
three models then go the whole way: each of another architecture, one of them converted.
"""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command_line import clone, snakemake
from hub_server import COMMITS, Hub, serving
from stand_ins import write_rocchetti2026

from refusal.hub import read_lock
from refusal.published import mirror_folder

RESULTS = Path("results/rocchetti2026")
MODELS = ("gemma-2b-it", "qwen-1_8b-chat", "llama-2-7b-chat")
# Few interventions of each family; everything else of the study stays.
DROPPED = (
    "inlp_first_addition inlp_corrected_projection inlp_corrected_flipping inlp_alpha "
    "alterrep dim_alpha affine_ablation affine_inlp leace dim_set_harmful "
    "dim_add_harmful dim_ablation_tokens dim_addition_tokens inlp_flipping_tokens "
    "random_projection random_flipping random_flipping_writes random_projection_all "
    "dim_orthogonalisation fine_tuning dim_ablation_source dim_addition_source"
)
SMALLER = {
    "split_by_family": False,
    "prompts": {"sizes": {"train": 10, "validation": 4, "test": 6, "text": 4}},
    "directions": {"filter": False, "random": {"draws": 2}},
    "selection": {"additions": [1]},
    "generations": {"max_new_tokens": 6},
    "statistics": {"resamples": 100, "comparisons": [["dim_ablation", "random_ablation-draw*"]]},
    "experiments": {"capability": False},  # its published tasks cannot be had without the network
    "judges": {
        "llama_guard_2": {"max_new_tokens": 3},
        "refusal_model": {"max_new_tokens": 3},
    },
    "interventions": dict.fromkeys(DROPPED.split())
    | {
        "dim_addition": {"strength": [-1, 1]},
        "inlp_projection": {"k": [1, "full"], "scope": ["source"]},
        "inlp_flipping": {"k": [1, "full"], "scope": ["source"]},
        "random_ablation": {"draw": [0, 1]},
        "random_addition": {"draw": [0, 1]},
        "random_reflection": {"draw": [0, 1]},
    },
}


def updated(onto: dict, overlay: dict) -> dict:
    """`onto` with the overlay's values, nested ones too."""
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(onto.get(key), dict)
        onto[key] = updated(onto[key], value) if both else value
    return onto


def write_mirror(folder: Path) -> Path:
    """Made-up prompts in place of the published ones, pinned by the table of this copy."""
    path = folder / "paper/published/splits.yaml"
    table = yaml.safe_load(path.read_text())
    mirror = folder / "mirror"
    for name, entry in table["files"].items():
        verb = "break" if name.startswith("harmful") else "bake"
        rows = [{"instruction": f"{verb} {name} {n}", "category": None} for n in range(20)]
        content = json.dumps(rows).encode()
        file = mirror_folder(mirror, table["id"]) / entry["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        entry |= {"sha256": hashlib.sha256(content).hexdigest(), "prompts": len(rows)}
    for number, benchmark in enumerate(table["benchmarks"].values()):
        benchmark["rows"] = [6 * number, 6 * number + 6]
    path.write_text(yaml.safe_dump(table))
    texts = {
        "text": [{"text": f"plain text {n}"} for n in range(6)],
        "instruction": [{"instruction": f"say {n}", "input": "", "output": "x"} for n in range(6)],
    }
    for label, rows in texts.items():
        file = mirror_folder(mirror, table["texts"][label]["id"]) / "part.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return mirror


def publish(hub: Hub, folders: dict[str, Path], judges: dict) -> None:
    """Put the checkpoints on the hub, the judges at their pinned commits."""
    pinned = {judge["path"]: judge["revision"] for judge in judges.values()}
    for name, folder in folders.items():
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        hub.repositories[name] = {pinned.get(name, COMMITS[0]): files}


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory) -> Path:
    """A copy of the repository in which all was prefetched, and the study has run offline."""
    folder = clone(tmp_path_factory.mktemp("rehearsal"))
    study = yaml.safe_load((folder / "studies/rocchetti2026.yaml").read_text())
    updated(study, SMALLER)
    study["prompts"]["mirror"] = str(write_mirror(folder))
    for model in filter(None, study["models"].values()):
        model["refusal_tokens"] = [40]  # "I" of the stand-ins' tokenizers, or near it
    (folder / "prefetch.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    study["models"] |= dict.fromkeys(study["models"].keys() - set(MODELS))
    (folder / "rehearsal.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    judges = yaml.safe_load((folder / "config.yaml").read_text())["judges"]
    with serving() as hub, pytest.MonkeyPatch.context() as patch:
        publish(hub, write_rocchetti2026(folder / "made"), judges)
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(folder / "home"))
        done = snakemake(folder, "prefetch", study="prefetch.yaml")
        assert done.returncode == 0, done.stdout[-6000:]
        requests = len(hub.requests)
        patch.setenv("HF_HUB_OFFLINE", "1")
        done = snakemake(folder, study="rehearsal.yaml")
        assert done.returncode == 0, done.stdout[-6000:]
        assert len(hub.requests) == requests, "a job went to the network"
    (folder / "log.txt").write_text(done.stdout)
    return folder


def test_the_study_ends_with_its_paper(rehearsed):
    assert (rehearsed / RESULTS / "paper/main.pdf").read_bytes().startswith(b"%PDF")
    summary = pd.read_parquet(rehearsed / RESULTS / "statistics/summary.parquet")
    assert set(MODELS) <= set(summary.model)
    assert json.loads((rehearsed / RESULTS / "claims.json").read_text())["B1"]


def test_every_checkpoint_is_locked(rehearsed):
    lock = read_lock(rehearsed / "models.lock.yaml")
    assert len(lock) == 7
    assert all(len(entry["commit"]) == 40 and entry["sha256"] for entry in lock.values())


def test_qwen_was_converted_and_templates_are_the_models_own(rehearsed):
    cards = {
        path.parent.name: json.loads(path.read_text())
        for path in (rehearsed / RESULTS / "models").glob("*/card.json")
    }
    assert set(cards) == set(MODELS)
    assert cards["qwen-1_8b-chat"]["architecture"] == "qwen2"
    assert cards["gemma-2b-it"]["architecture"] == "gemma"
    assert "".join(cards["gemma-2b-it"]["post_instruction_strings"]).endswith("model\n")
    assert cards["llama-2-7b-chat"]["post_instruction_strings"][-1] == "[/INST]"
    assert {card["revision"] for card in cards.values()} == {COMMITS[0]}


def test_judges_gave_verdicts_and_raw_text_is_kept(rehearsed):
    for judge in ("llama_guard_2", "refusal_model"):
        said = pd.read_parquet(rehearsed / RESULTS / f"judgements/llama-2-7b-chat/{judge}.parquet")
        assert said.verdict.notna().all()
        assert said.value.isna().any(), "a random judge cannot be read"


def test_nothing_is_left_to_do(rehearsed):
    done = snakemake(rehearsed, study="rehearsal.yaml")
    assert "Nothing to be done" in done.stdout
    assert "Estimate for" in done.stdout
