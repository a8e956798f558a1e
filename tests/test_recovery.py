"""What a run meets after it was killed, on a full disk, beside another run, with damaged files."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import SMOKE_STUDY, clone
from safetensors.torch import load_file, save_file

from refusal.errors import InputError
from refusal.recovery import damage, failed_outside, require_whole
from refusal.store import Store

RESULTS = Path("results/smoke")
PROMPTS = RESULTS / "prompts/prompts.parquet"

# --- one file: whole, or told in one line ---


def write_table(path: Path) -> None:
    """As the store writes tables, with checksums of pages."""
    table = pd.DataFrame({"id": [f"id-{n}" for n in range(50)], "value": np.arange(50) / 7})
    table.to_parquet(path, index=False, write_page_checksum=True)


WRITERS: dict[str, Callable[[Path], None]] = {
    ".parquet": write_table,
    ".npz": lambda path: np.savez(path, basis=np.arange(60.0).reshape(3, 20)),
    ".safetensors": lambda path: save_file({"residual": torch.arange(60.0)}, path),
    ".json": lambda path: path.write_text(json.dumps({"verdict": "supported", "n": [1, 2]})),
}
CUTS = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_that_is_not_whole_is_named_with_the_remedy(tmp_path, monkeypatch, suffix, cut):
    monkeypatch.chdir(tmp_path)
    path = Path("results/study/name").with_suffix(suffix)
    path.parent.mkdir(parents=True)
    WRITERS[suffix](path)
    require_whole([path])
    path.write_bytes(CUTS[cut](path.read_bytes()))
    with pytest.raises(InputError, match=rf"{path}: damaged \(.+\)\. Remedy: delete it") as told:
        require_whole([path])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_an_altered_value_is_found_by_the_checksum(tmp_path, suffix):
    path = tmp_path / f"name{suffix}"
    WRITERS[suffix](path)
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 0x10
    path.write_bytes(content)
    assert damage(path)


def test_files_of_others_keep_their_own_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text("{")
    require_whole(["mine.json", "results/missing.json", "workflow/scripts/job.py"])


def test_a_damaged_table_of_the_store_is_told_and_made_anew(tmp_path, caplog):
    store, target = Store(tmp_path / "store"), tmp_path / "table.parquet"
    table = pd.DataFrame({"value": np.arange(100)})
    kept = store.write("key", table)
    content = bytearray(kept.read_bytes())
    content[len(content) // 4] ^= 0x10
    kept.write_bytes(content)
    assert store.read("key") is None and not store.fetch("key", target)
    assert not target.exists()
    assert all(f"{kept}: damaged" in line for line in caplog.messages) and caplog.messages
    store.keep("key", table, target)
    pd.testing.assert_frame_equal(store.read("key"), table)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full on this system")
@pytest.mark.parametrize(
    "write",
    [
        lambda: pd.DataFrame({"a": [1]}).to_parquet("/dev/full"),
        lambda: Path("/dev/full").write_bytes(bytes(100)),
    ],
)
def test_a_full_disk_is_told_with_the_file(write):
    with pytest.raises(OSError) as raised:
        write()
    told = failed_outside(raised.value, "results/a.npz")
    assert re.match(r"results/a.npz: No space left on device\. Remedy: free space", told)


def test_what_failed_in_the_program_keeps_its_traceback():
    assert failed_outside(KeyError("residual"), "a.npz") is None
    assert failed_outside(FileNotFoundError(2, "No such file"), "a.npz") is None
    words = "I/O error: No space left on device (os error 28)"
    assert "No space left" in failed_outside(RuntimeError(words), "a.npz")


# --- a small target of the study, where the machine or the user gets in the way ---


def start(folder: Path, *arguments: str, **options) -> subprocess.Popen:
    """Start snakemake on the smoke study as from a shell, in a process group of its own.

    It minds Ctrl-C even where this process does not.
    """
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
    return subprocess.Popen(
        [*command, "--configfile", SMOKE_STUDY],
        cwd=folder,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "COLUMNS": "200"},
        **options,
    )


def run(folder: Path, *arguments: str, **options) -> tuple[int, str]:
    """Run snakemake to its end; returns the exit status and what it printed."""
    process = start(folder, *arguments, **options)
    printed = process.communicate(timeout=900)[0]
    return process.returncode, printed


def the_line(printed: str, *words: str) -> str:
    """The one message with all these words; a log that Snakemake prints again is the same one."""
    found = {line[9:] for line in printed.splitlines() if all(word in line for word in words)}
    assert len(found) == 1 and "Traceback" not in printed, printed[-3000:]
    return found.pop()


@contextmanager
def mounted(*command: str) -> Iterator[None]:
    """Mount something on the folder that ends the command, as long as it lasts."""
    if subprocess.run(["mount", *command], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", command[-1]], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of the repository, with an empty folder for results."""
    copy = clone(tmp_path_factory.mktemp("recovery"))
    (copy / "results").mkdir()
    return copy


def test_a_full_disk_stops_a_job_with_one_line_and_no_half_file(folder):
    results = folder / "results"
    with mounted("-t", "tmpfs", "-o", "size=16k", "tmpfs", str(results)):
        status, printed = run(folder, str(PROMPTS))
        assert status and not (folder / PROMPTS).exists()
        the_line(printed, str(PROMPTS), "No space left on device. Remedy: free space")
        subprocess.run(["mount", "-o", "remount,size=8m", str(results)], check=True)
        status, printed = run(folder, str(PROMPTS))
        assert status == 0 and damage(folder / PROMPTS) is None, printed


def test_a_read_only_results_folder_is_named(folder):
    """By a mount, since permissions do not bind the superuser."""
    results = str(folder / "results")
    with mounted("--bind", results, results):
        subprocess.run(["mount", "-o", "remount,bind,ro", results], check=True)
        status, printed = run(folder, str(PROMPTS))
    assert status and "Traceback" not in printed
    assert re.search("Read-only file system: 'results", printed), printed


# --- ten kills ---

KILLS = 10
FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)$", re.M)


def finished_jobs(printed: str) -> list[str]:
    """The jobs that Snakemake says are finished, by what their rules say they do."""
    names = dict(re.findall(r"^Job (\d+): (.+)$", printed, flags=re.M))
    return [names.get(number, rule) for number, rule in FINISHED.findall(printed)]


def kept_tables(folder: Path) -> dict[Path, int]:
    """When each table of the store was written, in nanoseconds."""
    return {
        path: path.stat().st_mtime_ns for path in (folder / RESULTS / "store").rglob("*.parquet")
    }


class Killed:
    """What the smoke study went through in a copy of the repository that was killed ten times."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kills = folder, 0
        self.finished: list[str] = []
        self.kept: dict[Path, int] = {}
        self.rewritten: set[Path] = set()

    def kill_once(self, jobs: int, seconds: float) -> None:
        """Run until so many jobs are finished, over all attempts, and so many seconds more."""
        with (self.folder / "printed.txt").open("w+") as file:
            process = start(self.folder, stdout=file)
            while process.poll() is None and self._so_far(file) < jobs:
                time.sleep(0.2)
            time.sleep(seconds)
            self.kills += process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.note()
        subprocess.run([sys.executable, "-m", "snakemake", "--unlock"], cwd=self.folder, check=True)

    def _so_far(self, file) -> int:
        return len(self.finished) + len(FINISHED.findall(Path(file.name).read_text()))

    def finish(self) -> int:
        """Run to the end; returns the exit status."""
        status, printed = run(self.folder)
        (self.folder / "printed.txt").write_text(printed)
        self.note()
        return status

    def note(self) -> None:
        """Remember what an attempt finished, and which kept tables it wrote again."""
        self.finished += finished_jobs((self.folder / "printed.txt").read_text())
        now = kept_tables(self.folder)
        self.rewritten |= {path for path, when in self.kept.items() if now.get(path) != when}
        self.kept = now


def planned_jobs(folder: Path) -> int:
    """How many jobs the study has, as a dry run counts them."""
    return int(re.search(r"^total +(\d+)$", run(folder, "-n")[1], flags=re.M)[1])


@pytest.fixture(scope="module")
def killed(folder) -> Killed:
    """The smoke study, killed at ten random moments and resumed by the documented commands."""
    draw, killed, planned = random.Random(7), Killed(folder), planned_jobs(folder)
    # The last jobs are short: a kill after them could come too late.
    for jobs in sorted(draw.sample(range(planned - 5), KILLS)):
        killed.kill_once(jobs, draw.uniform(0, 2))
    assert killed.kills == KILLS, "an attempt ended before it was killed"
    assert killed.finish() == 0, (folder / "printed.txt").read_text()[-6000:]
    return killed


def test_nothing_that_was_finished_is_done_again(killed):
    repeated = [job for job, count in Counter(killed.finished).items() if count > 1]
    assert not repeated
    assert killed.kept and not killed.rewritten


def test_no_file_is_half_written_after_ten_kills(killed):
    files = [path for path in (killed.folder / RESULTS).rglob("*") if path.is_file()]
    assert not [path for path in files if damage(path)]
    # Those in the store were never read; all others were written again under the same name.
    assert not [path for path in files if path.suffix == ".partial" and "store" not in path.parts]


def test_a_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(killed, smoke_run):
    left, right = numbers_of(smoke_run / RESULTS), numbers_of(killed.folder / RESULTS)
    assert list(left) == list(right)
    times = computing_times(left) | computing_times(right)
    assert not [name for name in left if not same(left[name], right[name], times)]


def numbers_of(results: Path) -> dict[str, Path]:
    """The final files of a run by their names, without times and what jobs keep for themselves."""
    files = {str(path.relative_to(results)): path for path in sorted(results.rglob("*.*"))}
    aside = ("benchmarks/", "store/")
    return {name: path for name, path in files.items() if not name.startswith(aside)}


def computing_times(files: dict[str, Path]) -> set[str]:
    """How the seconds that trainings and searches took may be written: all that may differ."""
    text = "".join(path.read_text() for path in files.values() if path.suffix == ".json")
    seconds = map(float, re.findall(r'"cpu_seconds": ([\d.]+)', text))
    return {str(form) for time in seconds for form in (time, int(time), int(time) + 1)}


def same(left: Path, right: Path, times: set[str]) -> bool:
    """Whether two files hold the same: to the byte, or the same values."""
    if left.read_bytes() == right.read_bytes():
        return True
    read = CONTENT.get(left.suffix, lambda path: path.read_text())
    sides = [read(left), read(right)]
    if isinstance(sides[0], str):
        sides = [
            re.sub(r"\d+(\.\d+)?", lambda number: "#" if number[0] in times else number[0], side)
            for side in sides
        ]
    if left.suffix == ".pdf":
        # In which order words are read, and where they are broken, depends on how wide numbers are.
        sides = [sorted(re.sub(r"[-\s]", "", side)) for side in sides]
    return sides[0] == sides[1]


def arrays(path: Path) -> dict[str, list]:
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name].tolist() for name in found.files}


def pdf_text(path: Path) -> str:
    command = ["pdftotext", str(path), "-"]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout


CONTENT: dict[str, Callable[[Path], object]] = {
    ".npz": arrays,
    ".parquet": lambda path: pd.read_parquet(path).to_csv(),
    ".pdf": pdf_text,
    ".safetensors": lambda path: {k: v.tolist() for k, v in load_file(path).items()},
}


# --- one run stopped and another one started, in the finished folder ---

STEERED = RESULTS / "generations/neox-0"
KEPT = RESULTS / "store/generations"


@pytest.fixture
def stopped(killed) -> Iterator[subprocess.Popen]:
    """A run that has to generate again, stopped in the middle of it (SIGSTOP)."""
    for path in (killed.folder / STEERED).glob("dim_*.parquet"):
        path.unlink()
    for path in (killed.folder / KEPT).glob("*.parquet"):
        path.unlink()
    process = start(killed.folder, str(STEERED / "dim_ablation.parquet"))
    done = 0
    while done < 3:
        line = process.stdout.readline()
        assert line, "the run ended early"
        done += line.endswith(": done\n")
    os.killpg(process.pid, signal.SIGSTOP)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_ends_a_run_at_once_and_what_it_finished_is_kept(killed, stopped, smoke_run):
    folder, target = killed.folder, str(STEERED / "dim_ablation.parquet")
    status, printed = run(folder, target)
    assert status
    the_line(printed, "Directory cannot be locked")
    assert "--unlock" in printed, "the remedy"
    sent = time.monotonic()
    os.killpg(stopped.pid, signal.SIGINT)
    os.killpg(stopped.pid, signal.SIGCONT)
    rest = stopped.stdout.read()
    assert stopped.wait() and "Traceback" not in rest
    assert rest.count(": done") < 10, "of some sixty"
    assert time.monotonic() - sent < 60, "three seconds on an idle machine"
    assert not [path for path in (folder / STEERED).iterdir() if damage(path)]
    kept = sorted((folder / KEPT).glob("*.parquet"))
    kept[0].write_bytes(kept[0].read_bytes()[:-100])
    status, printed = run(folder, target)
    assert status == 0, printed
    the_line(printed, str(kept[0].relative_to(folder)), "damaged", "made anew")
    assert printed.count(": finished before") >= len(kept) - 1 >= 2
    for path in (folder / STEERED).glob("dim_*.parquet"):
        assert path.read_bytes() == (smoke_run / STEERED / path.name).read_bytes()


# A file of an earlier run -> what is made from it.
DAMAGED = {
    RESULTS / "generations/neox-0/none.parquet": RESULTS / "scores/neox-0/none.parquet",
    RESULTS / "activations/neox-0.safetensors": RESULTS / "before_tuning/neox-0/summary.parquet",
    RESULTS / "interventions/neox-0/dim_ablation.npz": RESULTS
    / "capability/neox-0/summary.parquet",
    RESULTS / "suffixes/neox-0.json": RESULTS / "suffix/neox-0/summary.parquet",
}


def test_damaged_files_of_an_earlier_run_are_named_and_not_used(killed, smoke_run):
    folder = killed.folder
    for name in DAMAGED:
        status = (folder / name).stat()
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
        # As a disk does it: nothing tells Snakemake that the file is another one.
        os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    status, printed = run(folder, "--force", *map(str, DAMAGED.values()))
    assert status
    for name, made in DAMAGED.items():
        the_line(printed, f"{name}: damaged (", "Remedy: delete it")
        assert not (folder / made).exists()
    damaged, made = next(iter(DAMAGED.items()))
    (folder / damaged).unlink()
    status, printed = run(folder, str(made))
    assert status == 0, printed
    assert (folder / made).read_bytes() == (smoke_run / made).read_bytes()
