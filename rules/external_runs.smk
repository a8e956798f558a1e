"""External runs: result files that others made, scored, tested and compared with what they published.

A run has no card, activations or losses of ours; its completions go through the judges and the
statistics that our own go through.

REQUIRED INPUTS: the files that `external_runs` names, or a network to fetch them
OUTPUTS: external_runs/<run>/files/, files.json, prompts.parquet, selection.parquet,
    geometry.parquet, tensors.json; generations/<run>/, scores/<run>/;
    external_runs/statistics/, external_runs/comparison.parquet, external_runs/report.pdf
"""


rule external_files:
    input:
        code=library("fetch_external_run.py"),
        pins=EXTERNAL_PINS,
        local=external_local_files,
    output:
        folder=directory("<results>/external_runs/{run}/files"),
        files="<results>/external_runs/{run}/files.json",
    log:
        "<logs>/external_files/{run}.log",
    benchmark:
        "<benchmarks>/external_files/{run}.tsv"
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        run=lookup(within=EXTERNAL_RUNS, dpath="{run}"),
    message:
        "Fetching the files of {wildcards.run}"
    script:
        "../workflow/scripts/fetch_external_run.py"


# One rule per run, since each has interventions of its own.
for run, entry in EXTERNAL_RUNS.items():

    rule:
        name:
            f"external_generations_{run}"
        input:
            code=library("convert_external_run.py"),
            folder=f"<results>/external_runs/{run}/files",
        output:
            prompts=f"<results>/external_runs/{run}/prompts.parquet",
            generations=collect(
                f"<results>/generations/{run}/{{intervention}}.parquet",
                intervention=entry["interventions"],
            ),
            published=collect(
                f"<results>/external_runs/{run}/published/{{intervention}}.parquet",
                intervention=entry["interventions"],
            ),
            recipes=collect(
                f"<results>/external_runs/recipes/{run}/{{intervention}}.json",
                intervention=entry["interventions"],
            ),
        log:
            f"<logs>/external_generations/{run}.log",
        benchmark:
            f"<benchmarks>/external_generations/{run}.tsv"
        conda:
            "../envs/statistics.yaml"
        params:
            name=run,
            run=entry,
            recipes={name: RECIPES[name] for name in entry["interventions"]},
        message:
            f"Reading the completions of {run}"
        script:
            "../workflow/scripts/convert_external_run.py"

    rule:
        name:
            f"external_scores_{run}"
        input:
            code=library("score_external_run.py"),
            prompts=f"<results>/external_runs/{run}/prompts.parquet",
            generations=collect(
                f"<results>/generations/{run}/{{intervention}}.parquet",
                intervention=entry["interventions"],
            ),
            published=collect(
                f"<results>/external_runs/{run}/published/{{intervention}}.parquet",
                intervention=entry["interventions"],
            ),
        output:
            collect(
                f"<results>/scores/{run}/{{intervention}}.parquet",
                intervention=entry["interventions"],
            ),
        log:
            f"<logs>/external_scores/{run}.log",
        benchmark:
            f"<benchmarks>/external_scores/{run}.tsv"
        conda:
            "../envs/statistics.yaml"
        params:
            judges=config["scores"]["judges"],
        message:
            f"Judging the completions of {run}"
        script:
            "../workflow/scripts/score_external_run.py"


rule external_directions:
    input:
        code=library("measure_external_directions.py"),
        folder=rules.external_files.output.folder,
    output:
        selection="<results>/external_runs/{run}/selection.parquet",
        geometry="<results>/external_runs/{run}/geometry.parquet",
        tensors="<results>/external_runs/{run}/tensors.json",
    log:
        "<logs>/external_directions/{run}.log",
    benchmark:
        "<benchmarks>/external_directions/{run}.tsv"
    conda:
        "../envs/models.yaml"
    params:
        settings=config["selection"],
    message:
        "Selecting the direction of {wildcards.run} again"
    script:
        "../workflow/scripts/measure_external_directions.py"


rule external_statistics:
    input:
        code=library("estimate_statistics.py"),
        claims="paper/claims.yaml",
        recipes=external_tables("external_runs/recipes", "json"),
        scores=external_tables("scores", "parquet"),
        losses=[],
        geometry=[],
        experiments=[],
    output:
        summary="<results>/external_runs/statistics/summary.parquet",
        comparisons="<results>/external_runs/statistics/comparisons.parquet",
        agreement="<results>/external_runs/statistics/agreement.parquet",
    log:
        "<logs>/external_statistics.log",
    benchmark:
        "<benchmarks>/external_statistics.tsv"
    conda:
        "../envs/statistics.yaml"
    params:
        study=config["study"],
        models=list(EXTERNAL_RUNS),
        settings=external_statistics_settings(),
        seed=config["seed"],
    message:
        "Estimating rates and differences of the external runs, with intervals"
    script:
        "../workflow/scripts/estimate_statistics.py"


rule external_comparison:
    input:
        code=library("compare_external_runs.py"),
        pins=EXTERNAL_PINS,
        folders=collect("<results>/external_runs/{run}/files", run=EXTERNAL_RUNS),
        prompts=collect(
            "<results>/external_runs/{run}/prompts.parquet", run=EXTERNAL_RUNS
        ),
        selection=collect(rules.external_directions.output.selection, run=EXTERNAL_RUNS),
        tensors=collect(rules.external_directions.output.tensors, run=EXTERNAL_RUNS),
        scores=external_tables("scores", "parquet"),
        summary=rules.external_statistics.output.summary,
    output:
        "<results>/external_runs/comparison.parquet",
    log:
        "<logs>/external_comparison.log",
    benchmark:
        "<benchmarks>/external_comparison.tsv"
    conda:
        "../envs/statistics.yaml"
    params:
        runs=EXTERNAL_RUNS,
    message:
        "Comparing what was published with what is recomputed"
    script:
        "../workflow/scripts/compare_external_runs.py"


# On the machine that starts the workflow: compute nodes seldom have TeX.
rule external_report:
    input:
        code=library("write_external_report.py"),
        template="paper/external_runs.tex.j2",
        bibliography="paper/references.bib",
        config=rules.config.output[0],
        pins=EXTERNAL_PINS,
        files=collect(rules.external_files.output.files, run=EXTERNAL_RUNS),
        selection=collect(rules.external_directions.output.selection, run=EXTERNAL_RUNS),
        geometry=collect(rules.external_directions.output.geometry, run=EXTERNAL_RUNS),
        comparison=rules.external_comparison.output[0],
        summary=rules.external_statistics.output.summary,
        comparisons=rules.external_statistics.output.comparisons,
    output:
        pdf=report(
            "<results>/external_runs/report.pdf",
            caption="../report/external_runs.rst",
            category="External runs",
            labels={"file": "report.pdf"},
        ),
        source="<results>/external_runs/report.tex",
    log:
        "<logs>/external_report.log",
    benchmark:
        "<benchmarks>/external_report.tsv"
    localrule: True
    conda:
        "../envs/paper.yaml"
    params:
        runs=list(EXTERNAL_RUNS),
    message:
        "Writing the report on the external runs"
    script:
        "../workflow/scripts/write_external_report.py"
