"""Escaping and tables: what goes in is what LaTeX prints."""

import math
import string
import subprocess
from collections import namedtuple

import pytest

from refusal.latex import MISSING, escape_latex, estimate, interval, number, stacked, tabular

Estimate = namedtuple("Estimate", ["value", "low", "high"])

DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}\usepackage{textcomp,lmodern,siunitx,booktabs}
\begin{document}\thispagestyle{empty}\noindent %s
\end{document}
"""


def printed(source: str, folder) -> str:
    """Compile a line of LaTeX and return the text of the page."""
    (folder / "page.tex").write_text(DOCUMENT % source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    done = subprocess.run(
        ["pdftotext", "page.pdf", "-"], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_every_printable_character_survives(tmp_path):
    text = string.ascii_letters[:4] + string.digits[:3] + string.punctuation
    assert printed(escape_latex(text), tmp_path).replace("\n", "") == text


def test_commands_in_a_models_text_are_only_text(tmp_path):
    text = r"\input{/etc/passwd} $x_1$ % end & more"
    assert printed(escape_latex(text), tmp_path) == text


def test_unprintable_characters_become_their_code_point():
    assert escape_latex("a\N{SNOWMAN}b") == "aU+2603b"
    assert escape_latex("é") == "é"


@pytest.mark.parametrize(
    "value, shown",
    [(0.834, r"\num{0.83}"), (-0.001, r"\num{0.00}"), (-0.125, r"\num{-0.12}")],
)
def test_numbers_are_rounded_and_never_minus_zero(value, shown):
    assert number(value) == shown


def test_what_is_missing_is_a_dash():
    assert number(math.nan) == number(None) == MISSING
    assert interval(0.1, math.nan) == MISSING
    assert estimate(0.5, math.nan, math.nan) == r"\num{0.50}"


def test_a_table_repeats_its_header_only_where_it_breaks():
    table = tabular("ll", ["a", "b"], [["heading"], ["1", "2"]])
    assert r"\endhead" not in table and r"\multicolumn{2}{l}{\textit{heading}}" in table
    assert r"\endhead" in tabular("ll", ["a", "b"], [["1", "2"]], "longtable")


def test_an_empty_table_says_so():
    assert "nothing of this kind was measured" in tabular("ll", ["a", "b"], [])


def test_a_value_stands_over_its_interval():
    assert stacked(Estimate(0.5, 0.4, 0.6)) == (
        r"\num{0.50}",
        r"{\scriptsize [\num{0.40}, \num{0.60}]}",
    )
    assert stacked(Estimate(0.5, math.nan, math.nan)) == (r"\num{0.50}", "")
    assert stacked(None) == (MISSING, "")
