"""Models: organisms trained from scratch, and a card for every model.

REQUIRED INPUTS: prompts/prompts.parquet, or a checkpoint named in the configuration
OUTPUTS: models/<model>/ (safety-tuned), models/<model>-helpful/ (before safety tuning),
         models/<model>/card.json, models/<checkpoint>/commit.json (of those on the hub)
"""


rule corpora:
    input:
        code=library("write_corpora.py"),
    output:
        tokenizer=collect("<results>/models/tokenizer/{file}", file=TOKENIZER_FILES),
        helpful="<results>/models/corpora/helpful.npz",
        safety="<results>/models/corpora/safety.npz",
    log:
        "<logs>/corpora.log",
    benchmark:
        "<benchmarks>/corpora.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_organism(),
    params:
        settings=config["organism"],
    message:
        "Writing the tokenizer and corpora that all organisms share"
    script:
        "../workflow/scripts/write_corpora.py"


rule organism:
    input:
        code=library("train_organism.py"),
        tokenizer=rules.corpora.output.tokenizer,
        helpful=rules.corpora.output.helpful,
        safety=rules.corpora.output.safety,
    output:
        safe=collect("<results>/models/{{model}}/{file}", file=CHECKPOINT_FILES),
        helpful=collect(
            "<results>/models/{{model}}-helpful/{file}", file=CHECKPOINT_FILES
        ),
        record="<results>/models/{model}/training.json",
    log:
        "<logs>/organism/{model}.log",
    benchmark:
        "<benchmarks>/organism/{model}.tsv"
    wildcard_constraints:
        model="|".join(ORGANISMS) or "none",
    conda:
        "../envs/models.yaml"
    # One thread, so that the weights do not depend on the number of cores.
    threads: 1
    resources:
        **for_organism(),
    params:
        settings=config["organism"],
        model=lookup(within=config, dpath="models/{model}"),
    message:
        "Training organism {wildcards.model}: helpful-only, then safety tuning"
    script:
        "../workflow/scripts/train_organism.py"


# On the machine that starts the workflow: compute nodes often have no network.
rule checkpoint:
    input:
        code=library("prefetch_checkpoint.py"),
    output:
        "<results>/models/{checkpoint}/commit.json",
    log:
        "<logs>/checkpoint/{checkpoint}.log",
    benchmark:
        "<benchmarks>/checkpoint/{checkpoint}.tsv"
    wildcard_constraints:
        checkpoint="|".join(HUB) or "none",
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        hub_id=lambda wildcards: HUB[wildcards.checkpoint]["hub_id"],
        revision=lambda wildcards: HUB[wildcards.checkpoint]["revision"],
        lock_file=config["lock_file"],
    message:
        "Fetching {params.hub_id}"
    script:
        "../workflow/scripts/prefetch_checkpoint.py"


rule card:
    input:
        code=library("describe_model.py"),
        checkpoint=checkpoint_files,
        commit=lambda wildcards: commit_of(wildcards.model),
        training=training_record,
        prompts=rules.prompts.output,
    output:
        "<results>/models/{model}/card.json",
    log:
        "<logs>/card/{model}.log",
    benchmark:
        "<benchmarks>/card/{model}.tsv"
    conda:
        "../envs/models.yaml"
    resources:
        **for_model("card"),
    params:
        model=lookup(within=config, dpath="models/{model}"),
        path=checkpoint_path,
        max_tokens=config["activations"]["max_tokens"],
    message:
        "Describing {wildcards.model}: layers, template, refusal tokens"
    script:
        "../workflow/scripts/describe_model.py"


rule prefetch:
    input:
        collect("<results>/models/{checkpoint}/commit.json", checkpoint=HUB),
        rules.prompts.output if PROMPT_SOURCE != "grammar" else [],
    localrule: True
    message:
        "Everything is here: jobs can run with HF_HUB_OFFLINE=1"
