"""Score every candidate position and layer, and choose one per method and scope."""

from typing import TYPE_CHECKING

from job import job

import pandas as pd

from loading import load_card, load_from_card
from refusal.directions import filter_by_refusal_metric, load_directions
from refusal.models import encode_prompts
from refusal.selection import SelectionSettings, choose, score_candidates

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake: "snakemake") -> None:
    card = load_card(snakemake.input.card[0])
    model, tokenizer = load_from_card(card, snakemake.params.model)
    harmful, harmless = _validation_prompts(snakemake, tokenizer)
    settings = dict(snakemake.params.settings)
    max_tokens = settings.pop("max_tokens")
    settings = SelectionSettings(**{**settings, "additions": tuple(settings["additions"])})
    methods = dict(zip(snakemake.params.methods, snakemake.input.directions, strict=True))
    norms = {at: direction.norm for at, direction in load_directions(methods["dim"]).items()}
    for (method, path), target in zip(methods.items(), snakemake.output, strict=True):
        directions = load_directions(path)
        tables = [
            score_candidates(
                model,
                directions,
                harmful=harmful,
                harmless=harmless,
                refusal_tokens=card["refusal_tokens"],
                scope=scope,
                dim_norms=norms,
                settings=settings,
                max_tokens=max_tokens,
            )
            for scope in ("source", "all")
        ]
        choose(pd.concat(tables), method, settings).to_parquet(target, index=False)


def _validation_prompts(snakemake: "snakemake", tokenizer) -> tuple[list, list]:
    """Return the token ids of the harmful and harmless validation prompts that pass the filter."""
    index = pd.read_parquet(snakemake.input.index).set_index("row", drop=False)
    prompts = pd.read_parquet(snakemake.input.prompts[0]).set_index("id")
    rows = filter_by_refusal_metric(
        index, "validation", model=snakemake.wildcards.model, enabled=snakemake.params.filter
    )
    return tuple(
        encode_prompts(tokenizer, list(prompts.loc[index.loc[chosen, "id"], "text"]))
        for chosen in rows
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
