"""Prompts: the merged configuration and one table of all prompts of the study.

OUTPUTS: config.yaml, prompts/prompts.parquet, and if asked for: prompts/splits/ (the published files),
         prompts/texts.parquet (Pile and Alpaca), prompts/published_kinds.parquet
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
        # With what a run is compared is no part of it, and makes nothing of it again.
        config={key: value for key, value in config.items() if key != "compare"},
    message:
        "Writing the merged configuration"
    script:
        "../workflow/scripts/write_config.py"


rule splits:
    input:
        code=library("fetch_splits.py"),
        table="paper/published/splits.yaml",
    output:
        collect("<results>/prompts/splits/{file}.json", file=PUBLISHED_SPLITS),
    log:
        "<logs>/splits.log",
    benchmark:
        "<benchmarks>/splits.tsv"
    localrule: True
    conda:
        "../envs/data.yaml"
    params:
        names=PUBLISHED_SPLITS,
        mirror=config["prompts"]["mirror"],
    message:
        "Fetching the published splits"
    script:
        "../workflow/scripts/fetch_splits.py"


rule texts:
    input:
        code=library("fetch_texts.py"),
        table="paper/published/splits.yaml",
    output:
        "<results>/prompts/texts.parquet",
    log:
        "<logs>/texts.log",
    benchmark:
        "<benchmarks>/texts.tsv"
    localrule: True
    conda:
        "../envs/data.yaml"
    params:
        size=config["prompts"]["sizes"]["text"],
        mirror=config["prompts"]["mirror"],
        seed=config["seed"],
    message:
        "Fetching the published texts on which losses are measured"
    script:
        "../workflow/scripts/fetch_texts.py"


rule published_kinds:
    input:
        code=library("fetch_kinds.py"),
        table="paper/published/kinds.yaml",
    output:
        "<results>/prompts/published_kinds.parquet",
    log:
        "<logs>/published_kinds.log",
    benchmark:
        "<benchmarks>/published_kinds.tsv"
    localrule: True
    conda:
        "../envs/data.yaml"
    params:
        settings=config["prompts"],
        seed=config["seed"],
    message:
        "Fetching the published prompts of the kinds of refusal"
    script:
        "../workflow/scripts/fetch_kinds.py"


rule prompts:
    input:
        code=library("write_prompts.py"),
        kinds=(
            rules.published_kinds.output
            if config["prompts"]["published_kinds"]
            else []
        ),
        texts=rules.texts.output if config["prompts"]["texts"] else [],
        splits=rules.splits.output if PROMPT_SOURCE == "arditi2024" else [],
        table=rules.splits.input.table if PROMPT_SOURCE == "arditi2024" else [],
        file=[] if PROMPT_SOURCE in ("grammar", "arditi2024") else PROMPT_SOURCE,
    output:
        "<results>/prompts/prompts.parquet",
    log:
        "<logs>/prompts.log",
    benchmark:
        "<benchmarks>/prompts.tsv"
    # It takes seconds: on a cluster it would wait in the queue for longer than it runs.
    localrule: True
    conda:
        "../envs/statistics.yaml"
    params:
        settings=config["prompts"],
        seed=config["seed"],
    message:
        "Making the prompts of all splits"
    script:
        "../workflow/scripts/write_prompts.py"
