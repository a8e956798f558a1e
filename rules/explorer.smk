"""Explorer: one page that shows the study, with everything it needs written into it.

REQUIRED INPUTS: prompts/, generations/, scores/, statistics/, selection/, claims.json
OUTPUTS: explorer.html
"""


# Seconds of work: not worth waiting in a queue of a cluster.
rule explorer:
    input:
        code=library("write_explorer.py"),
        parts=collect(
            "workflow/scripts/refusal/explorer/page.{suffix}",
            suffix=["html.j2", "css", "js"],
        ),
        prompts=rules.prompts.output[0],
        claims=rules.claims.output[0],
        summary=rules.statistics.output.summary,
        landing=collect(
            "<results>/statistics/geometry/{model}/landing.parquet", model=MODELS
        ),
        selection=collect(
            "<results>/selection/{model}/{method}.parquet",
            model=MODELS,
            method=SELECTED,
        ),
        generations=collect(
            "<results>/generations/{model}/{intervention}.parquet",
            model=MODELS,
            intervention=RECIPES,
        ),
        scores=collect(
            "<results>/scores/{model}/{intervention}.parquet",
            model=MODELS,
            intervention=RECIPES,
        ),
    output:
        report(
            "<results>/explorer.html",
            caption="../report/explorer.rst",
            category="Explorer",
            labels={"file": "explorer.html"},
        ),
    log:
        "<logs>/explorer.log",
    benchmark:
        "<benchmarks>/explorer.tsv"
    localrule: True
    conda:
        "../envs/explorer.yaml"
    params:
        study=config["study"],
        organisms=ORGANISMS,
        settings=config["explorer"],
    message:
        "Writing the explorer"
    script:
        "../workflow/scripts/write_explorer.py"
