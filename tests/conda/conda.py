"""The `conda` that Snakemake calls: solves and links by py-rattler, installs wheels by uv.

It answers what Snakemake asks of conda and nothing else. The folder of the installation is
CONDA_ROOT, and the channel `conda-forge` is CONDA_ROOT/channels/conda-forge. uv stands for pip: it
links the wheels that it unpacked for another environment instead of copying them.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from rattler import (
    Channel,
    ChannelPriority,
    MatchSpec,
    Platform,
    VirtualPackage,
    exceptions,
    install,
    solve,
)

ROOT = Path(os.environ["CONDA_ROOT"])
VERSION = "24.7.1"  # the oldest that Snakemake takes
# `nodefaults` is no channel: it says that those of the installation do not count.
NO_CHANNEL = "nodefaults"


async def link(channels: list[str], specifications: list[str], prefix: Path) -> None:
    """Solve and link conda packages into the folder `prefix`."""
    records = await solve(
        sources=[Channel((ROOT / "channels" / name).as_uri()) for name in channels],
        specs=[MatchSpec(text.replace(" ", "")) for text in specifications],
        platforms=[Platform.current(), Platform("noarch")],
        virtual_packages=VirtualPackage.detect(),
        channel_priority=ChannelPriority.Strict,
    )
    await install(
        records=records, target_prefix=prefix, cache_dir=ROOT / "packages", show_progress=False
    )
    (prefix / "conda-meta" / "history").touch()


def create(file: Path, prefix: Path) -> int:
    """Make an environment from its file: conda packages first, then those of pip."""
    described = yaml.safe_load(file.read_text())
    specifications = [entry for entry in described["dependencies"] if isinstance(entry, str)]
    wheels = [
        p for entry in described["dependencies"] if isinstance(entry, dict) for p in entry["pip"]
    ]
    channels = [name for name in described["channels"] if name != NO_CHANNEL]
    try:
        asyncio.run(link(channels, specifications, prefix))
    except exceptions.SolverError as error:
        print(error, file=sys.stderr)
        return 1
    if not wheels:
        return 0
    listed = prefix / "requirements.txt"
    listed.write_text("\n".join(wheels) + "\n")
    command = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet"]
    command += ["--python", prefix / "bin" / "python", "-r", listed]
    return subprocess.run(command).returncode


def main(words: list[str]) -> int:
    """Answer one call of Snakemake."""
    if words == ["--version"]:
        print("conda", VERSION)
    elif words[:1] == ["info"]:
        print(json.dumps({"conda_prefix": str(ROOT), "platform": str(Platform.current())}))
    elif words[:2] == ["config", "--get"]:
        print(json.dumps({"get": {words[2]: "strict"}}))
    elif words[:2] == ["env", "create"]:
        parser = argparse.ArgumentParser()
        for name in ("--file", "--prefix"):
            parser.add_argument(name, type=Path, required=True)
        asked, _ = parser.parse_known_args(words[2:])
        return create(asked.file, asked.prefix)
    elif words[:1] != ["clean"]:
        print(f"conda of the tests: {words} is not known", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
