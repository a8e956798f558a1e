"""Selection: bypass, induce and KL scores of every candidate, and why it was rejected.

REQUIRED INPUTS: directions/<model>/<method>.npz, models/<model>/card.json, prompts/prompts.parquet
OUTPUTS: selection/<model>/<method>.parquet
"""


rule selection:
    input:
        code=library("select_directions.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        index=rules.activations.output.index,
        directions=collect(
            "<results>/directions/{{model}}/{method}.npz", method=SELECTED
        ),
    output:
        collect("<results>/selection/{{model}}/{method}.parquet", method=SELECTED),
    log:
        "<logs>/selection/{model}.log",
    benchmark:
        "<benchmarks>/selection/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("selection"),
    params:
        model=lookup(within=config, dpath="models/{model}"),
        methods=SELECTED,
        settings=config["selection"],
        filter=config["directions"]["filter"],
    message:
        "Scoring the candidate positions and layers of {wildcards.model}"
    script:
        "../workflow/scripts/select_directions.py"
