"""Before tuning: the direction in the checkpoint that safety tuning started from.

REQUIRED INPUTS: activations/, directions/, selection/, and the base checkpoint: of an organism
                 models/<model>-helpful/, else what models.<model>.base of the configuration names
OUTPUTS: before_tuning/<model>/cosines.parquet, before_tuning/<model>/summary.parquet
"""


rule before_tuning:
    input:
        code=library("measure_before_tuning.py"),
        base=base_files,
        commit=lambda wildcards: commit_of(f"{wildcards.model}-base"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        residual=rules.activations.output.residual,
        index=rules.activations.output.index,
        directions="<results>/directions/{model}/dim.npz",
        selection="<results>/selection/{model}/dim.parquet",
        recipe="<results>/interventions/{model}/none.json",
    output:
        cosines="<results>/before_tuning/{model}/cosines.parquet",
        summary="<results>/before_tuning/{model}/summary.parquet",
    log:
        "<logs>/before_tuning/{model}.log",
    benchmark:
        "<benchmarks>/before_tuning/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("before_tuning"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        base=base_path,
        filter=config["directions"]["filter"],
        max_tokens=config["activations"]["max_tokens"],
        settings=config["statistics"],
        seed=config["seed"],
    message:
        "Comparing {wildcards.model} with the checkpoint before safety tuning"
    script:
        "../workflow/scripts/measure_before_tuning.py"
