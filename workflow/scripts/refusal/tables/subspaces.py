"""Subspaces that INLP finds: their share of DiM, and the angles between them."""

import numpy as np
import pandas as pd

from refusal.latex import escape_latex, number, tabular
from refusal.tables.layout import METHOD_NAMES


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
