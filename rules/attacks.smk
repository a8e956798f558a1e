"""Attacks: success of prompts and interventions, with and without a refusing system prompt.

REQUIRED INPUTS: suffixes/<model>.json, models/<model>/card.json, prompts/prompts.parquet,
    interventions/<model>/, scores/<model>/ (direct requests without system prompt)
OUTPUTS: attacks/<model>/completions.parquet, attacks/<model>/summary.parquet
"""

ATTACKING = config["attacks"]["interventions"]


rule attacks:
    input:
        code=library("measure_attacks.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        suffixes=rules.suffixes.output,
        interventions=collect(
            "<results>/interventions/{{model}}/{intervention}.{suffix}",
            intervention=["none", *ATTACKING],
            suffix=["json", "npz"],
        ),
        scores=collect(
            "<results>/scores/{{model}}/{intervention}.parquet",
            intervention=["none", *ATTACKING],
        ),
    output:
        completions="<results>/attacks/{model}/completions.parquet",
        summary="<results>/attacks/{model}/summary.parquet",
    log:
        "<logs>/attacks/{model}.log",
    benchmark:
        "<benchmarks>/attacks/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("attacks"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        settings=config["attacks"],
        generations=config["generations"],
        judges=config["scores"]["judges"],
        grammar=config["prompts"]["source"] == "grammar",
        statistics=config["statistics"],
        seed=config["seed"],
    message:
        "Attacking {wildcards.model} by prompts and interventions"
    script:
        "../workflow/scripts/measure_attacks.py"
