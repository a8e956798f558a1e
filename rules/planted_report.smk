"""Report on planted organisms: claims, figures, tables, and the section that shows them.

REQUIRED INPUTS: planted/organisms.parquet, planted/rates.parquet, planted/<organism>/estimators/
OUTPUTS: planted/estimators/ (the tables of all organisms, with means by kind);
    planted/methods.parquet (every method on every organism, and means), parts.parquet (mean
    difference inside and outside U, by layer), summary.parquet (what the claims are read from),
    claims.json; figures/planted_<figure>, tables/planted_<table>.tex; planted/report.pdf of a study
    without models, else the section is in paper/main.pdf
"""


rule planted_summary:
    input:
        code=library("summarise_planted.py"),
        claims="paper/claims.yaml",
        organisms=rules.planted.output.organisms,
        outcomes=tables_of_planted("outcomes"),
        recovery=tables_of_planted("recovery"),
        split=tables_of_planted("split"),
        candidates=tables_of_planted("candidates"),
    output:
        outcomes="<results>/planted/estimators/outcomes.parquet",
        recovery="<results>/planted/estimators/recovery.parquet",
        split="<results>/planted/estimators/split.parquet",
        candidates="<results>/planted/estimators/candidates.parquet",
        methods="<results>/planted/methods.parquet",
        parts="<results>/planted/parts.parquet",
        summary="<results>/planted/summary.parquet",
        claims="<results>/planted/claims.json",
    log:
        "<logs>/planted_summary.log",
    benchmark:
        "<benchmarks>/planted_summary.tsv"
    localrule: True
    conda:
        "../envs/statistics.yaml"
    params:
        confidence=config["statistics"]["confidence"],
    message:
        "Joining the tables of all planted organisms, and checking the claims on them"
    script:
        "../workflow/scripts/summarise_planted.py"


rule planted_shown:
    input:
        code=library("show_planted.py"),
        style="workflow/scripts/refusal/figures/style.mplstyle",
        organisms=rules.planted.output.organisms,
        rates=rules.planted.output.rates,
        recovery=rules.planted_summary.output.recovery,
        methods=rules.planted_summary.output.methods,
        parts=rules.planted_summary.output.parts,
    output:
        reported("figures", PLANTED_SHOWN["figures"], "png"),
        collect(
            "<results>/figures/{figure}.{suffix}",
            figure=PLANTED_SHOWN["figures"],
            suffix=["pdf", "json"],
        ),
        tables=reported("tables", PLANTED_SHOWN["tables"], "tex"),
    log:
        "<logs>/planted_shown.log",
    benchmark:
        "<benchmarks>/planted_shown.tsv"
    conda:
        "../envs/figures.yaml"
    message:
        "Drawing figures and writing tables of the planted organisms"
    script:
        "../workflow/scripts/show_planted.py"


# On the machine that starts the workflow: compute nodes seldom have TeX.
rule planted_report:
    input:
        code=library("write_planted_report.py"),
        templates=[
            "paper/planted.tex.j2",
            "paper/sections/planted.tex.j2",
            "paper/sections/macros.tex.j2",
        ],
        bibliography="paper/references.bib",
        config=rules.config.output[0],
        planted=planted_section_files(),
        planted_shown=rules.planted_shown.output,
    output:
        pdf=report(
            "<results>/planted/report.pdf",
            caption="../report/planted.rst",
            category="Planted organisms",
            labels={"file": "report.pdf"},
        ),
        source="<results>/planted/report.tex",
        numbers="<results>/planted/numbers.tex",
    log:
        "<logs>/planted_report.log",
    benchmark:
        "<benchmarks>/planted_report.tsv"
    localrule: True
    conda:
        "../envs/paper.yaml"
    message:
        "Writing the report on planted organisms"
    script:
        "../workflow/scripts/write_planted_report.py"
