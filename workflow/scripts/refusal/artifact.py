"""ARTIFACT.md: what a reviewer runs and should find, written from the expected values."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

from refusal.claims import load_claims
from refusal.expected import PAPER, read_expected, read_tolerances

TEMPLATE = "ARTIFACT.md.j2"
VERDICTS = ("supported", "contradicted", "inconclusive", "not measured")


def render_artifact(root: Path, study: str) -> str:
    """The page, from artifact/ and paper/claims.yaml of a repository.

    Raises:
        InputError: a file is missing or not what it should be.
    """
    folder = root / "artifact"
    expected = read_expected(folder / "expected" / f"{study}.json")
    evidence = yaml.safe_load((folder / "evidence.yaml").read_text(encoding="utf-8"))
    claims = load_claims(root / "paper" / "claims.yaml")
    resources = expected["resources"]
    rows = {name: _claim(name, expected, claims, evidence) for name in expected["claims"]}
    verdicts = Counter(row["verdict"] for row in rows.values())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(
        study=study,
        source=expected["source"],
        models=list(next(iter(expected["claims"].values()))["models"]),
        memory_mb=max(row["memory_mb"] for row in resources),
        cpu_s=sum(row["cpu_s"] for row in resources),
        jobs=sum(row["jobs"] for row in resources),
        results_bytes=expected["results_bytes"],
        quoted=sum(row["item"] == PAPER for row in expected["values"]),
        default=read_tolerances(folder / "tolerances.yaml").default,
        counts={verdict: verdicts[verdict] for verdict in VERDICTS},
        claims=rows,
        values=[_value(row) for row in expected["values"] if row["item"] != PAPER],
        resources=resources,
    )


def _claim(name: str, expected: Mapping, claims: Mapping, evidence: Mapping) -> dict[str, str]:
    """A row of the table of claims."""
    claim = expected["claims"][name]
    verdicts = Counter(outcome["verdict"] for outcome in claim["models"].values())
    return {
        "statement": " ".join(claims[name]["statement"].split()),
        "source": " ".join(claims[name]["source"].split()),
        "verdict": claim["overall"]["verdict"],
        "models": ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()),
        "figures": _names(evidence[name]["figures"]),
        "tables": _names(["claims", *evidence[name]["tables"]]),
    }


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _value(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table of expected values."""
    keys = ("intervention", "dataset", "metric", "judge")
    interval = "" if row["low"] is None else f"[{row['low']:.3g}, {row['high']:.3g}]"
    return {
        "item": row["item"],
        "quantity": " / ".join(f"`{row[key]}`" for key in keys),
        "value": "not measured" if row["value"] is None else f"{row['value']:.3g}",
        "interval": interval,
        "tolerance": f"{row['tolerance']:.2g}",
    }
