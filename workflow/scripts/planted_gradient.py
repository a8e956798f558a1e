"""Directions of a planted organism by gradient descent, and what they are asked for."""

from collections.abc import Mapping

from planted_model import LABELS, Organism
from refusal.directions import Direction
from refusal.gradient_directions import (
    Addition,
    GradientSettings,
    Targets,
    gradient_directions,
)
from refusal.kinds import CORE, wordings


def targets(organism: Organism, split: str, prompts: int) -> Targets:
    """Return what gradient directions are asked for: reference answers, refusals, own answers.

    The paper takes the model's own answers without the difference in means, and refusals with it
    added. They do not exist where that direction does not mediate refusal, which is the question.
    """
    limit, encode = organism.limits["max_new_tokens"], organism.tokenizer.encode
    harmful, harmless = (organism.chosen([split], [label]).head(prompts) for label in LABELS)
    wanted, safe = organism.encode(harmful), organism.encode(harmless)
    answers = [encode(text, add_special_tokens=False)[:limit] for text in harmful.answer]
    starts = [wording.partition("{")[0].rstrip() for wording in wordings(CORE)]
    refusals = [
        encode(starts[row % len(starts)], add_special_tokens=False) for row in range(len(safe))
    ]
    own = organism.answer(harmless).tokens
    return Targets(
        *(
            list(zip(*pair, strict=True))
            for pair in ((wanted, answers), (safe, refusals), (safe, own))
        )
    )


def by_gradient(
    organism: Organism, addition: Addition, settings: Mapping, seed: int
) -> dict[str, Direction]:
    """Return the gradient direction, and a cone of every configured size.

    `settings`: `planted.estimators.gradient`.
    """
    settings = dict(settings)
    cones, prompts = settings.pop("cones"), settings.pop("prompts")
    rates = tuple(settings.pop("learning_rates"))
    settings = GradientSettings(**settings, learning_rates=rates, seed=seed)
    asked = [targets(organism, split, prompts) for split in ("train", "validation")]
    return {
        "gradient" if size == 1 else f"cone{size}": gradient_directions(
            organism.model, size, *asked, addition, settings
        )
        for size in (1, *cones)
    }
