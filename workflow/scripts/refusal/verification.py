"""Hold a finished run to the expected values of its study (`refusal.expected`).

A claim passes if every quantity that it names agrees with its expected value and the verdict is the
expected one. Where the values agree, a verdict may have moved by one step between supported and
inconclusive, or inconclusive and contradicted. A number that the text of the paper quotes passes if
it agrees with its expected value.

Both runs are draws of models, so both values are uncertain. They agree if their difference is at
most the root of the sum of squares of the expected value's tolerance and of half the interval that
the fresh run measured: a score E_n of at most 1, as between laboratories (ISO 13528).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from refusal.claims import CONTRADICTED, INCONCLUSIVE, SUPPORTED
from refusal.compare import (
    ESTIMATE,
    LEFT_ONLY,
    Tolerance,
    compare_claims,
    compare_estimates,
)
from refusal.consistency import Check, check_consistency
from refusal.errors import InputError
from refusal.expected import (
    PAPER,
    VALUE_KEYS,
    claim_values,
    estimates_over_models,
    expected_claims,
    values_of,
)
from refusal.finished_run import FinishedRun, read_claims, read_config, read_frame
from refusal.statistics import KEY_COLUMNS

# What two runs on one machine may differ by: the digits that expected values are written with.
EXACT = 1e-5
NEIGHBOURS = ({SUPPORTED, INCONCLUSIVE}, {INCONCLUSIVE, CONTRADICTED})


class Verification(NamedTuple):
    """All checks, in the order of the report, and whether the values are those of one machine."""

    checks: list[Check]
    identical: bool

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.passed for check in self.checks)


def verify(
    run: FinishedRun, expected: Mapping[str, Any], claims_file: str | Path, exact: bool = False
) -> Verification:
    """Check a finished run.

    Args:
        run: the fresh run.
        expected: expected values of its study (`read_expected`).
        claims_file: paper/claims.yaml.
        exact: hold every value and verdict to what one machine repeats, whatever the tolerances.

    Raises:
        InputError: the run is another study or not finished, or a file of it cannot be read.
    """
    for part in ("config", "estimates", "comparisons", "claims"):
        if part not in run.parts:
            raise InputError(f"{run.name}: no {part} in it. Finish the run first: make paper.")
    study = read_config(run.only("config")).get("study")
    if study != expected["study"]:
        raise InputError(
            f"{run.name}: study {study!r}, but the expected values are those of "
            f"{expected['study']!r}. Name theirs with --expected."
        )
    measured = _measured(run)
    values = values_of(expected)
    differences = _differences(values, measured)
    exactly = EXACT * values["value"].abs().clip(lower=1.0)
    values = values.assign(allowed=exactly if exact else _allowed(values, measured))
    claims = read_claims(run.only("claims"))
    checks = check_consistency(run, claims_file)
    checks += check_claims(expected["claims"], claims, values, differences, exact)
    checks += check_numbers(values, differences)
    moved = compare_claims(expected["claims"], expected_claims(claims)).differences
    return Verification(checks, differences.empty and moved.empty)


def _measured(run: FinishedRun) -> pd.DataFrame:
    """What the run measured for its claims and over all models, as rows of `VALUE_KEYS`."""
    keys = ["model", "intervention", *KEY_COLUMNS]
    summary = read_frame(run.only("estimates"), [*keys, *ESTIMATE], keys)
    claims = claim_values(read_claims(run.only("claims")))
    return pd.concat([claims, estimates_over_models(summary)], ignore_index=True)


def _allowed(values: pd.DataFrame, measured: pd.DataFrame) -> NDArray[np.float64]:
    """How far each value may be from the expected one: both uncertainties, in quadrature."""
    asked = values[VALUE_KEYS].merge(measured, on=VALUE_KEYS, how="left")
    sides = (asked["value"] - asked["low"], asked["high"] - asked["value"])
    return np.hypot(values["tolerance"], pd.concat(sides, axis=1).max(axis=1).fillna(0.0))


def _differences(values: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Expected values that the run does not repeat, with its value in `right_value`.

    Bounds of intervals are left out: they move more than the values do, and what they decide, the
    verdicts, is compared.
    """
    asked = values[VALUE_KEYS].merge(measured, on=VALUE_KEYS)
    sides = [side.assign(low=float("nan"), high=float("nan")) for side in (values, asked)]
    part = compare_estimates("values", *sides, VALUE_KEYS, Tolerance(EXACT))
    return part.differences[part.differences["counts"]]


def _beyond(values: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """The rows of `values` whose measured value is missing or farther off than allowed."""
    kept = ["difference", "right_value", "change"]
    joined = values.merge(differences[[*VALUE_KEYS, *kept]], on=VALUE_KEYS)
    # No difference: the value is on one side only.
    return joined[~(joined["difference"].abs() <= joined["allowed"])]


def check_claims(
    expected: Mapping[str, Any],
    claims: Mapping[str, Any],
    values: pd.DataFrame,
    differences: pd.DataFrame,
    exact: bool,
) -> list[Check]:
    """One check per claim, expected or measured."""
    beyond = _beyond(values, differences)
    rows = compare_claims(expected, expected_claims(claims)).differences
    if not exact:  # a single model may move; what counts is the verdict over all of them
        rows = rows[rows["model"].eq("overall")]
    found = []
    for name in {**expected, **claims}:
        of_claim = values[values["item"] == name]
        off = beyond[beyond["item"] == name]
        changed = rows[rows["item"] == name]
        found.append(_claim(name, expected, claims, (of_claim, off, changed), exact))
    return found


def _claim(
    name: str, expected: Mapping, claims: Mapping, tables: Sequence[pd.DataFrame], exact: bool
) -> Check:
    """Whether one claim passes, and why not; tables: its values, those beyond, what changed."""
    values, off, changed = tables
    if name not in claims or name not in expected:
        side = "the run has no such claim" if name not in claims else "no expected values"
        return Check("claims", name, False, f"{side}: make the expected values again")
    verdicts = [side[name]["overall"]["verdict"] for side in (expected, claims)]
    text = verdicts[1]
    if len(set(verdicts)) > 1:
        text += f", expected {verdicts[0]}"
    text += f"; {len(values) - len(off)} of {len(values)} values within tolerance"
    if len(off):
        text += f", {_worst(off)}"
    if changed["metric"].eq("conditions").any():
        return Check("claims", name, False, "stated otherwise than when values were expected")
    by_step = not exact and set(verdicts) in NEIGHBOURS
    same = not changed["metric"].eq("verdict").any()
    return Check("claims", name, not len(off) and (same or by_step), text)


def check_numbers(values: pd.DataFrame, differences: pd.DataFrame) -> list[Check]:
    """One check of all quoted numbers, and one for each that fails."""
    values = values[values["item"] == PAPER]
    off = _beyond(values, differences)
    text = f"{len(values) - len(off)} of {len(values)} numbers of the text within tolerance"
    found = [Check("numbers", "quoted", not len(off), text)]
    for place in range(len(off)):
        row = off.iloc[place]
        found.append(Check("numbers", _name(row), False, _against(row)))
    return found


def _worst(off: pd.DataFrame) -> str:
    """The row that is farthest off, in words."""
    excess = (off["difference"].abs() / off["allowed"]).fillna(float("inf"))
    row = off.loc[excess.idxmax()]
    return f"{_name(row)}: {_against(row)}"


def _against(row: pd.Series) -> str:
    """What was expected, measured and allowed."""
    if row["change"] == LEFT_ONLY:
        return f"{row['value']:.4g} expected, not in this run"
    return (
        f"{row['value']:.4g} expected, {row['right_value']:.4g} measured, "
        f"{row['allowed']:.2g} allowed"
    )


def _name(row: pd.Series) -> str:
    return " / ".join(row[key] for key in VALUE_KEYS[1:])


def report(verification: Verification) -> str:
    """The report: a line per check under its heading, and one line for all."""
    lines, group = [], None
    for check in verification.checks:
        if check.group != group:
            group = check.group
            lines.append(group)
        lines.append(f"  {'pass' if check.passed else 'FAIL'}  {check.name}: {check.text}")
    failed = sum(not check.passed for check in verification.checks)
    total = len(verification.checks)
    if failed:
        return "\n".join([*lines, f"FAIL: {failed} of {total} checks failed"])
    how = "the expected values themselves" if verification.identical else "within the tolerances"
    return "\n".join([*lines, f"PASS: {total} checks, {how}"])
