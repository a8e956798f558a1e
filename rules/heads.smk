"""Heads: refusal induced on harmless prompts by patching in a few heads of harmful ones.

REQUIRED INPUTS: models/<model>/card.json, prompts/prompts.parquet, activations/<model>.parquet
OUTPUTS: heads/<model>/curve.parquet, heads/<model>/summary.parquet
"""


rule heads:
    input:
        code=library("measure_heads.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        index=rules.activations.output.index,
        recipe="<results>/interventions/{model}/none.json",
    output:
        curve="<results>/heads/{model}/curve.parquet",
        summary="<results>/heads/{model}/summary.parquet",
    log:
        "<logs>/heads/{model}.log",
    benchmark:
        "<benchmarks>/heads/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("heads"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        settings=config["heads"],
        statistics=config["statistics"],
        seed=config["seed"],
        filter=config["directions"]["filter"],
        max_tokens=config["activations"]["max_tokens"],
    message:
        "Patching attention heads of {wildcards.model} from harmful into harmless prompts"
    script:
        "../workflow/scripts/measure_heads.py"
