"""Container: the recipe of an image that holds every environment of the rules, and TeX.

Made when asked for (`snakemake container`), never by `rule all`; conda has to be installed.

REQUIRED INPUTS: envs/
OUTPUTS: containers/Dockerfile
"""


rule container:
    input:
        code=library("write_container.py"),
        environments=sorted(map(str, Path("envs").glob("*.yaml"))),
        tex="envs/tex.txt",
    output:
        "containers/Dockerfile",
    log:
        "<logs>/container.log",
    benchmark:
        "<benchmarks>/container.tsv"
    localrule: True
    conda:
        "../envs/container.yaml"
    message:
        "Writing the recipe of an image with all environments"
    script:
        "../workflow/scripts/write_container.py"
