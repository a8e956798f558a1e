"""Hold a finished run to the expected values of its study.

    python workflow/scripts/verify_run.py results/organisms [--exact]

Prints pass or fail per claim. Exit status: 0 all passed, 1 something failed, 2 a mistake in the
input.
"""

import argparse
import sys
from pathlib import Path

from refusal.consistency import check_manifest
from refusal.errors import InputError
from refusal.expected import expected_file, read_expected
from refusal.finished_run import open_run
from refusal.verification import Verification, report, verify

ROOT = Path(__file__).resolve().parents[2]


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description="Compare a finished run with the committed expected values of its study.",
        epilog="Exit status: 0 all passed, 1 something failed, 2 a mistake in the input.",
    )
    parser.add_argument("run", help="results folder of the run, such as results/organisms")
    parser.add_argument(
        "--expected",
        type=Path,
        metavar="FILE",
        help="expected values; by default artifact/expected/<study>.json",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="hold every value and verdict to what the machine of the expected values repeats",
    )
    return parser


def verified(options: argparse.Namespace) -> Verification:
    """Read what the command line names, and check it."""
    run = open_run(options.run)
    if "config" not in run.parts:
        raise InputError(f"{options.run}: no config.yaml in it. Finish the run first: make paper.")
    expected = options.expected or expected_file(ROOT, run.only("config"))
    found = verify(run, read_expected(expected), ROOT / "paper" / "claims.yaml", options.exact)
    return found._replace(checks=[*check_manifest(ROOT), *found.checks])


def main(given: list[str] | None = None) -> int:
    """Check what the command line names; return the exit status."""
    options = arguments().parse_args(given)
    try:
        found = verified(options)
    except InputError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    print(report(found))
    return int(not found.passed)


if __name__ == "__main__":
    sys.exit(main())
