"""Select the direction of an external run again, and measure the geometry of its tensors."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from refusal.external_directions import geometry, select_again, selected_candidate, settings_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    folder, output = Path(snakemake.input.folder), snakemake.output
    selection = select_again(folder, settings_of(snakemake.params.settings))
    selection.to_parquet(output.selection, index=False)
    cosines, tensors = geometry(folder, selected_candidate(selection))
    cosines.to_parquet(output.geometry, index=False)
    Path(output.tensors).write_text(json.dumps(tensors, indent=1) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
