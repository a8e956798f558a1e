"""Fetch the files of one external run and list them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.external_files import gather
from refusal.external_runs import read_pins

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    run = snakemake.params.run
    pinned = None
    if run["pins"] is not None:
        pinned = read_pins(run["pins"])["runs"][run["path"]]["files"]
    folder = Path(snakemake.output.folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = gather(run, pinned, folder)
    Path(snakemake.output.files).write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
