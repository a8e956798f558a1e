"""Sparse features: a sparse autoencoder of the residual stream, and what the kinds share in it.

REQUIRED INPUTS: models/<model>/card.json, prompts/prompts.parquet, kinds/<model>/directions.npz
OUTPUTS: sparse_features/<model>/autoencoder.safetensors, features.parquet, sharing.parquet,
    overlap.parquet, steering.parquet, summary.parquet
"""


rule sparse_features:
    input:
        code=library("measure_sparse_features.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        directions=rules.kinds.output.directions,
        recipe="<results>/interventions/{model}/none.json",
    output:
        autoencoder="<results>/sparse_features/{model}/autoencoder.safetensors",
        features="<results>/sparse_features/{model}/features.parquet",
        sharing="<results>/sparse_features/{model}/sharing.parquet",
        overlap="<results>/sparse_features/{model}/overlap.parquet",
        steering="<results>/sparse_features/{model}/steering.parquet",
        summary="<results>/sparse_features/{model}/summary.parquet",
    log:
        "<logs>/sparse_features/{model}.log",
    benchmark:
        "<benchmarks>/sparse_features/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("sparse_features"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        sparse_features=config["sparse_features"],
        activations=config["activations"],
        generations=config["generations"],
        grammar=config["prompts"]["source"] == "grammar",
        settings=config["statistics"],
        seed=config["seed"],
    message:
        "Finding the sparse features of refusal of {wildcards.model}"
    script:
        "../workflow/scripts/measure_sparse_features.py"
