"""Generations: greedy completions of the test prompts under every intervention.

One job runs one family of interventions on one model, so that the model is loaded once.

REQUIRED INPUTS: interventions/<model>/, models/<model>/card.json, prompts/prompts.parquet
OUTPUTS: generations/<model>/<intervention>.parquet
"""

for family, members in families(STEERED).items():

    rule:
        name:
            f"generations_{family}"
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
            f"<logs>/generations/{{model}}/{family}.log",
        benchmark:
            f"<benchmarks>/generations/{{model}}/{family}.tsv"
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
            f"Generating with {{wildcards.model}} under {family}"
        script:
            "../workflow/scripts/generate.py"
