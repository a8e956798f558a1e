"""Generations: greedy completions of the test prompts under every intervention.

One job runs all interventions on a model, so that it is loaded once, or a family of them
(`split_by_family`).

REQUIRED INPUTS: interventions/<model>/, models/<model>/card.json, prompts/prompts.parquet
OUTPUTS: generations/<model>/<intervention>.parquet
"""

# Other stages need the completions without intervention: they have a job of their own.
BASELINE = [name for name in STEERED if RECIPES[name]["operator"] == "none"]

for job, members in {
    "baseline": BASELINE,
    **jobs_of_a_model([name for name in STEERED if name not in BASELINE]),
}.items():

    rule:
        name:
            f"generations_{job}"
        input:
            code=library("generate.py"),
            card=rules.card.output,
            prompts=rules.prompts.output,
            interventions=collect(
                "<results>/interventions/{{model}}/{intervention}.{suffix}",
                intervention=members,
                suffix=["json", "npz"],
            ),
        output:
            collect(
                "<results>/generations/{{model}}/{intervention}.parquet",
                intervention=members,
            ),
        log:
            f"<logs>/generations/{{model}}/{job}.log",
        benchmark:
            f"<benchmarks>/generations/{{model}}/{job}.tsv"
        # The longest jobs come first: short ones are left for the end, when cores fall idle.
        priority: 1
        conda:
            "../envs/models.yaml"
        resources:
            **for_model("generations", len(members) / len(RECIPES)),
        params:
            model=lookup(within=config, dpath="models/{model}"),
            interventions=members,
            settings=config["generations"],
            store=f"{RESULTS}/store/generations",
        message:
            f"Generating with {{wildcards.model}} under {job}"
        script:
            "../workflow/scripts/generate.py"
