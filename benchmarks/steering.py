"""(b) Steered against unsteered generation in the same batch."""

from __future__ import annotations

from contextlib import nullcontext

from measuring import Result, alternate, compare_seconds, require
from subjects import SEED, Subject

from refusal.directions import random_subspace
from refusal.generations import generate
from refusal.interventions import Intervention, steering
from refusal.operators import Operator

GROUP = "b steering"
NEW_TOKENS = 32


def measure(subject: Subject, quick: bool) -> list[Result]:
    """Ablation of one direction at all sites, and reflection of 16 at all writes.

    The directions are random: what a product costs does not depend on its entries. There is no
    stop token, so that both sides generate as many tokens.
    """
    model = subject.model
    prompts = subject.sequences("harmful", "test")
    basis = random_subspace(model.config.hidden_size, 16, SEED).basis
    flipping = Intervention(Operator.project(basis, alpha=2.0), "writes")
    ablation = Intervention(Operator.project(basis[:1]), "all")

    def run(context):
        with context:
            return generate(
                model,
                prompts,
                eos_ids=[],
                pad_id=subject.tokenizer.pad_token_id,
                max_new_tokens=NEW_TOKENS,
                max_tokens=16384,
            )

    unsteered = run(nullcontext())
    nothing = Intervention(Operator.project(basis, alpha=0.0), "writes")
    require(run(steering(model, nothing)) == unsteered, "alpha 0 changes the generated tokens")
    results = []
    for name, intervention in (
        ("ablation of one direction, scope all", ablation),
        ("flipping of 16 directions, scope writes", flipping),
    ):
        require(run(steering(model, intervention)) != unsteered, f"{name} changes nothing")
        timing = alternate(
            lambda: run(steering(model, intervention)),  # noqa: B023
            lambda: run(nullcontext()),
            2 if quick else 9,
        )
        what = f"generation with {name} / without steering, {subject.name}"
        results.append(
            compare_seconds(GROUP, what, timing, at_most=1.10, parity="alpha 0 changes no token")
        )
    return results
