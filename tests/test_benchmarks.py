"""The benchmarks run at small sizes, and their parity checks hold. Speed is never asserted."""

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent.parent / "benchmarks" / "run.py"


def test_quick_benchmark_runs_with_parity_and_reports_every_measurement(tmp_path):
    command = [sys.executable, str(RUN), "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["quick"] and content["hardware"]["threads_used"] == 1
    assert sorted({result["group"][0] for result in content["results"]}) == list("abcdef")
    assert all(result["ratio"] > 0 for result in content["results"])
    table = (tmp_path / "results.md").read_text()
    assert "the times mean nothing" in table
    assert table.count("\n| ") == len(content["results"]) + 2
