"""Archive: a finished study as one file for review, and the source of its paper for arXiv.

Made when asked for (`make archive`), never by `rule all`.

REQUIRED INPUTS: everything that the study makes, the files that git tracks
OUTPUTS: archive/<study>.zip, archive/arxiv.tar.gz
"""


rule submission:
    input:
        code=library("write_submission.py"),
        paper=rules.paper.output.source,
        numbers=rules.paper.output.numbers,
        bibliography="paper/references.bib",
        figures=rules.figures.output,
        tables=rules.tables.output,
        planted=rules.planted_shown.output if PLANTED else [],
    output:
        "<results>/archive/arxiv.tar.gz",
    log:
        "<logs>/submission.log",
    benchmark:
        "<benchmarks>/submission.tsv"
    conda:
        "../envs/paper.yaml"
    message:
        "Packing the source of the paper for arXiv"
    script:
        "../workflow/scripts/write_submission.py"


rule archive:
    input:
        code=library("write_archive.py"),
        tracked=tracked_files,
        config=rules.config.output[0],
        results=run_outputs(),
        # A study without models has no paper.
        bundle=rules.submission.output[0] if MODELS else [],
    output:
        f"<results>/archive/{config['study']}.zip",
    log:
        "<logs>/archive.log",
    benchmark:
        "<benchmarks>/archive.tsv"
    conda:
        "../envs/archive.yaml"
    message:
        "Packing the study into one file"
    script:
        "../workflow/scripts/write_archive.py"
