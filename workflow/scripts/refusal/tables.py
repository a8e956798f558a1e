"""Tables of the paper, from the frames of a study to LaTeX.

Every function takes the frames that it names and returns the source of one table. Model and
intervention names come from the configuration and are escaped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from refusal.figures import label, models_of, pooled_name, recipes, resolve_rows
from refusal.latex import MISSING, escape_latex, estimate, interval, number, tabular
from refusal.statistics import draw_group

SYMBOLS = {
    "supported": r"$\bullet$",
    "contradicted": r"$\times$",
    "inconclusive": r"$\circ$",
    "not measured": MISSING,
}
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


def judge_of(summary: pd.DataFrame) -> str:
    """The oracle where it could judge, else the published substring rule."""
    known = summary[(summary.metric == "refused") & summary.value.notna()]
    return "oracle" if (known.judge == "oracle").any() else "substring"


def models_table(cards: Sequence[Mapping], summary: pd.DataFrame) -> str:
    """The models and how they behave without intervention."""
    rows, judge = lookup(summary), judge_of(summary)
    lines = []
    for card in cards:
        name, trained = card["name"], card["trained"]
        shares = [
            cell(rows, name, "none", dataset, "refused", judge)
            for dataset in ("harmful", "harmless", "borderline")
        ]
        lines.append(
            [
                escape_latex(name),
                escape_latex(card["architecture"]),
                str(card["n_layers"]),
                str(card["width"]),
                number(card["n_parameters"] / 1e6),
                number(trained["cpu_seconds"], 0) if trained else MISSING,
                *shares,
                cell(rows, name, "none", "harmless", "complied", "oracle"),
                cell(rows, name, "none", "capability", "capability", "model"),
            ]
        )
    header = ["Model", "Type", "$L$", "$d$", r"\si{M}", r"\si{s}"]
    header += ["Harmful", "Harmless", "Borderline", "Answered", "Capability"]
    return tabular("llrrrr" + "l" * 5, header, lines)


def selection_table(selection: pd.DataFrame) -> str:
    """The selected candidate of every model, method and scope, with its scores."""
    lines = []
    for model, of_model in selection.groupby("model", sort=False):
        lines.append([escape_latex(model)])
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
    header = ["Method", "Scored in", *(escape_latex(reason) for reason in counts.columns)]
    return tabular("ll" + "r" * counts.shape[1], header, lines)


# The columns of the result tables: heading, dataset, metric, judge (None: the study's main judge).
RESULT_COLUMNS = (
    ("Harmful refused", "harmful", "refused", None),
    ("Harmful answered", "harmful", "complied", "oracle"),
    ("Harmless refused", "harmless", "refused", None),
    ("Borderline refused", "borderline", "refused", None),
    ("Loops", "harmless", "looping", "repetition"),
    ("Text", "text", "perplexity_ratio", "model"),
    ("Own", "own", "perplexity_ratio", "model"),
    ("Capability", "capability", "capability", "model"),
    ("KL", "harmless", "kl", "model"),
)


def _result_cells(
    rows: Mapping[Key, Any], model: str, name: str, judge: str, columns: Sequence, bounds: bool
) -> list[str]:
    return [
        cell(rows, model, name, dataset, metric, given or judge, bounds=bounds)
        for _, dataset, metric, given in columns
    ]


def main_table(summary: pd.DataFrame) -> str:
    """The main comparison: mean over models with its interval."""
    rows, judge, model = lookup(summary), judge_of(summary), pooled_name(summary)
    names = recipes(summary)
    columns = [RESULT_COLUMNS[index] for index in (0, 1, 2, 3, 5, 7)]
    lines = [
        [escape_latex(label(names.loc[name])), *_result_cells(rows, model, name, judge, columns, 1)]
        for _, name, _ in resolve_rows(summary)
    ]
    for group in _random_groups(summary):
        text = escape_latex(_group_label(names, group))
        lines.append([text, *_result_cells(rows, model, group, judge, columns, True)])
    return tabular("l" + "l" * len(columns), ["Intervention", *(c[0] for c in columns)], lines)


def _random_groups(summary: pd.DataFrame) -> list[str]:
    """The groups `<name>-draw*` of random controls, in order."""
    return [name for name in pd.unique(summary.intervention) if name.endswith("-draw*")]


def _group_label(names: pd.DataFrame, group: str) -> str:
    member = next(name for name in names.index if draw_group(name) == group)
    return label(names.loc[member].where(names.columns != "draw", np.nan)) + ", mean of draws"


def all_table(summary: pd.DataFrame) -> str:
    """Every intervention: mean over models."""
    rows, judge, model = lookup(summary), judge_of(summary), pooled_name(summary)
    names = recipes(summary)
    lines = [
        [
            r"\texttt{" + escape_latex(name) + "}",
            *_result_cells(rows, model, name, judge, RESULT_COLUMNS, False),
        ]
        for name in names.index
        if not name.endswith("-draw*")
    ]
    header = ["Intervention", *(rf"\rotatebox{{60}}{{{c[0]}}}" for c in RESULT_COLUMNS)]
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
    columns = "lp{.44\\textwidth}p{.22\\textwidth}l" + "c" * len(models)
    return tabular(columns, header, lines)


def conditions_table(claims: Mapping[str, Mapping]) -> str:
    """Every condition of every claim with what was measured for it."""
    lines = []
    for name, claim in claims.items():
        lines.append([f"{name}: {claim['overall']['verdict']}"])
        for condition in claim["overall"]["conditions"]:
            right = condition["right"]
            sides = [condition["left"], *([right] if right else [])]
            lines.append(
                [
                    r"\texttt{" + escape_latex(" - ".join(sides)) + "}",
                    escape_latex(f"{condition['metric']}, {condition['dataset']}"),
                    escape_latex(bound(condition)),
                    number(condition["value"]),
                    interval(condition["low"], condition["high"]),
                    condition["verdict"] + (", report" if condition["role"] == "report" else ""),
                ]
            )
    header = ["Quantity", "Measured by", "Expected", "Value", "Interval", "Verdict"]
    return tabular(r"p{.37\textwidth}lllll", header, lines, "longtable")


def bound(condition: Mapping) -> str:
    """What a condition expects, in words."""
    relation = condition["relation"]
    if relation == "between":
        return f"{condition['lowest']:g} to {condition['highest']:g}"
    if relation == "equivalent":
        return f"within {condition['tolerance']:g} of 0"
    words = {"at_least": "at least", "at_most": "at most", "greater": "above", "less": "below"}
    return f"{words[relation]} {condition['threshold'] or 0:g}"


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
    header = ["Model", "Method", "Candidate", "Rank", "First accuracy", r"$\cos(w_1, \hat r)$"]
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
    "models": TableRecipe(models_table, ("cards", "summary")),
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
