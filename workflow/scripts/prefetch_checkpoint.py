"""Fetch a checkpoint from the hub, and write down which commit it is and where to load it from."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.hub import prefetch
from refusal.qwen1 import convert_checkpoint, is_qwen1

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    params, target = snakemake.params, Path(snakemake.output[0])
    found = prefetch(params.hub_id, params.revision, params.lock_file)
    folder = Path(found.pop("folder"))
    found["path"] = params.hub_id
    if is_qwen1(folder):
        found["path"] = str(target.with_name("converted"))
        convert_checkpoint(folder, found["path"])
        logging.info("%s: written as a Qwen2 checkpoint to %s", params.hub_id, found["path"])
    target.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
