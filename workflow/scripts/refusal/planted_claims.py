"""What the claims on planted organisms are read from: means over accepted organisms, by group.

Acceptance was decided before any estimator ran, and no seed is left out. An interval (Student's t
over organisms) takes three; with fewer there is the value alone, which decides nothing.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from refusal.planted_measures import MEAN
from refusal.planted_reading import ORGANISMS_MIN, VARIANTS, chosen_places, variants
from refusal.statistics import Estimate, student_mean

# Metric -> judge, as in the summary of ordinary models.
METRICS = {"oracle_gap": "oracle", "perplexity_ratio": "model"}
# Intervention -> method and number of directions in the table of recovery, None for all.
RECOVERED = {
    "dim_removal": ("dim", 1),
    "inlp_faithful_removal-k1": ("inlp_faithful", 1),
    "inlp_faithful_removal-kfull": ("inlp_faithful", None),
}
COLUMNS = ["model", "intervention", "dataset", "metric", "judge"]
COLUMNS += ["value", "low", "high", "n", "reason", "rank"]


def groups(organisms: pd.DataFrame) -> dict[str, list[str]]:
    """Names of the accepted organisms of every group of the claims.

    Of rank one by variant (see `planted_reading.variants`); the functional rank on test prompts.

    Args:
        organisms: planted/organisms.parquet.
    """
    table = organisms[organisms.accepted.astype(bool)]
    one, variant = table["rank"] == 1, variants(table)
    chosen = {
        **{f"rank1_{name}": one & (variant == name) for name in VARIANTS},
        "rank_above_1": table.functional_rank > 1,
        "planted": table["rank"] > 0,
    }
    return {name: list(table.organism[rows]) for name, rows in chosen.items()}


def planted_summary(tables: Mapping[str, pd.DataFrame], confidence: float) -> pd.DataFrame:
    """Rows of every group as `claims.evaluate_claims` reads them: the group is their dataset.

    Args:
        tables: organisms, and outcomes, recovery, split and candidates of all organisms.

    Returns:
        `COLUMNS`; model is "mean". Metrics oracle_gap, perplexity_ratio, recovery of groups, and
        signal_share of the helpful-only bases (`signal_share`).
    """
    outcomes = tables["outcomes"][tables["outcomes"].metric.isin(METRICS)]
    values = pd.concat([outcomes, _recoveries(tables["recovery"])])
    rows = [_base_row(tables, groups(tables["organisms"])["planted"])]
    for group, names in groups(tables["organisms"]).items():
        of_group = values[values.organism.isin(names)]
        for (name, metric), part in of_group.groupby(["intervention", "metric"], sort=False):
            judge = METRICS.get(metric, "geometry")
            about = {"intervention": name, "dataset": group, "metric": metric, "judge": judge}
            mean = student_mean(part.value, confidence)
            rows.append(about | _row(mean, int(np.isfinite(part.value).sum())))
    table = pd.DataFrame(rows).assign(model=MEAN, rank=np.nan)
    return table[COLUMNS].astype({"n": int, "reason": object})


def _row(estimate: Estimate, n: int) -> dict[str, object]:
    """An estimate, without its interval where it rests on too few organisms."""
    if n >= ORGANISMS_MIN:
        return {**estimate._asdict(), "n": n, "reason": None}
    reason = f"{n} accepted organisms, an interval takes {ORGANISMS_MIN}"
    return {"value": estimate.value, "low": np.nan, "high": np.nan, "n": n, "reason": reason}


def _recoveries(recovery: pd.DataFrame) -> pd.DataFrame:
    """Recovery of U by what an intervention removes: organism, intervention, metric, value."""
    rows = recovery[(recovery.organism != MEAN) & (recovery.scope == "all")]
    found = []
    for name, (method, directions) in RECOVERED.items():
        part = rows[rows.method == method]
        last = part.groupby("organism").directions.transform("max")
        part = part[part.directions == (last if directions is None else directions)]
        found.append(part[["organism", "value"]].assign(intervention=name, metric="recovery"))
    return pd.concat(found)


# ------------------------------------------------------------------------------------ of the base


def signal_share(length: float, low: float, high: float) -> Estimate:
    """Share of the squared length of a mean difference that sampling noise does not explain.

    Noise lengthens a difference, and resampling lengthens it by as much again, so that the basic
    bootstrap interval of the squared length (Davison & Hinkley 1997, section 5.2), reflected about
    the measured one, is free of both: [2 l^2 - high^2, 2 l^2 - low^2]. 0 is noise alone. The value
    is the middle of the interval, which lies low, since resampled squares are skewed.

    Args:
        length: norm of the difference, with the percentile interval of resampled norms.
    """
    if not length > 0:
        return Estimate(np.nan, np.nan, np.nan)
    below, above = 2 - (high / length) ** 2, 2 - (low / length) ** 2
    return Estimate((below + above) / 2, below, above)


def base_signals(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """signal_share of every organism's base, where the organism's mean difference is taken.

    Returns:
        organism, position, layer, value, low, high.
    """
    split = tables["split"]
    base = split[(split.model == "helpful_only") & (split.metric == "length")]
    places = ["organism", "position", "layer"]
    rows = chosen_places(tables["candidates"]).merge(base, on=places)
    found = [signal_share(*row) for row in rows[["value", "low", "high"]].to_numpy(float)]
    return rows[places].join(pd.DataFrame(found, columns=Estimate._fields))


def _base_row(tables: Mapping[str, pd.DataFrame], accepted: list[str]) -> dict[str, object]:
    """The base that tells harmful prompts apart least, with its interval over prompts.

    Organisms of one base share it, so that they are no sample of bases.
    """
    about = {"intervention": "none", "dataset": "base", "metric": "signal_share"}
    about["judge"] = "geometry"
    signals = base_signals(tables)
    signals = signals[signals.organism.isin(accepted) & signals.value.notna()]
    nothing = Estimate(np.nan, np.nan, np.nan)
    least = nothing if signals.empty else Estimate(*signals.nsmallest(1, "low").iloc[0][-3:])
    return about | _row(least, len(signals))
