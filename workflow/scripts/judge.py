"""Let a model judge the completions of a model under every intervention."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

from judging import load_judge_model, load_judge_tokenizer
from refusal.judgements import (
    JUDGEMENT_COLUMNS,
    Questions,
    Verdicts,
    judgements,
    needs_chat_template,
    questions,
)
from refusal.models import weights_sha256
from refusal.scores import answers
from refusal.store import Store, fingerprint

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# How a verdict is read says nothing about what the judge writes: another rule asks it nothing.
READING = ("verdicts.py",)
WRITING = ("path", "revision", "base", "base_revision", "dtype", "attention", "max_new_tokens")


def judge_identity(settings: Mapping) -> dict:
    """Return what a verdict depends on besides the prompt; of a local checkpoint its weights."""
    weights = [
        weights_sha256(Path(settings[name]))
        for name in ("path", "base")
        if settings[name] and Path(settings[name]).is_dir()
    ]
    return {**{name: settings[name] for name in WRITING}, "weights": weights}


def key_of(files: list[str], identity: Mapping, asked: Questions) -> str:
    """Return the fingerprint of one intervention's verdicts."""
    prompts = hashlib.sha256(json.dumps(asked.sequences).encode()).hexdigest()
    return fingerprint(files, {**identity, "prompts": prompts})


def main(snakemake: "snakemake") -> None:
    params, name = snakemake.params, snakemake.wildcards.judge
    settings, store = params.judge, Store(params.store)
    prompts = pd.read_parquet(snakemake.input.prompts[0])
    tokenizer = load_judge_tokenizer(settings, needs_chat_template(settings))
    verdicts = Verdicts(settings, lambda: load_judge_model(settings, tokenizer, params.max_tokens))
    code = [path for path in snakemake.input.code if not path.endswith(READING)]
    identity, tables = judge_identity(settings), []
    for path in map(Path, snakemake.input.generations):
        frame = answers(prompts, pd.read_parquet(path))
        asked = questions(tokenizer, frame, settings)
        key = key_of(code, identity, asked)
        kept = store.read(key)
        if kept is not None:
            verdicts.learn(asked.sequences, kept.verdict)
        said = verdicts.of(asked.sequences)
        if kept is None:
            store.write(key, pd.DataFrame({"verdict": pd.Series(said, dtype=object)}))
        table = judgements(frame, name, settings, asked, said).assign(intervention=path.stem)
        tables.append(table[JUDGEMENT_COLUMNS])
        missing = int(table.value.isna().sum())
        logging.info("%s: %d of %d values missing", path.stem, missing, len(table))
    pd.concat(tables, ignore_index=True).to_parquet(snakemake.output[0], index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
