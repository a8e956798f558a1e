"""Write the tokenizer and the encoded training corpora that all organisms share."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.grammar import helpful_corpus, safety_corpus
from refusal.organisms import encode_corpus, save_corpus, train_tokenizer

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    settings = snakemake.params.settings
    helpful, safety = (
        make(settings[phase]["documents"], settings[phase], settings["corpus_seed"])
        for make, phase in ((helpful_corpus, "helpful"), (safety_corpus, "safety"))
    )
    tokenizer = train_tokenizer(helpful, settings["tokenizer"])
    tokenizer.save_pretrained(Path(snakemake.output.tokenizer[0]).parent)
    save_corpus(snakemake.output.helpful, encode_corpus(tokenizer, helpful))
    save_corpus(snakemake.output.safety, encode_corpus(tokenizer, safety))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
