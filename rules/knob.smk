"""Knob: steering along the direction of every kind of refusal, at every strength.

REQUIRED INPUTS: models/<model>/card.json, prompts/prompts.parquet, directions/, kinds/<model>/
OUTPUTS: knob/<model>/completions.parquet (with text), curves.parquet, chosen.parquet,
    cells.parquet, summary.parquet
"""


rule knob:
    input:
        code=library("measure_knob.py"),
        card=rules.card.output,
        prompts=rules.prompts.output,
        directions=rules.kinds.output.directions,
        responses=rules.kinds.output.responses,
        dim="<results>/directions/{model}/dim.npz",
        recipe="<results>/interventions/{model}/none.json",
    output:
        completions="<results>/knob/{model}/completions.parquet",
        curves="<results>/knob/{model}/curves.parquet",
        chosen="<results>/knob/{model}/chosen.parquet",
        cells="<results>/knob/{model}/cells.parquet",
        summary="<results>/knob/{model}/summary.parquet",
    log:
        "<logs>/knob/{model}.log",
    benchmark:
        "<benchmarks>/knob/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("knob"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        knob=config["knob"],
        generations=config["generations"],
        grammar=config["prompts"]["source"] == "grammar",
        settings=config["statistics"],
        seed=config["seed"],
    message:
        "Steering {wildcards.model} along the kinds of refusal"
    script:
        "../workflow/scripts/measure_knob.py"
