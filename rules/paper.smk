"""Paper: the templates filled in with what was measured, compiled to PDF.

REQUIRED INPUTS: paper/, figures/, tables/, claims.json
OUTPUTS: paper/main.pdf, paper/main.tex
"""


# On the machine that starts the workflow: compute nodes seldom have TeX.
rule paper:
    input:
        code=library("write_paper.py"),
        templates=[
            "paper/main.tex.j2",
            *sorted(map(str, Path("paper/sections").glob("*.j2"))),
        ],
        bibliography="paper/references.bib",
        # Marked here: the report shows the parameters of a job, and those of `config` are all keys.
        config=report(
            rules.config.output[0],
            caption="../report/config.rst",
            category="Configuration",
            labels={"file": "config.yaml"},
        ),
        cards=collect("<results>/models/{model}/card.json", model=MODELS),
        claims=rules.claims.output[0],
        summary=rules.statistics.output.summary,
        figures=rules.figures.output,
        tables=rules.tables.output.tables,
        numbers=rules.tables.output.numbers,
        planted=planted_section_files(),
        planted_shown=rules.planted_shown.output if PLANTED else [],
    output:
        pdf=report(
            "<results>/paper/main.pdf",
            caption="../report/paper.rst",
            category="Paper",
            labels={"file": "main.pdf"},
        ),
        source="<results>/paper/main.tex",
        numbers="<results>/paper/numbers.tex",
    log:
        "<logs>/paper.log",
    benchmark:
        "<benchmarks>/paper.tsv"
    localrule: True
    conda:
        "../envs/paper.yaml"
    params:
        organisms=bool(ORGANISMS),
    message:
        "Writing the paper"
    script:
        "../workflow/scripts/write_paper.py"
