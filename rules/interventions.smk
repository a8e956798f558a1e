"""Interventions: complete recipes that anyone can load and apply elsewhere.

REQUIRED INPUTS: directions/<model>/, selection/<model>/
OUTPUTS: interventions/<model>/<intervention>.json and .npz
"""


rule interventions:
    input:
        code=library("build_interventions.py"),
        means=rules.directions.output.means,
        directions=rules.directions.output.methods,
        selection=rules.selection.output,
    output:
        collect(
            "<results>/interventions/{{model}}/{intervention}.{suffix}",
            intervention=RECIPES,
            suffix=["json", "npz"],
        ),
    log:
        "<logs>/interventions/{model}.log",
    benchmark:
        "<benchmarks>/interventions/{model}.tsv"
    conda:
        "../envs/models.yaml"
    params:
        recipes=RECIPES,
        seed=config["seed"],
    message:
        "Building the interventions of {wildcards.model}"
    script:
        "../workflow/scripts/build_interventions.py"
