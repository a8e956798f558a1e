"""Whether the files of one finished run agree with each other.

Every number of a run follows from files before it: verdicts from the statistics, means over models
from the models, the models' rates from the labels of their prompts. A number that was changed by
hand, or is left over from an earlier run, no longer does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from refusal.claims import evaluate_claims, load_claims
from refusal.compare import ESTIMATE
from refusal.finished_run import FinishedRun, read_claims, read_frame
from refusal.manifest import MANIFEST, read_manifest, sha256
from refusal.scores import SCORE_COLUMNS
from refusal.statistics import COMPARISON_COLUMNS, KEY_COLUMNS, MEAN, RATIOS

# Rounding of a mean that is taken again, relative above a magnitude of 1.
ROUNDING = 1e-9
KEYS = ["model", "intervention", *KEY_COLUMNS]


class Check(NamedTuple):
    """One thing that was checked: under which heading, what it is, the outcome in words."""

    group: str
    name: str
    passed: bool
    text: str


def check_consistency(run: FinishedRun, claims_file: str | Path) -> list[Check]:
    """Take every verdict, every mean over models and every rate of a model again.

    Args:
        claims_file: paper/claims.yaml, by which the claims of the run are judged again.

    Raises:
        InputError: a file of the run is missing or cannot be read.
    """
    summary = read_frame(run.only("estimates"), [*KEYS, *ESTIMATE, "n", "rank", "reason"], KEYS)
    comparisons = read_frame(run.only("comparisons"), COMPARISON_COLUMNS)
    judged = evaluate_claims(load_claims(claims_file), summary, comparisons)
    pairs = comparisons.assign(
        intervention=comparisons["left"].astype(str) + " - " + comparisons["right"].astype(str),
        value=comparisons["difference"],
    )
    found = [
        _same_claims(read_claims(run.only("claims")), judged),
        _agree("means over models", *_means(summary, RATIOS)),
        _agree("mean differences over models", *_means(pairs, ())),
    ]
    if "scores" in run.parts:
        found.append(_agree("rates of each model", _rates(run), summary))
    return found


def _same_claims(claims: Mapping[str, Any], judged: Mapping[str, Any]) -> Check:
    """Whether the verdicts are those that the statistics give."""
    other = [name for name in {**claims, **judged} if claims.get(name) != judged.get(name)]
    text = f"{len(judged)} claims judged again from the statistics"
    if other:
        text += f"; claims.json says otherwise of {', '.join(other)}"
    return Check("consistent", "verdicts", not other, text)


def _means(table: pd.DataFrame, ratios: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means over models taken again, and those of the table; of ratios the geometric mean."""
    models = table[table["model"] != MEAN]
    logs = models["metric"].isin(ratios)
    values = np.where(logs, np.log(models["value"].where(logs)), models["value"])
    means = models.assign(value=values).groupby(KEYS[1:], as_index=False)["value"].mean()
    logs = means["metric"].isin(ratios)
    means["value"] = np.where(logs, np.exp(means["value"].where(logs)), means["value"])
    return means.assign(model=MEAN), table[table["model"] == MEAN]


def _rates(run: FinishedRun) -> pd.DataFrame:
    """Mean score of every model, intervention, label, metric and judge, as rows of the summary."""
    frames = [
        read_frame(path, SCORE_COLUMNS)
        .groupby(["label", "metric", "judge"], as_index=False)["value"]
        .mean()
        .assign(model=model, intervention=name)
        for (model, name), path in run.by_model("scores").items()
    ]
    return pd.concat(frames, ignore_index=True).rename(columns={"label": "dataset"})


def _agree(name: str, again: pd.DataFrame, table: pd.DataFrame) -> Check:
    """Whether the values taken again are those of the table, wherever both have one."""
    columns = [*KEYS, "value"]
    both = again[columns].merge(table[columns], on=KEYS, suffixes=("_again", ""))
    gap = (both["value_again"] - both["value"]).abs()
    wrong = both[
        (gap > ROUNDING * both["value"].abs().clip(lower=1.0))
        | (both["value_again"].isna() != both["value"].isna())
    ]
    text = f"{len(both)} values taken again"
    if len(wrong):
        row = wrong.iloc[0]
        where = " / ".join(str(row[key]) for key in KEYS)
        text += f"; {len(wrong)} differ, first {where}: {row['value']:.4g}, not "
        text += f"{row['value_again']:.4g}"
    return Check("consistent", name, not len(wrong), text)


def check_manifest(root: Path) -> list[Check]:
    """Of an unpacked archive, whether every file is the one that was packed; else nothing.

    `results/` alone is checked: code that was changed since is told by `git diff`, or on purpose.
    """
    if not (root / MANIFEST).is_file():
        return []
    packed = {
        name: digest for name, digest in read_manifest(root).items() if name.startswith("results/")
    }
    other = [name for name, digest in packed.items() if _differs(root / name, digest)]
    text = f"{len(packed)} result files with their SHA-256"
    if other:
        text += f"; {len(other)} missing or changed, first {other[0]}"
    return [Check("archive", MANIFEST, not other, text)]


def _differs(path: Path, digest: str) -> bool:
    return not path.is_file() or sha256(path) != digest
