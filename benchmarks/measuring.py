"""How the benchmarks measure: paired processor time and peak memory of two sides of one job."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers

MEGABYTE = 1024.0  # VmHWM is in kB
# A side that needs less than this is measured as needing it: one page table more or less is noise.
SMALLEST_PEAK_MB = 1.0
# Seconds that one timed sample lasts at least, where a side is timed more than once.
SHORTEST_SAMPLE = 0.2


@dataclass(frozen=True)
class Result:
    """One line of the report.

    Attributes:
        group: the measurement's letter in the list of targets, and its module.
        what: what is compared.
        ours, plain: seconds of processor time, or MB, of the library and of the other side.
        ratio: ours / plain if the target is an upper bound ("at most"), plain / ours otherwise.
        target: bound on the ratio, None where the line is reported only.
        parity: what was checked to be equal, and how equal it was.
    """

    group: str
    what: str
    unit: Literal["s", "MB"]
    ours: float
    plain: float
    ratio: float
    bound: Literal["at most", "at least"]
    target: float | None
    parity: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.bound == "at most" else self.ratio >= self.target

    def as_record(self) -> dict[str, Any]:
        """The line as stored in results.json."""
        return asdict(self) | {"met": self.met}


class Timing(NamedTuple):
    """Median seconds of both sides, and the median over repeats of plain / ours."""

    ours: float
    plain: float
    speedup: float


def processor_seconds(run: Callable[[], Any], calls: int = 1) -> float:
    """Processor time of one call (the mean of `calls`), all threads of this process together."""
    gc.collect()
    start = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - start) / calls


def alternate(ours: Callable[[], Any], plain: Callable[[], Any], repeats: int) -> Timing:
    """Time both sides in turn, `repeats` times each; run each once before if results matter.

    The ratio is taken within a repeat, so that a machine that is slow for a while slows both. A
    short call is repeated until it can be timed, and so that caches are warm on both sides alike.
    """
    sides = (ours, plain)
    calls = [1] * len(sides)
    if repeats > 1:
        calls = [max(1, math.ceil(SHORTEST_SAMPLE / processor_seconds(side))) for side in sides]
    pairs = [
        [processor_seconds(side, n) for side, n in zip(sides, calls, strict=True)]
        for _ in range(repeats)
    ]
    return Timing(
        statistics.median(one for one, _ in pairs),
        statistics.median(other for _, other in pairs),
        statistics.median(other / one for one, other in pairs),
    )


def compare_seconds(
    group: str,
    what: str,
    timing: Timing,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    parity: str = "",
) -> Result:
    """A line on processor time, with a lower bound on the speed-up or an upper one on the cost."""
    bound, target = ("at most", at_most) if at_most is not None else ("at least", at_least)
    ratio = 1 / timing.speedup if bound == "at most" else timing.speedup
    return Result(group, what, "s", timing.ours, timing.plain, ratio, bound, target, parity)


def compare_peaks(
    group: str,
    what: str,
    ours: Callable[[], Any],
    plain: Callable[[], Any],
    *,
    at_most: float | None,
    parity: str = "",
    warm_up: Callable[[], Any] | None = None,
    repeats: int = 3,
) -> Result:
    """A line on the peak of the extra memory of both sides, each in processes of its own.

    Without a cheaper `warm_up` a side is its own; the median of `repeats` processes counts.
    """
    mine, other = (
        statistics.median(peak_megabytes(side, warm_up or side) for _ in range(repeats))
        for side in (ours, plain)
    )
    ratio = max(mine, SMALLEST_PEAK_MB) / max(other, SMALLEST_PEAK_MB)
    return Result(group, what, "MB", mine, other, ratio, "at most", at_most, parity)


def peak_megabytes(run: Callable[[], Any], warm_up: Callable[[], Any]) -> float:
    """Highest resident memory during a call, above that before it, in a forked child process.

    `warm_up` runs first in the child, so that library code it has yet to map is not counted.

    Raises RuntimeError if the child fails.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            warm_up()
            gc.collect()
            # Memory that was freed but kept by the allocator would hide what the call needs.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            before = _status_kilobytes("VmHWM")
            run()
            peak = (_status_kilobytes("VmHWM") - before) / MEGABYTE
            os.write(writer, str(peak).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    if not answer:
        raise RuntimeError("the measured call failed in its own process")
    return float(answer)


def _status_kilobytes(field: str) -> int:
    """A memory figure of this process from the kernel."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1])


def hardware() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": cpu[1].strip() if cpu else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads_used": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def require(holds: bool, what: str) -> None:
    """Stop the benchmark: a faster way to another result is no gain."""
    if not holds:
        raise AssertionError(f"parity does not hold: {what}")
