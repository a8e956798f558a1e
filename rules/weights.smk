"""Weights: does an edit of the weights in memory do what hooks do?

Compared are the interventions of scope weights, and the projections in every write that take the
full subspace, random ones left out; without one there is nothing to measure.

REQUIRED INPUTS: interventions/<model>/, prompts/prompts.parquet
OUTPUTS: weights/<model>/prompts.parquet, weights/<model>/summary.parquet
"""


rule weights:
    input:
        code=library("measure_weights.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        interventions=collect(
            "<results>/interventions/{{model}}/{intervention}.{suffix}",
            intervention=[
                name
                for name, recipe in RECIPES.items()
                if (recipe["operator"], recipe["tokens"]) == ("project", "all")
                and recipe["direction"] != "random"
                and recipe["scope"] in ("weights", "writes")
                and (recipe["scope"] == "weights" or recipe["k"] == "full")
            ],
            suffix=["json", "npz"],
        ),
    output:
        prompts="<results>/weights/{model}/prompts.parquet",
        summary="<results>/weights/{model}/summary.parquet",
    log:
        "<logs>/weights/{model}.log",
    benchmark:
        "<benchmarks>/weights/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("weights"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        settings=config["statistics"],
        seed=config["seed"],
        max_tokens=config["activations"]["max_tokens"],
    message:
        "Comparing edited weights of {wildcards.model} with hooks"
    script:
        "../workflow/scripts/measure_weights.py"
