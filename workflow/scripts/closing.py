"""Say where a run's results are and how long it took (the last lines of `make paper`)."""

import json
import sys
from collections import Counter
from pathlib import Path


def main(results: Path, seconds: int) -> None:
    claims = json.loads((results / "claims.json").read_text())
    verdicts = Counter(claim["overall"]["verdict"] for claim in claims.values())
    figures = sorted((results / "figures").glob("*.pdf"))
    print(f"\nPaper    {results / 'paper' / 'main.pdf'}")
    print(f"Claims   {results / 'claims.json'} ({_counts(verdicts)})")
    print(f"Numbers  {results / 'statistics' / 'summary.parquet'}")
    print(f"Figures  {results / 'figures'}/ ({len(figures)} figures, as PDF and PNG)")
    print(f"Time     {seconds // 60} min {seconds % 60} s")


def _counts(verdicts: Counter) -> str:
    """Return the verdicts as words, the most frequent first."""
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
