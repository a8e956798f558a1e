"""LaTeX: escaping, numbers, and tables in booktabs form."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": "-{}",
    "\n": " ",
    "\N{MINUS SIGN}": r"$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{EN DASH}": "--",
}
MISSING = "--"


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is; what the fonts cannot print becomes its code point.

    Ligatures (`--`, quotes) are broken up, so that a model's text cannot turn into something else.
    """
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character if character.isprintable() else " "
    return character if "\u00a1" <= character <= "\u017f" else f"U+{ord(character):04X}"


def number(value: float | None, digits: int = 2) -> str:
    """Return a value as siunitx prints it; a dash for a missing one."""
    if value is None or not math.isfinite(value):
        return MISSING
    rounded = f"{value:.{digits}f}"
    return rf"\num{{{rounded.removeprefix('-') if float(rounded) == 0 else rounded}}}"


def scientific(value: float | None) -> str:
    """Return a value as a power of ten where two decimals would show none of it."""
    if value is None or not 0 < abs(value) < 0.01:
        return number(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"\num{{{mantissa}e{int(exponent)}}}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """Return bounds in brackets; a dash where there is no interval."""
    bounds = number(low, digits), number(high, digits)
    return MISSING if MISSING in bounds else f"[{bounds[0]}, {bounds[1]}]"


def estimate(value: float, low: float, high: float, digits: int = 2) -> str:
    """Return a value with its interval in small print."""
    bounds = interval(low, high, digits)
    shown = number(value, digits)
    return shown if bounds == MISSING else rf"{shown} {{\scriptsize {bounds}}}"


def printed(metric: str, value: float, low: float, high: float) -> tuple[str, str]:
    """Return a value and its interval; differences of logits lie far below two decimals."""
    digits = scientific if metric.startswith("logit_difference") else number
    value, low, high = map(digits, (value, low, high))
    return value, MISSING if MISSING in (low, high) else f"[{low}, {high}]"


def stacked(row: Any, digits: int = 2) -> tuple[str, str]:
    """Return a value and its interval in small print, for two lines of a table.

    Args:
        row: anything with value, low and high, or None if nothing was measured.
    """
    if row is None:
        return MISSING, ""
    bounds = interval(row.low, row.high, digits)
    return number(row.value, digits), "" if bounds == MISSING else rf"{{\scriptsize {bounds}}}"


def tabular(
    columns: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    environment: str = "tabular",
) -> str:
    """Return a booktabs table; cells are LaTeX already. A row of length 1 is a heading.

    In a `longtable` the header is repeated on every page. Without rows, the table says so.
    """
    rows = list(rows) or [["nothing of this kind was measured"]]
    width = len(header)
    lines = [rf"\begin{{{environment}}}{{{columns}}}", r"\toprule", _row(header), r"\midrule"]
    if environment == "longtable":
        lines.append(r"\endhead")
    for index, row in enumerate(rows):
        if len(row) == 1:
            lines += [r"\addlinespace"] if index else []
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{row[0]}}}}} \\")
        else:
            lines.append(_row(row))
    lines += [r"\bottomrule", rf"\end{{{environment}}}"]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
