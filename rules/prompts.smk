"""Prompts: the merged configuration and one table of all prompts of the study.

OUTPUTS: config.yaml, prompts/prompts.parquet
"""


rule config:
    output:
        "<results>/config.yaml",
    log:
        "<logs>/config.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        config=config,
    message:
        "Writing the merged configuration"
    script:
        "../workflow/scripts/write_config.py"


rule prompts:
    input:
        code=library("write_prompts.py"),
        file=(
            []
            if config["prompts"]["source"] == "grammar"
            else config["prompts"]["source"]
        ),
    output:
        "<results>/prompts/prompts.parquet",
    log:
        "<logs>/prompts.log",
    benchmark:
        "<benchmarks>/prompts.tsv"
    conda:
        "../envs/statistics.yaml"
    params:
        settings=config["prompts"],
        seed=config["seed"],
    message:
        "Making the prompts of all splits"
    script:
        "../workflow/scripts/write_prompts.py"
