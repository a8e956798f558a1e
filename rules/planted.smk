"""Planted organisms: refusal mediated by a known subspace U, and the proof that it is.

REQUIRED INPUTS: models/tokenizer/, models/corpora/helpful.npz, prompts/prompts.parquet
OUTPUTS: planted/bases/<base>/ (helpful-only), planted/<organism>/ (checkpoint, subspace.npz,
    training.json, responses.parquet (with text), rates.parquet, proof.json),
    planted/organisms.parquet (which are accepted, and why others are not), planted/rates.parquet
"""


rule planted_corpus:
    input:
        code=library("write_planted_corpus.py"),
        tokenizer=rules.corpora.output.tokenizer,
    output:
        "<results>/planted/corpus.npz",
    log:
        "<logs>/planted_corpus.log",
    benchmark:
        "<benchmarks>/planted_corpus.tsv"
    conda:
        "../envs/models.yaml"
    params:
        settings=config["planted"]["planting"],
        seed=config["organism"]["corpus_seed"],
    message:
        "Writing the corpus with which refusal is planted"
    script:
        "../workflow/scripts/write_planted_corpus.py"


rule planted_base:
    input:
        code=library("train_planted_base.py"),
        tokenizer=rules.corpora.output.tokenizer,
        corpus=rules.corpora.output.helpful,
    output:
        checkpoint=collect(
            "<results>/planted/bases/{{base}}/{file}", file=CHECKPOINT_FILES
        ),
        subspace="<results>/planted/bases/{base}/subspace.npz",
        record="<results>/planted/bases/{base}/training.json",
    log:
        "<logs>/planted_base/{base}.log",
    benchmark:
        "<benchmarks>/planted_base/{base}.tsv"
    wildcard_constraints:
        base="|".join(config["planted"]["bases"]) or "none",
    conda:
        "../envs/models.yaml"
    # One thread, so that the weights do not depend on the number of cores.
    threads: 1
    params:
        settings=config["organism"],
        base=lookup(within=config, dpath="planted/bases/{base}"),
        reserved=config["planted"]["reserved"],
    message:
        "Training base {wildcards.base}: helpful-only, with an empty subspace"
    script:
        "../workflow/scripts/train_planted_base.py"


rule planted_organism:
    input:
        code=library("plant_refusal.py"),
        base=lambda wildcards: planted_base_files(wildcards.organism),
        reserved=lambda wildcards: reserved_subspace(wildcards.organism),
        corpus=rules.planted_corpus.output[0],
    output:
        checkpoint=collect(
            "<results>/planted/{{organism}}/{file}", file=CHECKPOINT_FILES
        ),
        subspace="<results>/planted/{organism}/subspace.npz",
        record="<results>/planted/{organism}/training.json",
    log:
        "<logs>/planted_organism/{organism}.log",
    benchmark:
        "<benchmarks>/planted_organism/{organism}.tsv"
    wildcard_constraints:
        organism="|".join(PLANTED) or "none",
    conda:
        "../envs/models.yaml"
    threads: 1
    params:
        settings=config["planted"]["planting"],
        organism=lambda wildcards: PLANTED[wildcards.organism],
    message:
        "Planting refusal: {wildcards.organism}"
    script:
        "../workflow/scripts/plant_refusal.py"


rule planted_proof:
    input:
        code=library("prove_planted.py"),
        checkpoint=rules.planted_organism.output.checkpoint,
        subspace=rules.planted_organism.output.subspace,
        base=lambda wildcards: planted_base_files(wildcards.organism),
        prompts=rules.prompts.output[0],
    output:
        responses="<results>/planted/{organism}/responses.parquet",
        rates="<results>/planted/{organism}/rates.parquet",
        proof="<results>/planted/{organism}/proof.json",
    log:
        "<logs>/planted_proof/{organism}.log",
    benchmark:
        "<benchmarks>/planted_proof/{organism}.tsv"
    wildcard_constraints:
        organism="|".join(PLANTED) or "none",
    conda:
        "../envs/models.yaml"
    params:
        organism=lambda wildcards: PLANTED[wildcards.organism],
        planting=config["planted"]["planting"],
        settings=config["planted"]["proof"],
        acceptance=config["planted"]["acceptance"],
        statistics=config["statistics"],
        seed=config["seed"],
    message:
        "Proving what mediates the refusal of {wildcards.organism}"
    script:
        "../workflow/scripts/prove_planted.py"


rule planted:
    input:
        code=library("list_planted.py"),
        proofs=collect("<results>/planted/{organism}/proof.json", organism=PLANTED),
        rates=collect("<results>/planted/{organism}/rates.parquet", organism=PLANTED),
    output:
        organisms="<results>/planted/organisms.parquet",
        rates="<results>/planted/rates.parquet",
    log:
        "<logs>/planted.log",
    localrule: True
    conda:
        "../envs/statistics.yaml"
    params:
        organisms=list(PLANTED),
    message:
        "Listing the planted organisms, accepted or not"
    script:
        "../workflow/scripts/list_planted.py"
