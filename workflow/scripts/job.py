"""What every job does around its work: logging, threads, and one line for a user's mistake."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from refusal.errors import InputError

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


@contextmanager
def job(snakemake: "snakemake") -> Iterator[None]:
    """Log to the rule's log file and the console; end an InputError with its one line.

    Torch is held to the threads of the job, because its sums depend on their number.
    """
    handlers = [logging.StreamHandler(), logging.FileHandler(snakemake.log[0], mode="w")]
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers
    )
    for library in ("httpx", "matplotlib", "fontTools"):
        logging.getLogger(library).setLevel(logging.WARNING)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(snakemake.threads)
    if "transformers" in sys.modules:
        sys.modules["transformers"].utils.logging.disable_progress_bar()
    try:
        yield
    except InputError as mistake:
        logging.error("%s", mistake)
        sys.exit(1)
    except Exception:
        logging.exception("rule %s failed", snakemake.rule)
        sys.exit(1)
