"""Losses: cross-entropy on three corpora, capability, and KL under every intervention.

REQUIRED INPUTS: interventions/<model>/, generations/<model>/none.parquet (own completions)
OUTPUTS: losses/<model>/<intervention>.parquet
"""

for job, members in jobs_of_a_model([n for n in WITH_LOSSES if n in STEERED]).items():

    rule:
        name:
            f"losses_{job}"
        input:
            code=library("measure_losses.py"),
            card=rules.card.output,
            prompts=rules.prompts.output,
            own="<results>/generations/{model}/none.parquet",
            interventions=collect(
                "<results>/interventions/{{model}}/{intervention}.{suffix}",
                intervention=members,
                suffix=["json", "npz"],
            ),
        output:
            collect(
                "<results>/losses/{{model}}/{intervention}.parquet",
                intervention=members,
            ),
        log:
            f"<logs>/losses/{{model}}/{job}.log",
        benchmark:
            f"<benchmarks>/losses/{{model}}/{job}.tsv"
        # The longest jobs come first: short ones are left for the end, when cores fall idle.
        priority: 1
        conda:
            "../envs/models.yaml"
        resources:
            **for_model("losses", len(members) / len(WITH_LOSSES)),
        params:
            model=lookup(within=config, dpath="models/{model}"),
            interventions=members,
            settings=config["losses"],
            store=f"{RESULTS}/store/losses",
        message:
            f"Measuring losses of {{wildcards.model}} under {job}"
        script:
            "../workflow/scripts/measure_losses.py"
