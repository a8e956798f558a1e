"""Write the recipe of an image: what `snakemake --containerize` prints, and TeX."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from job import job

from snakemake.cli import main as run_snakemake

from refusal.errors import InputError

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# The folder is locked by the workflow that this is a job of; nothing in it is changed here.
COMMAND = ["--containerize", "dockerfile", "--cores", "1", "--nolock"]


def environments() -> str:
    """Return what Snakemake prints: the base image, and every environment made in it.

    Raises:
        InputError: Snakemake ended with an error, which is in the log.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            run_snakemake(COMMAND)
    except SystemExit as end:
        if end.code:
            raise InputError(
                "container: the environments could not be listed. Remedy: install conda, whose "
                "version Snakemake asks for."
            ) from None
    return printed.getvalue()


def with_tex(packages: list[str]) -> str:
    """Return the step that installs LaTeX, which conda-forge does not have."""
    install = "apt-get install -y --no-install-recommends " + " ".join(packages)
    return f"\nRUN apt-get update && \\\n    {install} && \\\n    rm -rf /var/lib/apt/lists/*\n"


def main(snakemake: "snakemake") -> None:
    packages = Path(snakemake.input.tex).read_text().split()
    Path(snakemake.output[0]).write_text(environments() + with_tex(packages))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
