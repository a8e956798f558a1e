"""Write the encoded corpus with which refusal is planted, the same for every organism."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from transformers import PreTrainedTokenizerFast

from refusal.grammar import safety_corpus
from refusal.organisms import encode_corpus, save_corpus

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings = snakemake.params.settings
    folder = Path(snakemake.input.tokenizer[0]).parent
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    documents = safety_corpus(settings["documents"], settings, snakemake.params.seed)
    save_corpus(snakemake.output[0], encode_corpus(tokenizer, documents))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
