"""Figures: every figure of the paper, as vector PDF and as PNG.

REQUIRED INPUTS: statistics/, selection/, <experiment>/<model>/<frame>.parquet
OUTPUTS: figures/<figure>.pdf, .png and .json (where it comes from, and whether it could be drawn)
"""


rule figures:
    input:
        code=library("draw_figures.py"),
        style="workflow/scripts/refusal/figures/style.mplstyle",
        summary=rules.statistics.output.summary,
        agreement=rules.statistics.output.agreement,
        landing=collect(
            "<results>/statistics/geometry/{model}/landing.parquet", model=MODELS
        ),
        projections=collect(
            "<results>/statistics/geometry/{model}/projections.parquet", model=MODELS
        ),
        cosines=collect(
            "<results>/statistics/geometry/{model}/cosines.parquet", model=MODELS
        ),
        selection=collect(
            "<results>/selection/{model}/{method}.parquet",
            model=MODELS,
            method=SELECTED,
        ),
        experiments=experiment_frames(),
    output:
        reported("figures", FIGURES, "png"),
        collect(
            "<results>/figures/{figure}.{suffix}",
            figure=FIGURES,
            suffix=["pdf", "json"],
        ),
    log:
        "<logs>/figures.log",
    benchmark:
        "<benchmarks>/figures.tsv"
    conda:
        "../envs/figures.yaml"
    message:
        "Drawing the figures"
    script:
        "../workflow/scripts/draw_figures.py"
