"""What every job does around its work: logging, threads, and one line for a user's mistake."""

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from refusal.errors import InputError
from refusal.recovery import failed_outside, require_whole

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# Torch and transformers make 700,000 objects that stay. Without the garbage collector, which looks
# through them again and again, their import takes a fifth less time. Scripts therefore import this
# module before them. Elsewhere, as in tests, it changes nothing.
if hasattr(sys.modules["__main__"], "snakemake"):
    gc.disable()

# What a shell says of a program that was stopped by Ctrl-C.
INTERRUPTED = 130


@contextmanager
def job(snakemake: "snakemake") -> Iterator[None]:
    """Log to the rule's log file and the console; end what the user can mend with one line.

    Results of earlier jobs are looked at before they are used. Torch is held to the threads of the
    job, because its sums depend on their number.
    """
    gc.freeze()
    gc.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    # A full disk takes no log either, which says nothing that the error itself does not say.
    logging.raiseExceptions = False
    for library in ("httpx", "matplotlib", "fontTools"):
        logging.getLogger(library).setLevel(logging.WARNING)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(snakemake.threads)
    if "transformers" in sys.modules:
        sys.modules["transformers"].utils.logging.disable_progress_bar()
    try:
        log_to(snakemake.log[0])
        require_whole(snakemake.input)
        yield
    except InputError as mistake:
        logging.error("%s", mistake)
        sys.exit(1)
    except KeyboardInterrupt:
        logging.error("rule %s interrupted", snakemake.rule)
        sys.exit(INTERRUPTED)
    except Exception as error:
        outside = failed_outside(error, snakemake.output[0])
        if outside:
            logging.error("%s", outside)
        else:
            logging.exception("rule %s failed", snakemake.rule)
        sys.exit(1)


def log_to(path: str) -> None:
    """Log to a file from now on, as to the console."""
    root = logging.getLogger()
    file = logging.FileHandler(path, mode="w")
    file.setFormatter(root.handlers[0].formatter)
    root.addHandler(file)
