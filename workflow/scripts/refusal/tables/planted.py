"""Tables of planted organisms: which were accepted, and what every method does to them."""

import pandas as pd

from refusal.latex import MISSING, escape_latex, estimate, interval, number, scientific, tabular
from refusal.planted_measures import MEAN
from refusal.planted_reading import METHODS, group_label, in_order

# Columns of the methods: heading and metric.
COLUMNS = {
    "Oracle gap": "oracle_gap",
    "Recovery of $U$": "recovery",
    "KL to base": "kl_helpful_only",
    "Perplexity ratio": "perplexity_ratio",
}


def organisms_table(organisms: pd.DataFrame, rates: pd.DataFrame) -> str:
    """Every organism: behaviour and functional rank on test prompts, exactness, norm leak."""
    refused = rates[(rates.condition == "none") & (rates.split == "test")]
    refused = refused[refused.metric == "refused"].set_index(["organism", "label"]).value
    lines = [
        [
            escape_latex(row.organism),
            str(row.rank),
            _rank(row),
            number(row.subspace_share, 3),
            *(number(refused.get((row.organism, label))) for label in ("harmful", "harmless")),
            scientific(row.logit_difference),
            number(row.norms_alone_kl, 3),
            "accepted" if row.accepted else escape_latex(row.reasons),
        ]
        for row in organisms.itertuples()
    ]
    header = ["Organism", "$k$", "Functional rank", "Share in $U$", "Harmful", "Harmless"]
    header += ["Logits", "KL, norms", "Outcome"]
    ragged = r">{\raggedright\arraybackslash}"
    return tabular(rf"lrlrrrrr{ragged}p{{.25\textwidth}}", header, lines)


def _rank(row) -> str:
    """A functional rank with its interval."""
    bounds = interval(row.functional_rank_low, row.functional_rank_high, 0)
    return f"{number(row.functional_rank, 0)} {{\\scriptsize {bounds}}}"


def methods_table(methods: pd.DataFrame) -> str:
    """What every method does to accepted organisms, by planted rank and variant."""
    means = methods[(methods.organism == MEAN) & methods.planted.notna()]
    lines = []
    for rank, variant in in_order(means):
        group = means[(means.planted == rank) & (means.variant == variant)]
        n = group.n.max()
        lines.append([f"{group_label(rank, variant)}, {n} organism{'s' if n != 1 else ''}"])
        found = group.set_index(["method", "metric"])
        for name, method in METHODS.items():
            cells = [_cell(found, (name, metric)) for metric in COLUMNS.values()]
            if set(cells) != {MISSING}:
                lines.append([method.label, *cells])
    return tabular("lllll", ["Method", *COLUMNS], lines)


def _cell(found: pd.DataFrame, key: tuple[str, str]) -> str:
    if key not in found.index:
        return MISSING
    row = found.loc[key]
    return estimate(row.value, row.low, row.high)
