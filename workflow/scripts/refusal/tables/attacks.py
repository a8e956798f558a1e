"""Attack success of prompts and interventions, and the published figures beside them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from refusal.latex import MISSING, escape_latex, number, stacked, tabular
from refusal.reading import judge_of, label, models_of, pooled_name, recipes
from refusal.statistics import BASELINE
from refusal.tables.layout import Key, lookup

SUCCESS, SYSTEM = "attack_success", "+system"
SIDES = ("", SYSTEM)
NAMES = {"": "Direct request", "suffix": "Found suffix", "random_suffix": "Random suffix"}


class Line(NamedTuple):
    """A line of the table: an attack by prompt, or an intervention on the direct request."""

    name: str
    intervention: str
    attack: str

    def dataset(self, label: str, side: str) -> str:
        return label + ("+" + self.attack if self.attack else "") + side


def attack_lines(summary: pd.DataFrame) -> tuple[list[Line], list[Line]]:
    """The attacks by prompt and those by intervention that were measured, in their order."""
    rows = summary[summary.metric == SUCCESS].drop_duplicates(["intervention", "dataset"])
    table, by_prompt, by_intervention = recipes(summary), {}, {}
    for row in rows.itertuples():
        attack = row.dataset.removesuffix(SYSTEM).partition("+")[2]
        if row.intervention == BASELINE:
            shown = NAMES.get(attack, attack.replace("_", " ").capitalize())
            by_prompt[attack] = Line(shown, BASELINE, attack)
        else:
            shown = label(table.loc[row.intervention])
            by_intervention[row.intervention] = Line(shown, row.intervention, "")
    return list(by_prompt.values()), list(by_intervention.values())


def judges_of_success(summary: pd.DataFrame) -> list[str]:
    """Judges that could tell success."""
    rows = summary[(summary.metric == SUCCESS) & summary.value.notna()]
    return list(dict.fromkeys(rows.judge))


def attacks_table(summary: pd.DataFrame) -> str:
    """Attack success by judge, without and with system prompt; intervals on a second line.

    The last columns show harmless prompts under the same wording: share refused, and share
    answered where the right answer is known.
    """
    rows, judges, model = lookup(summary), judges_of_success(summary), pooled_name(summary)
    main = judge_of(summary)
    lines: list[list[str]] = []
    for heading, group in zip(
        ("Attacks by prompt", "Interventions, direct request"), attack_lines(summary), strict=True
    ):
        lines += [[heading]] if group else []
        for line in group:
            keys = [
                (model, line.intervention, line.dataset("harmful", side), SUCCESS, judge)
                for judge in judges
                for side in SIDES
            ]
            harmless = line.dataset("harmless", "")
            keys.append((model, line.intervention, harmless, "refused", main))
            keys.append((model, line.intervention, harmless, "complied", "oracle"))
            cells = [stacked(rows.get(key)) for key in keys]
            lines.append([escape_latex(line.name), *(value for value, _ in cells)])
            lines.append(["", *(bounds for _, bounds in cells)])
    header = ["Attack"]
    for judge in judges:
        header += [escape_latex(judge.capitalize()), "+ system"]
    header += [_stack("Harmless\nrefused"), _stack("Harmless\nanswered")]
    return tabular("l" * len(header), header, lines)


def attacks_models_table(summary: pd.DataFrame) -> str:
    """Attack success of every model by the study's main judge, without / with system prompt."""
    rows, judge, models = lookup(summary), judge_of(summary), models_of(summary)
    lines: list[list[str]] = []
    for group in attack_lines(summary):
        for line in group:
            cells = [_pair(rows, model, line, judge) for model in models]
            lines.append([escape_latex(line.name), *cells])
    return tabular("l" * (len(models) + 1), ["Attack", *map(escape_latex, models)], lines)


def _pair(rows: Mapping[Key, Any], model: str, line: Line, judge: str) -> str:
    keys = (
        (model, line.intervention, line.dataset("harmful", side), SUCCESS, judge) for side in SIDES
    )
    found = [rows.get(key) for key in keys]
    return " / ".join(MISSING if row is None else number(row.value) for row in found)


def harmbench_table(published: Mapping[str, Any]) -> str:
    """Published attack success rates in percent; nothing of it was measured here.

    `published`: paper/published/harmbench.yaml.
    """
    columns = published["columns"]
    lines = [
        [escape_latex(model), *(number(values.get(column), 1) for column in columns)]
        for model, values in published["models"].items()
    ]
    header = ["Model", *(_stack(text) for text in columns.values())]
    return tabular("l" + "r" * len(columns), header, lines)


def _stack(text: str) -> str:
    """A heading that may have several lines."""
    lines = r" \\ ".join(escape_latex(line) for line in text.split("\n"))
    return rf"\begin{{tabular}}[b]{{@{{}}l@{{}}}}{lines}\end{{tabular}}"
