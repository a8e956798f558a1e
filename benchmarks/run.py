"""Measure the library against straightforward implementations of the published procedure.

    python benchmarks/run.py [--model CHECKPOINT] [--only a b ...] [--quick] [--output FOLDER]

Prints one line per ratio and writes results.json and results.md. Both sides alternate in one
process on one thread; times are medians of processor time. A result that differs stops the run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
MEASUREMENTS = {
    "a": "activations",
    "b": "steering",
    "c": "inlp",
    "d": "selection",
    "e": "generation",
    "f": "losses",
}
DEFAULT_MODEL = HERE.parent / "results" / "organisms" / "models" / "neox-0"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model",
        type=Path,
        help="checkpoint folder of an organism (default: the study's neox-0 if it has been "
        "trained, else a random Llama of the same size)",
    )
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: shows that it runs, times mean nothing"
    )
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    return parser.parse_args(arguments)


def choose_checkpoint(asked: Path | None, quick: bool) -> Path | None:
    """The checkpoint to measure on, None for a random model."""
    if asked is not None or quick:
        return asked
    return DEFAULT_MODEL if (DEFAULT_MODEL / "config.json").is_file() else None


def main(arguments: list[str] | None = None) -> None:
    """Run the measurements and write the report."""
    options = parse_arguments(arguments)
    sys.path[:0] = [str(HERE), str(HERE.parent / "workflow" / "scripts")]
    measuring, subjects, report = map(importlib.import_module, ("measuring", "subjects", "report"))
    torch.set_num_threads(1)
    start = time.monotonic()
    checkpoint = choose_checkpoint(options.model, options.quick)
    subject = subjects.tiny_subject(checkpoint, 16 if options.quick else 128)
    print(f"Measured on: {subject.name}", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    content = {
        "model": subject.name,
        "hardware": measuring.hardware(),
        "quick": options.quick,
        "results": [],
    }
    for letter in options.only:
        for result in importlib.import_module(MEASUREMENTS[letter]).measure(subject, options.quick):
            print(report.line(result), flush=True)
            content["results"].append(result.as_record())
        # After every measurement, so that an interrupted run keeps what it has.
        (options.output / "results.json").write_text(json.dumps(content, indent=2) + "\n")
        (options.output / "results.md").write_text(report.table(content))
    print(f"{options.output / 'results.md'} ({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    main()
