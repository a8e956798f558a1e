"""Capability: tasks of the lm-evaluation-harness on steered models.

REQUIRED INPUTS: interventions/<model>/
OUTPUTS: capability/questions/ (the data of the organisms' tasks),
         capability/<model>/outcomes/<intervention>.parquet, capability/<model>/tasks.parquet,
         capability/<model>/summary.parquet
"""

CAPABILITY = list(dict.fromkeys(["none", *config["capability"]["interventions"]]))


rule capability_questions:
    input:
        code=library("write_questions.py"),
    output:
        collect(
            "<results>/capability/questions/{task}.jsonl",
            task=[
                "organism_facts",
                "organism_facts_generation",
                "organism_arithmetic",
                "organism_arithmetic_generation",
                "organism_opposites",
                "organism_judgement",
            ],
        ),
    log:
        "<logs>/capability_questions.log",
    benchmark:
        "<benchmarks>/capability_questions.tsv"
    localrule: True
    conda:
        "../envs/statistics.yaml"
    params:
        size=config["capability"]["questions"],
        seed=config["seed"],
    message:
        "Writing the questions of the organisms' tasks"
    script:
        "../workflow/scripts/write_questions.py"


rule capability:
    input:
        code=library("measure_capability.py"),
        card=rules.card.output,
        questions=rules.capability_questions.output,
        tasks=sorted(
            str(path.relative_to(workflow.basedir))
            for path in Path(workflow.basedir, "workflow", "tasks").iterdir()
            if path.is_file()
        ),
        interventions=collect(
            "<results>/interventions/{{model}}/{intervention}.{suffix}",
            intervention=CAPABILITY,
            suffix=["json", "npz"],
        ),
    output:
        outcomes=collect(
            "<results>/capability/{{model}}/outcomes/{intervention}.parquet",
            intervention=CAPABILITY,
        ),
        tasks="<results>/capability/{model}/tasks.parquet",
        summary="<results>/capability/{model}/summary.parquet",
    log:
        "<logs>/capability/{model}.log",
    benchmark:
        "<benchmarks>/capability/{model}.tsv"
    conda:
        "../envs/evaluation.yaml"
    resources:
        **for_model("capability"),
    params:
        study=config["study"],
        model=lookup(within=config, dpath="models/{model}"),
        interventions=CAPABILITY,
        settings=capability_settings,
        store=f"{RESULTS}/store/capability",
        statistics=config["statistics"],
        seed=config["seed"],
    message:
        "Asking {wildcards.model} the tasks of the evaluation harness"
    script:
        "../workflow/scripts/measure_capability.py"
