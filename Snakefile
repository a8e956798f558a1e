# From prompts to the paper: each file in rules/ is one link of the chain.
from snakemake.utils import min_version

min_version("9.20")


configfile: "config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"


# Before the rules, since a rule takes the image that is known when it is read.
if config["container"]:

    containerized: config["container"]


include: "rules/prompts.smk"
include: "rules/models.smk"
include: "rules/planted.smk"
include: "rules/planted_estimators.smk"
include: "rules/activations.smk"
include: "rules/directions.smk"
include: "rules/selection.smk"
include: "rules/interventions.smk"
include: "rules/generations.smk"
include: "rules/losses.smk"
include: "rules/fine_tuning.smk"
include: "rules/judgements.smk"
include: "rules/scores.smk"
include: "rules/weights.smk"
include: "rules/capability.smk"
include: "rules/suffixes.smk"
include: "rules/suffix.smk"
include: "rules/attacks.smk"
include: "rules/before_tuning.smk"
include: "rules/windows.smk"
include: "rules/heads.smk"
include: "rules/kinds.smk"
include: "rules/knob.smk"
include: "rules/styles.smk"
include: "rules/sparse_features.smk"
include: "rules/statistics.smk"
include: "rules/external_runs.smk"
include: "rules/claims.smk"
include: "rules/figures.smk"
include: "rules/tables.smk"
include: "rules/planted_report.smk"
include: "rules/paper.smk"
include: "rules/explorer.smk"
include: "rules/compare.smk"
include: "rules/archive.smk"
include: "rules/container.smk"


rule all:
    default_target: True
    input:
        final_outputs(),
