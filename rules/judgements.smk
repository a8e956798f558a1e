"""Judgements: what models that judge say of the completions under every intervention.

One job per model and judge, so that the judge is loaded once.

REQUIRED INPUTS: generations/<model>/, prompts/prompts.parquet
OUTPUTS: judgements/<model>/<judge>.parquet (rows of scores with the raw verdict)
"""


rule judgements:
    input:
        code=library("judge.py"),
        judge=judge_files,
        commit=lambda wildcards: commit_of(f"judge-{wildcards.judge}"),
        base_commit=lambda wildcards: commit_of(f"judge-{wildcards.judge}-base"),
        prompts=rules.prompts.output,
        generations=collect(
            "<results>/generations/{{model}}/{intervention}.parquet",
            intervention=RECIPES,
        ),
    output:
        "<results>/judgements/{model}/{judge}.parquet",
    log:
        "<logs>/judgements/{model}/{judge}.log",
    benchmark:
        "<benchmarks>/judgements/{model}/{judge}.tsv"
    conda:
        "../envs/judge.yaml"
    resources:
        **for_judge(),
    params:
        judge=judge_settings,
        max_tokens=config["generations"]["max_tokens"],
        store=f"{RESULTS}/store/judgements",
    message:
        "Asking {wildcards.judge} about the completions of {wildcards.model}"
    script:
        "../workflow/scripts/judge.py"
