"""Suffixes: an adversarial suffix per model, and random ones of equal length as control.

REQUIRED INPUTS: models/<model>/card.json, models/<model>-helpful/ (organisms),
    prompts/prompts.parquet
OUTPUTS: suffixes/<model>.json
"""


rule suffixes:
    input:
        code=library("find_suffix.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        helpful=helpful_files,
    output:
        "<results>/suffixes/{model}.json",
    log:
        "<logs>/suffixes/{model}.log",
    benchmark:
        "<benchmarks>/suffixes/{model}.tsv"
    conda:
        "../envs/models.yaml"
    # One thread, so that the search does not depend on the number of cores.
    threads: 1
    resources:
        **for_model("suffixes"),
    params:
        model=lookup(within=config, dpath="models/{model}"),
        settings=config["suffix"],
        generations=config["generations"],
        grammar=config["prompts"]["source"] == "grammar",
        seed=config["seed"],
    message:
        "Finding an adversarial suffix for {wildcards.model}"
    script:
        "../workflow/scripts/find_suffix.py"
