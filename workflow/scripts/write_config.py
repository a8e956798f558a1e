"""Write the merged configuration of the study."""

from pathlib import Path
from typing import TYPE_CHECKING

from job import job

import yaml

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    text = yaml.safe_dump(dict(snakemake.params.config), sort_keys=False, allow_unicode=True)
    Path(snakemake.output[0]).write_text(text)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
