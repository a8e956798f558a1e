"""The page: a template with the document, the script and plotly.js written into it.

A policy in the page itself (Content Security Policy, W3C) lets it load nothing and run no script
but the two that it names by their hash; texts of models and prompts are inserted as text alone.
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from refusal.explorer.document import to_json

FOLDER = Path(__file__).parent


def render_page(document: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        document: what `refusal.explorer.document.study_document` returns.
        claims: the verdicts by claim (claims.json).
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    scripts = [get_plotlyjs(), (FOLDER / "page.js").read_text(encoding="utf-8")]
    return environment.get_template("page.html.j2").render(
        study=document["study"],
        models=[model["name"] for model in document["models"]],
        claims=claims,
        policy=_policy(scripts),
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        document=Markup(to_json(document)),
        scripts=[Markup(script) for script in scripts],
    )


def _policy(scripts: list[str]) -> str:
    """What the page may do: run these scripts, and take images and styles from itself."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _number(value: Any) -> str:
    """Three significant digits; a dash where there is no value."""
    return "–" if value is None or pd.isna(value) else f"{value:.3g}"
