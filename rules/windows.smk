"""Windows: difference in means ablated over every window of consecutive layers.

REQUIRED INPUTS: models/<model>/card.json, prompts/prompts.parquet, directions/, selection/
OUTPUTS: windows/<model>/map.parquet, windows/<model>/summary.parquet
"""


rule windows:
    input:
        code=library("measure_windows.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        directions="<results>/directions/{model}/dim.npz",
        selection="<results>/selection/{model}/dim.parquet",
        recipe="<results>/interventions/{model}/none.json",
    output:
        map="<results>/windows/{model}/map.parquet",
        summary="<results>/windows/{model}/summary.parquet",
    log:
        "<logs>/windows/{model}.log",
    benchmark:
        "<benchmarks>/windows/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("windows"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        windows=config["windows"],
        generations=config["generations"],
        judges=config["scores"]["judges"],
        grammar=config["prompts"]["source"] == "grammar",
        settings=config["statistics"],
        seed=config["seed"],
    message:
        "Ablating windows of layers of {wildcards.model}"
    script:
        "../workflow/scripts/measure_windows.py"
