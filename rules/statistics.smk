"""Statistics: estimates with intervals, paired comparisons, agreement of judges, geometry.

REQUIRED INPUTS: scores/, losses/, interventions/, activations/, directions/, selection/
OUTPUTS: statistics/summary.parquet, statistics/comparisons.parquet, statistics/agreement.parquet,
         statistics/geometry/
"""


rule geometry:
    input:
        code=library("measure_geometry.py"),
        residual=rules.activations.output.residual,
        index=rules.activations.output.index,
        means=rules.directions.output.means,
        directions=rules.directions.output.methods,
        selection=rules.selection.output,
        recipes=rules.interventions.output,
    output:
        landing="<results>/statistics/geometry/{model}/landing.parquet",
        cosines="<results>/statistics/geometry/{model}/cosines.parquet",
        projections="<results>/statistics/geometry/{model}/projections.parquet",
        summary="<results>/statistics/geometry/{model}/summary.parquet",
    log:
        "<logs>/geometry/{model}.log",
    benchmark:
        "<benchmarks>/geometry/{model}.tsv"
    conda:
        "../envs/models.yaml"
    params:
        study=config["study"],
        settings=config["statistics"],
        seed=config["seed"],
    message:
        "Measuring where the activations of {wildcards.model} land"
    script:
        "../workflow/scripts/measure_geometry.py"


rule angles:
    input:
        code=library("measure_angles.py"),
        directions=collect(
            "<results>/directions/{model}/{method}.npz",
            model=MODELS,
            method=["inlp_faithful", "inlp_corrected"],
        ),
        selection=collect(
            "<results>/selection/{model}/{method}.parquet",
            model=MODELS,
            method=["inlp_faithful", "inlp_corrected"],
        ),
    output:
        "<results>/statistics/angles.parquet",
    log:
        "<logs>/angles.log",
    benchmark:
        "<benchmarks>/angles.tsv"
    conda:
        "../envs/statistics.yaml"
    params:
        seed=config["seed"],
    message:
        "Comparing INLP subspaces across layers and models"
    script:
        "../workflow/scripts/measure_angles.py"


rule statistics:
    input:
        code=library("estimate_statistics.py"),
        claims="paper/claims.yaml",
        recipes=collect(
            "<results>/interventions/{model}/{intervention}.json",
            model=MODELS,
            intervention=RECIPES,
        ),
        scores=collect(
            "<results>/scores/{model}/{intervention}.parquet",
            model=MODELS,
            intervention=RECIPES,
        ),
        losses=collect(
            "<results>/losses/{model}/{intervention}.parquet",
            model=MODELS,
            intervention=WITH_LOSSES,
        ),
        geometry=collect(
            "<results>/statistics/geometry/{model}/summary.parquet", model=MODELS
        ),
        experiments=collect(
            "<results>/{experiment}/{model}/summary.parquet",
            experiment=EXPERIMENTS,
            model=MODELS,
        ),
    output:
        summary="<results>/statistics/summary.parquet",
        comparisons="<results>/statistics/comparisons.parquet",
        agreement="<results>/statistics/agreement.parquet",
    log:
        "<logs>/statistics.log",
    benchmark:
        "<benchmarks>/statistics.tsv"
    conda:
        "../envs/statistics.yaml"
    params:
        study=config["study"],
        models=MODELS,
        settings=config["statistics"],
        seed=config["seed"],
    message:
        "Estimating rates, differences and agreement, with intervals"
    script:
        "../workflow/scripts/estimate_statistics.py"
