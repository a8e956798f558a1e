"""Fine-tuning: a low-rank adapter trained in memory, measured like every other intervention.

One job per model trains it and writes generations and losses; no weights are saved.

REQUIRED INPUTS: models/<model>/card.json, prompts/prompts.parquet,
                 generations/<model>/none.parquet (own completions)
OUTPUTS: generations/<model>/<intervention>.parquet, losses/<model>/<intervention>.parquet
"""

FINE_TUNED = [
    name for name, recipe in RECIPES.items() if recipe["operator"] == "fine_tune"
]
for name in FINE_TUNED:

    rule:
        name:
            f"fine_tuning_{name}"
        input:
            code=library("fine_tune.py"),
            card=rules.card.output,
            prompts=rules.prompts.output,
            own="<results>/generations/{model}/none.parquet",
        output:
            generations=f"<results>/generations/{{model}}/{name}.parquet",
            losses=f"<results>/losses/{{model}}/{name}.parquet",
        log:
            f"<logs>/fine_tuning/{{model}}/{name}.log",
        benchmark:
            f"<benchmarks>/fine_tuning/{{model}}/{name}.tsv"
        conda:
            "../envs/models.yaml"
        # One thread, so that the adapter does not depend on the number of cores.
        threads: 1
        resources:
            **for_model("fine_tuning"),
        params:
            model=lookup(within=config, dpath="models/{model}"),
            settings=config["fine_tuning"],
            generations=config["generations"],
            losses=config["losses"],
            seed=config["seed"],
        message:
            "Fine-tuning {wildcards.model} on compliant answers"
        script:
            "../workflow/scripts/fine_tune.py"
