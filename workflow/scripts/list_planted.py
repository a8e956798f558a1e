"""List all planted organisms: which are accepted, why others are not, and their rates."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import pandas as pd

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


PLANTED = (
    "base",
    "kind",
    "rank",
    "share_weight",
    "silence_weight",
    "place_share",
    "reader_std",
    "seed",
)


def row(name: str, proof: dict) -> dict:
    """Return an organism's proof as one row."""
    rank = proof["functional_rank"]["test"]
    return {
        "organism": name,
        **{name: proof[name] for name in PLANTED},
        "accepted": proof["accepted"],
        "reasons": "; ".join(proof["reasons"]),
        "functional_rank": rank["value"],
        "functional_rank_low": rank["low"],
        "functional_rank_high": rank["high"],
        "logit_difference": proof["greatest_logit_difference"]["without_subspace"],
        "subspace_share": max(proof["subspace_share_by_layer"]),
        "norms_alone_kl": proof["norms_alone_kl"],
    }


def main(snakemake: "snakemake") -> None:
    names, inputs = snakemake.params.organisms, snakemake.input
    proofs = [json.loads(Path(path).read_text()) for path in inputs.proofs]
    table = pd.DataFrame([row(*pair) for pair in zip(names, proofs, strict=True)])
    table = table.astype({"share_weight": float, "silence_weight": float})
    for entry in table[~table.accepted].itertuples():
        logging.warning("%s is not accepted: %s", entry.organism, entry.reasons)
    table.to_parquet(snakemake.output.organisms, index=False)
    rates = pd.concat([pd.read_parquet(path) for path in inputs.rates], ignore_index=True)
    rates.to_parquet(snakemake.output.rates, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
