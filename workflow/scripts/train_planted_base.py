"""Train a helpful-only base that keeps a small subspace empty, for refusal to be planted in."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from transformers import PreTrainedTokenizerFast

from refusal.organisms import build_model, load_corpus, save_organism
from refusal.planted import reserved_basis
from refusal.planted_training import save_subspace, train_base

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    params, output = snakemake.params, snakemake.output
    shape, seed = params.settings["architecture"], params.base["seed"]
    folder = Path(snakemake.input.tokenizer[0]).parent
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = build_model(params.base["architecture"], tokenizer, shape, seed)
    reserved = reserved_basis(shape["width"], params.reserved, seed)
    corpus = load_corpus(snakemake.input.corpus)
    record = train_base(model, tokenizer, corpus, reserved, params.settings["helpful"], seed)
    save_organism(Path(output.checkpoint[0]).parent, model, tokenizer)
    save_subspace(output.subspace, reserved)
    Path(output.record).write_text(json.dumps({"seed": seed, **record}, indent=2) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
