"""Styles: how the model refuses when it is steered along the direction of every kind of refusal.

REQUIRED INPUTS: kinds/<model>/, knob/<model>/
OUTPUTS: styles/<model>/responses.parquet (with text), distribution.parquet, confusion.parquet,
    summary.parquet
"""


rule styles:
    input:
        code=library("measure_styles.py"),
        directions=rules.kinds.output.directions,
        responses=rules.kinds.output.responses,
        completions=rules.knob.output.completions,
        chosen=rules.knob.output.chosen,
        recipe="<results>/interventions/{model}/none.json",
        commit=commit_of("judge-of-styles"),
    output:
        responses="<results>/styles/{model}/responses.parquet",
        distribution="<results>/styles/{model}/distribution.parquet",
        confusion="<results>/styles/{model}/confusion.parquet",
        summary="<results>/styles/{model}/summary.parquet",
    log:
        "<logs>/styles/{model}.log",
    benchmark:
        "<benchmarks>/styles/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_judge_of_styles(),
    params:
        study=config["study"],
        judge=config["styles"],
        max_tokens=config["generations"]["max_tokens"],
        settings=config["statistics"],
        seed=config["seed"],
    message:
        "Judging how {wildcards.model} refuses when steered"
    script:
        "../workflow/scripts/measure_styles.py"
