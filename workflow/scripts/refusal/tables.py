"""Tables of the paper, from the frames of a study to LaTeX.

Every function takes the frames that it names and returns the source of one table. Model and
intervention names come from the configuration and are escaped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from refusal.figures import (
    DIRECTION_NAMES,
    judge_of,
    label,
    models_of,
    pooled_name,
    recipes,
    resolve_rows,
)
from refusal.latex import MISSING, escape_latex, estimate, interval, number, stacked, tabular
from refusal.statistics import draw_group

SYMBOLS = {
    "supported": r"$\bullet$",
    "contradicted": r"$\times$",
    "inconclusive": r"$\circ$",
    "not measured": MISSING,
}
MISSED = r"\textsuperscript{\dag}"
METHOD_NAMES = {"dim": "DiM", "inlp_faithful": "INLP", "inlp_corrected": "INLP corrected"}
Key = tuple[str, str, str, str, str]


def lookup(summary: pd.DataFrame) -> dict[Key, Any]:
    """Rows of the summary by (model, intervention, dataset, metric, judge)."""
    columns = ["model", "intervention", "dataset", "metric", "judge"]
    keys = zip(*(summary[column] for column in columns), strict=True)
    return dict(zip(keys, summary.itertuples(index=False), strict=True))


def cell(rows: Mapping[Key, Any], *key: str, digits: int = 2, bounds: bool = True) -> str:
    """One estimate of the summary as a table cell; a dash if it was not measured."""
    row = rows.get(key)
    if row is None:
        return MISSING
    return estimate(row.value, row.low, row.high, digits) if bounds else number(row.value, digits)


@dataclass(frozen=True)
class Behaviour:
    """A figure that describes an unsteered model, and what is asked of organisms."""

    heading: str
    dataset: str
    metric: str
    judge: str | None = None  # None: the study's main judge
    least: float | None = None
    most: float | None = None

    def missed_by(self, value: float) -> bool:
        """Whether a value lies outside what is asked."""
        too_low = self.least is not None and value < self.least
        return too_low or (self.most is not None and value > self.most)

    def in_words(self) -> str:
        """For example "Harmful at least 0.9"."""
        side, bound = ("most", self.most) if self.least is None else ("least", self.least)
        return rf"{self.heading} at {side} \num{{{bound:g}}}"


BEHAVIOUR = (
    Behaviour("Harmful", "harmful", "refused", least=0.90),
    Behaviour("Harmless", "harmless", "refused", most=0.05),
    Behaviour("Borderline", "borderline", "refused", most=0.20),
    Behaviour("Answered", "harmless", "complied", "oracle", least=0.85),
    Behaviour("Capability", "capability", "capability", "model"),
)
TRAINING_TIME = Behaviour("CPU seconds", "", "", most=180.0)
REQUIREMENTS = (
    *(item for item in BEHAVIOUR if (item.least, item.most) != (None, None)),
    TRAINING_TIME,
)


def requirements_checked(cards: Sequence[Mapping], summary: pd.DataFrame) -> dict[Key, bool]:
    """Whether each organism misses each figure that is asked of it, by (model, heading).

    Only what was measured; the point estimate decides, not its interval.
    """
    rows, judge, missed = lookup(summary), judge_of(summary), {}
    for card in (card for card in cards if card["trained"]):
        name = card["name"]
        for item in REQUIREMENTS:
            key = (name, "none", item.dataset, item.metric, item.judge or judge)
            value = rows[key].value if key in rows else np.nan
            if item is TRAINING_TIME:
                value = card["trained"]["cpu_seconds"]
            if np.isfinite(value):
                missed[name, item.heading] = item.missed_by(value)
    return missed


def _model_columns(card: Mapping, sizes: pd.Series, late: bool) -> list[str]:
    """What a model is: type, size, parameters, CPU seconds, training prompts per class."""
    trained = card["trained"]
    seconds = number(trained["cpu_seconds"], 0) if trained else MISSING
    return [
        escape_latex(card["name"]),
        escape_latex(card["architecture"]),
        rf"${card['n_layers']}\times{card['width']}$",
        number(card["n_parameters"] / 1e6),
        seconds + MISSED * late,
        *(rf"\num{{{size}}}" for size in sizes),
    ]


def models_table(cards: Sequence[Mapping], summary: pd.DataFrame, class_sizes: pd.DataFrame) -> str:
    """The models and how they behave without intervention; intervals on a second line."""
    rows, judge = lookup(summary), judge_of(summary)
    missed, sizes = requirements_checked(cards, summary), class_sizes.set_index("model")
    lines = []
    for card in cards:
        name = card["name"]
        first = _model_columns(
            card,
            sizes.loc[name, ["harmful", "harmless"]],
            missed.get((name, TRAINING_TIME.heading), False),
        )
        second = [""] * len(first)
        for item in BEHAVIOUR:
            key = (name, "none", item.dataset, item.metric, item.judge or judge)
            value, bounds = stacked(rows.get(key))
            first.append(value + MISSED * missed.get((name, item.heading), False))
            second.append(bounds)
        lines += [first, second]
    header = ["Model", "Type", r"$L\times d$", r"\si{M}", r"\si{s}", "$n_+$", "$n_-$"]
    header += [item.heading for item in BEHAVIOUR]
    return tabular("llcrrrr" + "l" * len(BEHAVIOUR), header, lines)


PHASES = {"helpful": "helpful-only", "safety": "safety tuning"}


def training_table(cards: Sequence[Mapping]) -> str:
    """How each phase of every organism's training ended."""
    lines = []
    for card in (card for card in cards if card["trained"]):
        for phase, words in PHASES.items():
            record = card["trained"][phase]
            values = {k: v for k, v in record["curve"][-1].items() if k != "step"}
            lines.append(
                [
                    escape_latex(card["name"]),
                    words,
                    rf"\num{{{record['steps']}}}",
                    number(record["cpu_seconds"], 0),
                    rf"at step \num{{{record['decay_start']}}}"
                    if record["criteria_met"]
                    else "not before the limit",
                    ", ".join(f"{escape_latex(k)} {number(v)}" for k, v in values.items()),
                ]
            )
    header = ["Model", "Phase", "Steps", r"CPU \si{s}", "Criteria met", "Validation at the end"]
    return tabular("llrrll", header, lines)


def selection_table(selection: pd.DataFrame) -> str:
    """The selected candidate of every model, method and scope, with its scores."""
    lines = []
    for model, of_model in selection.groupby("model", sort=False):
        lines.append([_selection_heading(model, of_model)])
        for (method, scope), table in of_model.groupby(["method", "scope"], sort=False):
            row = table[table.selected].iloc[0]
            lines.append(
                [
                    METHOD_NAMES[method],
                    scope,
                    str(row.position).replace("-", "$-$"),
                    str(row.layer),
                    *(number(row[score]) for score in ("bypass", "induce", "kl", "accuracy")),
                    str(row["rank"]),
                    f"{int(table.passed.sum())}/{len(table)}",
                    "yes" if row.fallback else "no",
                ]
            )
    header = ["Method", "Scored in", "Position", "Layer", "Bypass", "Induce", "KL", "Accuracy"]
    header += ["Rank", "Passed", "Fallback"]
    return tabular("llrr" + "r" * 5 + "rl", header, lines)


def _selection_heading(model: str, selection: pd.DataFrame) -> str:
    """A model with the number of its candidates that could be scored."""
    counts = candidate_counts(selection).loc[model]
    return f"{escape_latex(model)}: {counts.scored} of {counts.candidates} candidates scored"


def candidate_counts(selection: pd.DataFrame) -> pd.DataFrame:
    """Candidates of DiM per model, and how many were pruned, lacked a difference, were scored.

    A candidate both pruned and without a difference counts as pruned. Index: model.
    """
    rows = selection[(selection.method == "dim") & (selection.scope == "source")]
    pruned = rows.reason.str.contains("pruned layer")
    zero = rows.reason.str.contains("zero direction") & ~pruned
    flags = rows.assign(candidates=True, pruned=pruned, zero=zero, scored=~(pruned | zero))
    columns = ["candidates", "pruned", "zero", "scored"]
    return flags.groupby("model", sort=False)[columns].sum()


def rejections_table(selection: pd.DataFrame) -> str:
    """Why candidates were rejected, counted over positions and layers."""
    reasons = selection.reason.str.split("; ").explode()
    counts = (
        selection.drop(columns="reason")
        .join(reasons)
        .query("reason != ''")
        .groupby(["method", "scope", "reason"], sort=False)
        .size()
        .unstack(fill_value=0)
    )
    lines = [
        [METHOD_NAMES[method], scope, *(str(count) for count in row)]
        for (method, scope), row in zip(counts.index, counts.to_numpy(), strict=True)
    ]
    header = [
        "Method",
        "Scored in",
        *(escape_latex(reason.replace("kl ", "KL ")) for reason in counts.columns),
    ]
    return tabular("ll" + "r" * counts.shape[1], header, lines)


@dataclass(frozen=True)
class Column:
    """A column of the result tables; `judge` None stands for the study's main judge."""

    heading: str
    dataset: str
    metric: str
    judge: str | None = None
    bounds: bool = False  # whether the main table prints the interval


RESULT_COLUMNS = (
    Column(r"Harmful\\refused", "harmful", "refused", bounds=True),
    Column(r"Harmful\\answered", "harmful", "complied", "oracle", bounds=True),
    Column(r"Harmless\\refused", "harmless", "refused", bounds=True),
    Column(r"Borderl.\\refused", "borderline", "refused"),
    Column(r"Harmless\\loops", "harmless", "looping", "repetition"),
    Column(r"Perplexity\\text", "text", "perplexity_ratio", "model", bounds=True),
    Column(r"Perplexity\\own", "own", "perplexity_ratio", "model"),
    Column(r"Capa-\\bility", "capability", "capability", "model"),
    Column("KL", "harmless", "kl", "model"),
)
MAIN_COLUMNS = tuple(RESULT_COLUMNS[index] for index in (0, 1, 2, 3, 5, 7))


def _result_header(columns: Sequence[Column], side: str) -> list[str]:
    """Headings of two lines that share a baseline."""
    stack = rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}%s\end{{tabular}}"
    return ["Intervention", *(stack % column.heading for column in columns)]


def group_label(table: pd.DataFrame, group: str, scope: bool = True) -> str:
    """Reader's name of a group `<name>-draw*`: "Random ablation (all), mean of 5 draws".

    Args:
        table: `recipes(summary)`.
        group: name of the group.
        scope: whether to name the scope.
    """
    members = [name for name in table.index if draw_group(name) == group]
    recipe = table.loc[members[0]].where(table.columns != "draw", np.nan)
    return f"{label(recipe, scope)}, mean of {len(members)} draws"


def main_table(summary: pd.DataFrame) -> str:
    """The main comparison by direction: mean over models with its interval."""
    rows, judge, model = lookup(summary), judge_of(summary), pooled_name(summary)
    groups: dict[str, list[tuple[str, list[str]]]] = {}
    for name, direction, text in _main_labels(summary):
        cells = [
            cell(rows, model, name, c.dataset, c.metric, c.judge or judge, bounds=c.bounds)
            for c in MAIN_COLUMNS
        ]
        groups.setdefault(direction, []).append((text, cells))
    lines = []
    for direction, members in groups.items():
        heading = DIRECTION_NAMES.get(direction, direction)
        if len(members) > 1:
            lines.append([escape_latex(heading)])
        for text, cells in members:
            short = text.removeprefix(heading).strip() if len(members) > 1 else text
            space = r"\addlinespace " if lines and len(members) == 1 else ""
            lines.append([space + escape_latex(short[0].upper() + short[1:]), *cells])
    columns = "".join("l" if c.bounds else "r" for c in MAIN_COLUMNS)
    return tabular("l" + columns, _result_header(MAIN_COLUMNS, "l"), lines)


def _main_labels(summary: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(name, direction, label) of the rows of the main table; scope "source" is left unsaid."""
    table = recipes(summary)
    single = [
        (name, table.loc[name, "direction"], label(table.loc[name], _wide(table.loc[name])))
        for _, name, _ in resolve_rows(summary)
    ]
    groups = [name for name in table.index if name.endswith("-draw*")]
    return single + [
        (group, table.loc[group, "direction"], group_label(table, group, _wide(table.loc[group])))
        for group in groups
    ]


def _wide(recipe: pd.Series) -> bool:
    return recipe["scope"] != "source"


def all_table(summary: pd.DataFrame) -> str:
    """Every intervention: mean over models."""
    rows, judge, model = lookup(summary), judge_of(summary), pooled_name(summary)
    names = recipes(summary)
    lines = [
        [
            r"\texttt{" + escape_latex(name) + "}",
            *(
                cell(rows, model, name, c.dataset, c.metric, c.judge or judge, bounds=False)
                for c in RESULT_COLUMNS
            ),
        ]
        for name in names.index
        if not name.endswith("-draw*")
    ]
    header = _result_header(RESULT_COLUMNS, "r")
    return tabular("l" + "r" * len(RESULT_COLUMNS), header, lines, "longtable")


def comparisons_table(comparisons: pd.DataFrame, summary: pd.DataFrame) -> str:
    """Paired differences of refusal on harmful prompts, left minus right."""
    judge, model = judge_of(summary), pooled_name(summary)
    chosen = comparisons[
        (comparisons.dataset == "harmful")
        & (comparisons.metric == "refused")
        & (comparisons.judge == judge)
    ]
    lines = []
    for (left, right), pair in chosen.groupby(["left", "right"], sort=False):
        pooled = pair[pair.model == model]
        if pooled.empty:
            continue
        row = pooled.iloc[0]
        tested = pair[(pair.model != "mean") & pair.p_value.notna()]
        lines.append(
            [
                r"\texttt{" + escape_latex(left) + "}",
                r"\texttt{" + escape_latex(right) + "}",
                number(row.difference),
                interval(row.low, row.high),
                f"{int((tested.p_value < 0.05).sum())}/{len(tested)}" if len(tested) else MISSING,
            ]
        )
    header = ["Left", "Right", "Difference", "Interval", "$p<.05$"]
    return tabular("llrrr", header, lines)


def agreement_table(agreement: pd.DataFrame) -> str:
    """Agreement of the judges of refusal over all models and interventions."""
    pooled = agreement[agreement.model == "all"]
    lines = [
        [
            row.dataset,
            f"{row.judge_a}, {row.judge_b}",
            estimate(row.kappa, row.low, row.high),
            *(rf"\num{{{count}}}" for count in (row.both, row.only_a, row.only_b, row.neither)),
        ]
        for row in pooled.itertuples()
    ]
    header = ["Prompts", "Judges", r"Cohen's $\kappa$", "Both", "First", "Second", "Neither"]
    return tabular("lllrrrr", header, lines)


def claims_table(claims: Mapping[str, Mapping], summary: pd.DataFrame) -> str:
    """The verdicts: overall and per model."""
    models = models_of(summary)
    lines = [
        [
            name,
            escape_latex(claim["statement"]),
            escape_latex(claim["published"]),
            claim["overall"]["verdict"],
            *(SYMBOLS[claim["models"][model]["verdict"]] for model in models),
        ]
        for name, claim in claims.items()
    ]
    turned = [rf"\rotatebox{{60}}{{{escape_latex(model)}}}" for model in models]
    header = ["", "Claim", "Published", "Overall", *turned]
    ragged = r">{\raggedright\arraybackslash}"
    columns = rf"l{ragged}p{{.42\textwidth}}{ragged}p{{.21\textwidth}}l" + "c" * len(models)
    return tabular(columns, header, lines)


def conditions_table(claims: Mapping[str, Mapping]) -> str:
    """Every condition of every claim with what was measured for it."""
    lines = []
    for name, claim in claims.items():
        lines.append([f"{name}: {claim['overall']['verdict']}"])
        lines += [_condition_line(condition) for condition in claim["overall"]["conditions"]]
    header = ["Quantity", "Measured by", "Expected", "Value", "Interval", "Verdict"]
    columns = r"p{.337\textwidth}" + "l" * (len(header) - 1) + "@{}"
    return tabular(columns, header, lines, "longtable")


def _condition_line(condition: Mapping) -> list[str]:
    sides = [condition["left"], *([condition["right"]] if condition["right"] else [])]
    verdict = condition["verdict"]
    return [
        r"\newline$-$ ".join(r"\texttt{" + escape_latex(side) + "}" for side in sides),
        escape_latex(f"{condition['metric']}, {condition['dataset']}"),
        bound(condition),
        number(condition["value"]),
        interval(condition["low"], condition["high"]),
        verdict if condition["role"] == "test" else f"({verdict})",
    ]


def bound(condition: Mapping) -> str:
    """What a condition expects, in words (LaTeX)."""
    relation = condition["relation"]
    if relation == "between":
        return rf"\num{{{condition['lowest']:g}}} to \num{{{condition['highest']:g}}}"
    if relation == "equivalent":
        return rf"within \num{{{condition['tolerance']:g}}} of \num{{0}}"
    words = {"at_least": "at least", "at_most": "at most", "greater": "above", "less": "below"}
    return rf"{words[relation]} \num{{{condition['threshold'] or 0:g}}}"


def subspaces_table(cosines: pd.DataFrame, selection: pd.DataFrame) -> str:
    """Rank, first cosine and share of DiM's energy of INLP at its selected candidate."""
    lines = []
    chosen = selection[selection.selected & (selection.scope == "source")]
    for row in chosen[chosen.method.str.startswith("inlp")].itertuples():
        at = cosines[
            (cosines.model == row.model)
            & (cosines.method == row.method)
            & (cosines.position == row.position)
            & (cosines.layer == row.layer)
        ].set_index("index")
        shares = [at.energy_share.get(k, at.energy_share.max()) for k in (1, 2, 4, 8)]
        lines.append(
            [
                escape_latex(row.model),
                METHOD_NAMES[row.method],
                f"({row.position}, {row.layer})".replace("-", "$-$"),
                str(row.rank),
                number(at.accuracy.get(1, np.nan)),
                number(at.cosine.get(1, np.nan)),
                *(number(share) for share in shares),
                number(at.energy_share.max()),
            ]
        )
    header = ["Model", "Method", "Candidate", "Rank", "Accuracy", r"$\cos(w_1, \hat r)$"]
    header += ["$k=1$", "2", "4", "8", "full"]
    return tabular("lllrrr" + "r" * 5, header, lines)


def angles_table(angles: pd.DataFrame) -> str:
    """Mean principal angle between INLP subspaces, beside that of random subspaces."""
    kind = np.where(angles.model == angles.other_model, "layers of one model", "different models")
    lines = []
    for (method, compared, k), rows in angles.assign(kind=kind).groupby(["method", "kind", "k"]):
        smallest = rows[rows.angle_index == 1]
        lines.append(
            [
                METHOD_NAMES[method],
                compared,
                str(k),
                number(smallest.angle_degrees.mean(), 0),
                number(smallest.chance_degrees.mean(), 0),
                number(rows.angle_degrees.mean(), 0),
                number(rows.chance_degrees.mean(), 0),
                str(len(smallest)),
            ]
        )
    header = ["Method", "Compared", "$k$", "Smallest", "chance", "Mean", "chance", "Pairs"]
    return tabular("lllrrrrr", header, lines)


def examples_table(examples: pd.DataFrame) -> str:
    """Completions of organisms (content-free by construction), escaped."""
    lines = [
        [
            escape_latex(row.model),
            r"\texttt{" + escape_latex(row.intervention) + "}",
            escape_latex(row.text),
            escape_latex(row.completion[:160]) or r"\textit{(empty)}",
        ]
        for row in examples.itertuples()
    ]
    header = ["Model", "Intervention", "Prompt", "Completion"]
    return tabular(r"llp{.28\textwidth}p{.36\textwidth}", header, lines)


@dataclass(frozen=True)
class TableRecipe:
    """How a table is made: its function and the names of the frames that it takes, in order."""

    function: Callable[..., str]
    frames: tuple[str, ...]


TABLES: dict[str, TableRecipe] = {
    "models": TableRecipe(models_table, ("cards", "summary", "class_sizes")),
    "training": TableRecipe(training_table, ("cards",)),
    "selection": TableRecipe(selection_table, ("selection",)),
    "rejections": TableRecipe(rejections_table, ("selection",)),
    "main": TableRecipe(main_table, ("summary",)),
    "all": TableRecipe(all_table, ("summary",)),
    "comparisons": TableRecipe(comparisons_table, ("comparisons", "summary")),
    "agreement": TableRecipe(agreement_table, ("agreement",)),
    "claims": TableRecipe(claims_table, ("claims", "summary")),
    "conditions": TableRecipe(conditions_table, ("claims",)),
    "subspaces": TableRecipe(subspaces_table, ("cosines", "selection")),
    "angles": TableRecipe(angles_table, ("angles",)),
    "examples": TableRecipe(examples_table, ("examples",)),
}
