"""Tables: every table of the paper as LaTeX, and the numbers that its text quotes.

REQUIRED INPUTS: statistics/, selection/, claims.json, models/<model>/card.json,
    <experiment>/<model>/<frame>.parquet, paper/published/harmbench.yaml
OUTPUTS: tables/<table>.tex, tables/numbers.json
"""


# Seconds of work: not worth waiting in a queue of a cluster.
rule tables:
    input:
        code=library("write_tables.py"),
        cards=collect("<results>/models/{model}/card.json", model=MODELS),
        means=collect("<results>/directions/{model}/means.npz", model=MODELS),
        claims=rules.claims.output[0],
        summary=rules.statistics.output.summary,
        comparisons=rules.statistics.output.comparisons,
        agreement=rules.statistics.output.agreement,
        angles=rules.angles.output[0],
        cosines=collect(
            "<results>/statistics/geometry/{model}/cosines.parquet", model=MODELS
        ),
        selection=collect(
            "<results>/selection/{model}/{method}.parquet",
            model=MODELS,
            method=SELECTED,
        ),
        experiments=experiment_frames(),
        published="paper/published/harmbench.yaml",
        prompts=rules.prompts.output,
        # Never the completions of a model that is not an organism: theirs are not content-free.
        examples=collect(
            "<results>/generations/{model}/{intervention}.parquet",
            model=ORGANISMS[: config["paper"]["examples"]],
            intervention=EXAMPLES,
        ),
    output:
        tables=reported("tables", TABLES, "tex"),
        numbers="<results>/tables/numbers.json",
    log:
        "<logs>/tables.log",
    benchmark:
        "<benchmarks>/tables.tsv"
    localrule: True
    conda:
        "../envs/paper.yaml"
    message:
        "Writing the tables and the numbers of the text"
    script:
        "../workflow/scripts/write_tables.py"
