"""Claims: each published statement with what was measured for it, and the verdict.

REQUIRED INPUTS: paper/claims.yaml, statistics/summary.parquet, statistics/comparisons.parquet
OUTPUTS: claims.json
"""


# Seconds of work: not worth waiting in a queue of a cluster.
rule claims:
    input:
        code=library("check_claims.py"),
        claims="paper/claims.yaml",
        summary=rules.statistics.output.summary,
        comparisons=rules.statistics.output.comparisons,
    output:
        "<results>/claims.json",
    log:
        "<logs>/claims.log",
    benchmark:
        "<benchmarks>/claims.tsv"
    localrule: True
    conda:
        "../envs/statistics.yaml"
    message:
        "Checking the published claims"
    script:
        "../workflow/scripts/check_claims.py"
