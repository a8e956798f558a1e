"""What a job asks of a cluster: GPUs, memory and time, from the estimate of the study.

The estimate is good to a factor of about two, so time is asked for threefold, beside what loading a
model takes. Whoever is killed for memory or time is given more at the next attempt.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEGABYTES = 1000  # per GB
WITHOUT_MODEL = (
    2000  # MB: Python, torch and a table; twice what the largest job of the organisms took
)
ORGANISM_MINUTES = 60
LOADING_MINUTES = 120  # a large model over a network file system, and stages without an estimate
LOADED_MB = 16_000  # beside the weights
MARGIN = 3  # of time


@dataclass(frozen=True)
class Resources:
    """What the first attempt of a job asks for.

    Attributes:
        gpus: on one node.
        memory: of the host, in MB.
        runtime: minutes.
    """

    gpus: int
    memory: int
    runtime: int

    def at(self, attempt: int, max_runtime: int) -> "Resources":
        """What attempt 1, 2, ... asks for: memory doubles, time grows up to `max_runtime`."""
        memory = self.memory * 2 ** (attempt - 1)
        return Resources(self.gpus, memory, min(self.runtime * attempt, max_runtime))


OF_ORGANISM = Resources(gpus=0, memory=2 * WITHOUT_MODEL, runtime=ORGANISM_MINUTES)


def job_resources(
    row: Mapping[str, Any] | None, device: str, stage: str, share: float = 1.0
) -> Resources:
    """What a job asks for that loads one model.

    Args:
        row: the model in the estimate (`estimate.estimate_study`); None for an organism.
        device: where the configuration puts it.
        stage: name of the stage in the estimate; one that is not there counts as loading alone.
        share: the part of the stage that this job does, from 0 to 1.

    Returns:
        `auto` asks for as many GPUs as the estimate says, another GPU device for one. The host has
        room for the weights, which pass through it, and for the activations of the study.
    """
    if row is None:
        return OF_ORGANISM
    on_gpu = device != "cpu"
    if row["size"] is None:
        return Resources(int(on_gpu), 4 * LOADED_MB, 2 * LOADING_MINUTES)
    held = row["size"].weights_gb if on_gpu else row["memory"]
    memory = LOADED_MB + math.ceil((held + row["disk"]) * MEGABYTES)
    spent = row["hours"].get(stage, 0.0) * share
    runtime = LOADING_MINUTES + math.ceil(MARGIN * 60 * spent)
    return Resources((row["gpus"] if device == "auto" else 1) * on_gpu, memory, runtime)
