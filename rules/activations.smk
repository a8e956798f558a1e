"""Activations: one forward sweep per model, shared by everything after it.

REQUIRED INPUTS: models/<model>/card.json, prompts/prompts.parquet
OUTPUTS: activations/<model>.safetensors, activations/<model>.parquet (index of its rows)
"""


rule activations:
    input:
        code=library("extract_activations.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
    output:
        residual="<results>/activations/{model}.safetensors",
        index="<results>/activations/{model}.parquet",
    log:
        "<logs>/activations/{model}.log",
    benchmark:
        "<benchmarks>/activations/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("activations"),
    params:
        model=lookup(within=config, dpath="models/{model}"),
        settings=config["activations"],
    message:
        "Reading the residual stream of {wildcards.model} at the post-instruction positions"
    script:
        "../workflow/scripts/extract_activations.py"
