"""Suffix: what an adversarial suffix does to the direction, to heads and to their attention.

REQUIRED INPUTS: suffixes/<model>.json, directions/<model>/dim.npz, selection/<model>/dim.parquet,
                 prompts/prompts.parquet, activations/<model>.parquet
OUTPUTS: suffix/<model>/cosines.parquet, suffix/<model>/heads.parquet,
         suffix/<model>/attention.parquet, suffix/<model>/summary.parquet
"""


rule suffix:
    input:
        code=library("measure_suffix.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        index=rules.activations.output.index,
        suffixes=rules.suffixes.output,
        directions="<results>/directions/{model}/dim.npz",
        selection="<results>/selection/{model}/dim.parquet",
        recipe="<results>/interventions/{model}/none.json",
    output:
        cosines="<results>/suffix/{model}/cosines.parquet",
        heads="<results>/suffix/{model}/heads.parquet",
        attention="<results>/suffix/{model}/attention.parquet",
        summary="<results>/suffix/{model}/summary.parquet",
    log:
        "<logs>/suffix/{model}.log",
    benchmark:
        "<benchmarks>/suffix/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("suffix"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        settings=config["heads"],
        statistics=config["statistics"],
        seed=config["seed"],
        filter=config["directions"]["filter"],
        max_tokens=config["activations"]["max_tokens"],
    message:
        "Measuring what the suffix does inside {wildcards.model}"
    script:
        "../workflow/scripts/measure_suffix.py"
