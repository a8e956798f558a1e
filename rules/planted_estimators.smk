"""Estimators on planted organisms: how much of the known subspace U and of its effect each finds.

REQUIRED INPUTS: planted/<organism>/, planted/bases/<base>/, prompts/prompts.parquet
OUTPUTS: planted/<organism>/estimators/: responses.parquet (with text), outcomes.parquet (every
    intervention), recovery.parquet (of U, by number of directions), split.parquet (mean
    difference inside and outside U, by layer), candidates.parquet (scores, and why the filters of
    a method reject a candidate, U itself among them)
"""


rule planted_estimators:
    input:
        code=library("measure_planted.py"),
        checkpoint=rules.planted_organism.output.checkpoint,
        subspace=rules.planted_organism.output.subspace,
        base=lambda wildcards: planted_base_files(wildcards.organism),
        proof=rules.planted_proof.output.proof,
        prompts=rules.prompts.output[0],
    output:
        responses="<results>/planted/{organism}/estimators/responses.parquet",
        outcomes="<results>/planted/{organism}/estimators/outcomes.parquet",
        recovery="<results>/planted/{organism}/estimators/recovery.parquet",
        split="<results>/planted/{organism}/estimators/split.parquet",
        candidates="<results>/planted/{organism}/estimators/candidates.parquet",
    log:
        "<logs>/planted_estimators/{organism}.log",
    benchmark:
        "<benchmarks>/planted_estimators/{organism}.tsv"
    wildcard_constraints:
        organism="|".join(PLANTED) or "none",
    conda:
        "../envs/models.yaml"
    params:
        organism="{organism}",
        planted=lambda wildcards: PLANTED[wildcards.organism],
        planting=config["planted"]["planting"],
        limits={
            name: config["planted"]["proof"][name]
            for name in ("max_new_tokens", "max_tokens")
        },
        settings=config["planted"]["estimators"],
        directions={k: config["directions"][k] for k in ("filter", "inlp")},
        selection=config["selection"],
        text_tokens=config["losses"]["text_tokens"],
        statistics=config["statistics"],
        seed=config["seed"],
    message:
        "Running every estimator on {wildcards.organism}"
    script:
        "../workflow/scripts/measure_planted.py"
