"""Say where a run's results are and how long it took (the last lines of `make paper`)."""

import json
import sys
from collections import Counter
from pathlib import Path


def main(results: Path, seconds: int) -> None:
    print()
    if (results / "claims.json").is_file():
        _say_paper(results)
    if (results / "external_runs" / "report.pdf").is_file():
        print(f"Report   {results / 'external_runs' / 'report.pdf'}")
        print(f"Numbers  {results / 'external_runs' / 'comparison.parquet'}")
    if (results / "planted" / "report.pdf").is_file():
        _say_planted(results / "planted")
    print(f"Time     {seconds // 60} min {seconds % 60} s")


def _say_paper(results: Path) -> None:
    """What is made of the models of a study."""
    figures = sorted((results / "figures").glob("*.pdf"))
    print(f"Paper    {results / 'paper' / 'main.pdf'}")
    print(f"Claims   {results / 'claims.json'} ({_verdicts(results / 'claims.json')})")
    print(f"Numbers  {results / 'statistics' / 'summary.parquet'}")
    print(f"Figures  {results / 'figures'}/ ({len(figures)} figures, as PDF and PNG)")


def _say_planted(planted: Path) -> None:
    """What is made of planted organisms in a study without models."""
    print(f"Report   {planted / 'report.pdf'}")
    print(f"Claims   {planted / 'claims.json'} ({_verdicts(planted / 'claims.json')})")
    print(f"Numbers  {planted / 'methods.parquet'}")


def _verdicts(path: Path) -> str:
    """Return how many claims have each verdict."""
    claims = json.loads(path.read_text())
    return _counts(Counter(claim["overall"]["verdict"] for claim in claims.values()))


def _counts(verdicts: Counter) -> str:
    """Return the verdicts as words, the most frequent first."""
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
