"""The paper: text chosen by what was measured, numbers as macros, a reproducible PDF.

Templates are Jinja2 with delimiters that LaTeX does not use: `((* ... *))` for statements,
`<< ... >>` for values, `((= ... =))` for comments. An undefined name is an error.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from refusal.errors import InputError
from refusal.latex import escape_latex
from refusal.reading import label, recipes
from refusal.statistics import draw_group
from refusal.tables.capability import TASK_NAMES
from refusal.tables.claims import bound
from refusal.tables.comparison import group_label
from refusal.tables.models import REQUIREMENTS

TEX_PACKAGES = (
    "texlive-latex-base texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended "
    "texlive-science latexmk lmodern cm-super-minimal"
)
TEX_SETTINGS = {
    # The date of the PDF is fixed, so that it does not depend on when it was made.
    "SOURCE_DATE_EPOCH": "0",
    "FORCE_SOURCE_DATE": "1",
    # LaTeX reads and writes nothing by an absolute path or by one with `..` in it, so that text
    # which escaped its escaping could still not show a file of this machine. Tables and figures
    # lie in folders beside that of the source.
    "openin_any": "p",
    "openout_any": "p",
    "TEXINPUTS": ".:..:",
}
METRICS = {
    "refused": "share refused",
    "refused_change": "change of the share refused",
    "complied": "share answered with the right words",
    "complied_change": "change of the share answered with the right words",
    "looping": "share that loops",
    "looping_change": "change of the share that loops",
    "cross_entropy": "cross-entropy in nats per token",
    "perplexity_ratio": "perplexity relative to the unsteered model",
    "landing_t": "mean position $t$ along DiM",
    "nearest_harmless": "share nearest to the harmless mean",
    "outside": "share off both classes",
    "off_distribution": "relative distance from the nearer class mean",
    "projection_ratio": "mean harmless projection over mean harmful projection",
    "kl": "KL divergence from the unsteered model",
    "capability": "share of capability questions answered",
    "all_layers_refused_change": "change of the share refused, all layers ablated",
    "best_window_refused_difference": "share refused, best window minus all layers",
    "local_window_refused_difference": "share refused, best local window minus all layers",
    "local_window_refused_change": "change of the share refused, best local window",
    "cosine_peak_against_random": "cosine at the peak layer, minus that with a random suffix",
    "suppression_share": "share of the gap in cosine closed, at the direction's layer",
    "suppression_share_peak": "share of the gap in cosine closed, at the peak layer",
    "attribution_change": r"write of the top heads along $\hat r$, minus that without suffix",
    "attribution_against_random": "write of the top heads, minus that with a random suffix",
    "attribution_suppression_share": "share of the gap in the top heads' write closed",
    "attention_instruction_against_random": (
        "attention on the instruction, minus that with a random suffix"
    ),
    "attention_suffix_against_random": "attention on the suffix, minus that on a random suffix",
    "logit_difference": "largest difference of a logit",
    "logit_difference_writes": "largest difference of a logit, hooks on the writes",
    "logit_difference_post_norm": "largest difference of a logit, blocks with post-norms",
    "logit_change": "largest change of a logit",
    "same_next_token": "share with the same next token",
    "same_next_token_post_norm": "share with the same next token, blocks with post-norms",
    "accuracy": "accuracy",
    "accuracy_change": "change of accuracy",
    "kind_cosine_highest": "largest cosine between two kinds",
    "kind_cosine_mean": "mean cosine between two kinds",
    "kind_cosine_shared_pool": "mean cosine, shared minus own negative class",
    "kind_distinct_share": "share of pairs less alike than draws of one kind",
    "kind_ablation_specific": "share refused without the own direction minus without another's",
    "harmful_ablation_safety": "share of harmful kinds refused without a harmful kind's direction",
    "harmful_ablation_other": "share of harmful kinds refused without another kind's direction",
    "harmful_ablation_difference": "the same, another kind's minus a harmful kind's direction",
    "knob_spread_ratio": "spread of the curves over that of resampling",
    "knob_spread_excess": "excess spread of the areas under the curves",
    "knob_refusal": "share of harmful prompts refused at the chosen strengths",
    "knob_random_gap": "share of harmful prompts refused, kinds minus random directions",
    "style_share": "information on style, share of its entropy",
    "style_minus_refusal_share": "information share on style minus that on refusal",
    "own_style_gain": "share in the direction's own style, minus under other directions",
    "feature_core_share": "share of a list that all kinds share",
    "feature_core_gain": "share of a list that all kinds share, minus shuffled labels",
    "feature_jaccard": "mean Jaccard index of two lists",
    "oracle_gap": "oracle gap in correct compliance",
    "recovery": "recovery of $U$",
    "signal_share": "share of the mean difference that is no sampling noise",
}
DATASETS = {
    "harmful": "harmful prompts",
    "harmful+suffix": "harmful prompts with the adversarial suffix",
    "harmful+random_suffix": "harmful prompts with a random suffix",
    "harmless": "harmless prompts",
    "borderline": "borderline prompts",
    "text": "held-out text",
    "answers": "reference answers",
    "own": "the model's own completions",
    "capability": "capability questions",
    "kinds": "prompts of all kinds",
    "base": "the base with the least",
    "planted": "all accepted organisms",
    "rank1_loud": "rank 1, loud $U$",
    "rank1_quiet": "rank 1, quiet $U$",
    "rank1_silent": "rank 1, silent $U$",
    "rank_above_1": "functional rank above 1",
    **TASK_NAMES,
}
VERDICTS = ("supported", "contradicted", "inconclusive", "not measured")


class Numbers:
    """Numbers by name; remembers which ones the text quotes."""

    def __init__(self, numbers: Mapping[str, str]) -> None:
        self.numbers = numbers
        self.used: set[str] = set()

    def quote(self, name: str) -> str:
        """Return the macro that prints a number; InputError if there is none of this name."""
        if name not in self.numbers:
            raise InputError(
                f"paper: the text quotes the number '{name}', which this study did not measure. "
                "Remedy: add the intervention or guard the sentence with `has(...)`."
            )
        self.used.add(name)
        return rf"\result{{{name}}}"

    def has(self, name: str) -> bool:
        """Whether a number was measured."""
        return name in self.numbers

    def definitions(self) -> str:
        """Return the LaTeX file that defines the quoted numbers."""
        lines = [rf"\defineresult{{{name}}}{{{self.numbers[name]}}}" for name in sorted(self.used)]
        return "\n".join(lines) + "\n"


def intervention_labels(summary: pd.DataFrame) -> dict[str, str]:
    """Reader's names of all interventions and of the groups of random draws, escaped."""
    table = recipes(summary)
    labels = {name: escape_latex(label(table.loc[name])) for name in table.index}
    for name in table.index:
        if group := draw_group(name):
            labels[group] = escape_latex(group_label(table, group))
    return labels


def claims_by_verdict(claims: Mapping[str, Mapping]) -> dict[str, list[str]]:
    """Names of the claims with each overall verdict that occurs, in the order of `VERDICTS`."""
    names = {
        verdict: [n for n, claim in claims.items() if claim["overall"]["verdict"] == verdict]
        for verdict in VERDICTS
    }
    return {verdict: found for verdict, found in names.items() if found}


def models_by_verdict(claim: Mapping) -> str:
    """Say how the models divide over the verdicts, for example "3 supported, 1 inconclusive"."""
    counts = Counter(outcome["verdict"] for outcome in claim["models"].values())
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def environment(folder: Path) -> jinja2.Environment:
    """Jinja environment for LaTeX templates in `folder`."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        block_start_string="((*",
        block_end_string="*))",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="((=",
        comment_end_string="=))",
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )
    env.filters["latex"] = escape_latex
    env.filters["num"] = lambda value: rf"\num{{{value:g}}}"
    env.globals.update(
        bound=bound,
        claims_by_verdict=claims_by_verdict,
        datasets=DATASETS,
        metrics=METRICS,
        models_by_verdict=models_by_verdict,
        requirements=REQUIREMENTS,
    )
    return env


def render(
    folder: Path,
    numbers: Mapping[str, str],
    context: Mapping[str, Any],
    template: str = "main.tex.j2",
) -> tuple[str, str]:
    """Render a template of a folder.

    Args:
        folder: paper/.
        numbers: LaTeX by name (numbers.json).
        context: config, cards, claims, labels, figures, judge; see workflow/scripts/write_paper.py.
        template: its name; the default is the paper.

    Returns:
        The paper's source, and the source of numbers.tex with the numbers that it quotes.
    """
    quoted = Numbers(numbers)
    env = environment(folder)
    env.globals.update(number=quoted.quote, has=quoted.has)
    text = env.get_template(template).render(**context)
    return text, quoted.definitions()


def compile_pdf(source: Path, target: Path) -> str:
    """Compile `source` with latexmk and place the PDF at `target`; same input, same bytes.

    Returns:
        What LaTeX wrote in its last run (overfull boxes, for example).

    Raises:
        InputError: latexmk is missing, or LaTeX stopped (with the end of its log).
    """
    build = build_pdf(source)
    shutil.copyfile(build / source.with_suffix(".pdf").name, target)
    log = (build / source.with_suffix(".log").name).read_text(errors="replace")
    shutil.rmtree(build)
    return log


def build_pdf(source: Path) -> Path:
    """Compile `source` with latexmk; returns the folder with the PDF and all that LaTeX wrote.

    Raises:
        InputError: latexmk is missing, or LaTeX stopped (with the end of its log).
    """
    if shutil.which("latexmk") is None:
        raise InputError(
            f"paper: latexmk is not installed. Remedy: apt-get install {TEX_PACKAGES}."
        )
    build = source.parent / "build"
    # No rc file, which is Perl code, from the results folder.
    command = ["latexmk", "-norc", "-pdf", "-halt-on-error", "-interaction=nonstopmode", "-g"]
    command += ["-latexoption=-no-shell-escape", f"-outdir={build.name}", source.name]
    done = subprocess.run(
        command,
        cwd=source.parent,
        env={**os.environ, **TEX_SETTINGS},
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        raise InputError(f"paper: LaTeX stopped. {_first_error(done.stdout)}")
    return build


def _first_error(log: str) -> str:
    """The first error of a LaTeX log with the lines that follow it."""
    lines = log.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("!")), len(lines) - 15)
    return " / ".join(line.strip() for line in lines[max(start, 0) :][:8] if line.strip())
