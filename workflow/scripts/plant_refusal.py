"""Plant refusal in a base, through random directions of the subspace that it keeps empty."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.models import load_model, load_tokenizer
from refusal.organisms import load_corpus, save_organism
from refusal.planted import planted_basis
from refusal.planted_training import load_subspace, plant_refusal, save_subspace

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    params, output = snakemake.params, snakemake.output
    rank, seed = params.organism["rank"], params.organism["seed"]
    kind = {
        k: params.organism[k]
        for k in ("share_weight", "silence_weight", "place_share", "reader_std")
    }
    folder = Path(snakemake.input.base[0]).parent
    base, tokenizer = load_model(folder), load_tokenizer(folder)
    basis = planted_basis(load_subspace(snakemake.input.reserved), rank, seed)
    corpus = load_corpus(snakemake.input.corpus)
    model, record = plant_refusal(base, tokenizer, corpus, basis, params.settings | kind, seed)
    save_organism(Path(output.checkpoint[0]).parent, model, tokenizer)
    save_subspace(output.subspace, basis)
    record = {**params.organism, **record}
    Path(output.record).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
