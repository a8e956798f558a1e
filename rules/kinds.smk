"""Kinds of refusal: the direction of every kind, how alike they are, and refusal without each.

REQUIRED INPUTS: models/<model>/card.json, prompts/prompts.parquet, directions/, selection/,
    interventions/<model>/
OUTPUTS: kinds/<model>/directions.npz, responses.parquet and completions.parquet (with text),
    behaviour.parquet, cosines.parquet, stability.parquet, span.parquet, ablation.parquet,
    summary.parquet
"""


rule kinds:
    input:
        code=library("measure_kinds.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        dim="<results>/directions/{model}/dim.npz",
        inlp_faithful="<results>/directions/{model}/inlp_faithful.npz",
        inlp_corrected="<results>/directions/{model}/inlp_corrected.npz",
        selection="<results>/selection/{model}/dim.parquet",
        recipe="<results>/interventions/{model}/none.json",
        interventions=collect(
            "<results>/interventions/{{model}}/{intervention}.json",
            intervention=config["kinds"]["interventions"],
        ),
    output:
        directions="<results>/kinds/{model}/directions.npz",
        responses="<results>/kinds/{model}/responses.parquet",
        completions="<results>/kinds/{model}/completions.parquet",
        behaviour="<results>/kinds/{model}/behaviour.parquet",
        cosines="<results>/kinds/{model}/cosines.parquet",
        stability="<results>/kinds/{model}/stability.parquet",
        span="<results>/kinds/{model}/span.parquet",
        ablation="<results>/kinds/{model}/ablation.parquet",
        summary="<results>/kinds/{model}/summary.parquet",
    log:
        "<logs>/kinds/{model}.log",
    benchmark:
        "<benchmarks>/kinds/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("kinds"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        kinds=config["kinds"],
        draws=config["directions"]["random"]["draws"],
        activations=config["activations"],
        generations=config["generations"],
        grammar=config["prompts"]["source"] == "grammar",
        settings=config["statistics"],
        seed=config["seed"],
    message:
        "Comparing the kinds of refusal of {wildcards.model}"
    script:
        "../workflow/scripts/measure_kinds.py"
