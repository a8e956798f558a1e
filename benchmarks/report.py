"""The benchmark's results as lines and as a Markdown table."""

from __future__ import annotations

from typing import Any

from measuring import Result

VERDICTS = {True: "yes", False: "NO", None: ""}


def line(result: Result) -> str:
    """One line for the terminal."""
    return _line(result.as_record())


def _line(record: dict[str, Any]) -> str:
    target = _target(record)
    verdict = f" ({target}: {VERDICTS[record['met']]})" if target else ""
    return f"{record['group']}: {record['ratio']:.3g}{verdict}  {record['what']}"


def _target(record: dict[str, Any]) -> str:
    return "" if record["target"] is None else f"{record['bound']} {record['target']:.3g}"


def _amount(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}"


def table(content: dict[str, Any]) -> str:
    """The Markdown report: what it was measured on, and one row per ratio."""
    hardware = content["hardware"]
    quick = "\n**Quick run: the times mean nothing.**\n" if content["quick"] else ""
    head = f"""# Measured speed and memory

Written by `make bench`. Model: {content["model"]}. {hardware["processor"]}
({hardware["instructions"]}), {hardware["threads_used"]} of {hardware["cores"]} cores,
Python {hardware["python"]}, torch {hardware["torch"]}, transformers {hardware["transformers"]}.
Seconds are processor time. A ratio that has to stay small is library / other, one that has to be
large is other / library.
{quick}
| | what | library | other | ratio | target | met | same results |
| --- | --- | ---: | ---: | ---: | --- | --- | --- |
"""
    return head + "".join(_row(record) for record in content["results"])


def _row(record: dict[str, Any]) -> str:
    cells = [
        record["group"].split()[0],
        record["what"],
        _amount(record["ours"], record["unit"]),
        _amount(record["plain"], record["unit"]),
        f"{record['ratio']:.3g}",
        _target(record),
        VERDICTS[record["met"]],
        record["parity"],
    ]
    return "| " + " | ".join(cells) + " |\n"
