"""Write ARTIFACT.md from the expected values of the default study.

    python workflow/scripts/write_artifact.py

Exit status: 0 written, 2 a mistake in the input.
"""

import sys
from pathlib import Path

from refusal.artifact import render_artifact
from refusal.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
STUDY = "organisms"


def main() -> int:
    """Write the page; return the exit status."""
    try:
        text = render_artifact(ROOT, STUDY)
    except InputError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    (ROOT / "ARTIFACT.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
