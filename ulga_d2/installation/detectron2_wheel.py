"""Puts detectron2's Python into site-packages from a hash-checked wheel; nothing is compiled.

The wheel (pinned in `detectron2.txt`) also holds a compiled `_C` for one Python only and a stray
top-level package `tools`: both are left out. No file of the user's is touched.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from ..errors import UserError

REQUIREMENT = Path(__file__).with_name("detectron2.txt")
INSTALLER = "ulga install-detectron2"  # written into the dist-info: how `ulga doctor` knows it
_SCRATCH = ".ulga-detectron2-"


def find_detectron2(target: Path | None = None) -> Path | None:
    """Return the folder of the detectron2 package that Python would import, without importing it.

    Args:
        target: look in this folder only; None looks wherever `import` does.
    """
    spec: ModuleSpec | None
    if target is None:
        spec = importlib.util.find_spec("detectron2")
    else:
        spec = PathFinder.find_spec("detectron2", [str(target)])
    # A folder without __init__.py, such as the root of a checkout, has no origin: not the package.
    return Path(spec.origin).parent if spec and spec.origin else None


def read_version(package: Path) -> str:
    """Return the `__version__` a package's `__init__.py` states, without running it."""
    found = re.search(r'^__version__ = "(.+)"', (package / "__init__.py").read_text(), re.MULTILINE)
    return found.group(1) if found else "of unknown version"


def install(target: Path | None = None, requirement: Path = REQUIREMENT) -> Path:
    """Download, check and unpack the pinned wheel; return the folder of the package.

    A run that is killed leaves either no package or all of it, and the next run finishes the job.

    Args:
        target: the folder that gets `detectron2/`; None takes this Python's site-packages.
        requirement: the file with the pinned line and its hash.

    Raises:
        UserError: no network, another hash than the pinned one, or a folder that cannot be written.
    """
    site = target or Path(sysconfig.get_path("purelib"))
    package = site / "detectron2"
    if package.exists():
        raise UserError(f"{package} exists and is no package; move it away, then run this again")
    try:
        site.mkdir(parents=True, exist_ok=True)
        for stale in site.glob(_SCRATCH + "*"):  # of a run that was killed
            shutil.rmtree(stale, ignore_errors=True)
        # Inside the target folder, so that the moves at the end are renames on one file system.
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=site) as scratch:
            wheel = _download(requirement, Path(scratch, "wheel"))
            dist_info = _unpack(wheel, Path(scratch, "unpacked"))
            if (site / dist_info.name).exists():
                shutil.rmtree(site / dist_info.name)
            # The package last: it is what a next run looks for.
            dist_info.rename(site / dist_info.name)
            Path(scratch, "unpacked", "detectron2").rename(package)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or site}: {error.strerror}; use a virtual environment "
            "of your own (`make` makes .venv), or name a folder on Python's path with --target"
        ) from None
    return package


def _download(requirement: Path, folder: Path) -> Path:
    """Fetch the one pinned wheel through pip, and check its hash once more ourselves."""
    # The wheel is tagged for CPython 3.10, but only its plain Python is used.
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version=3.10"]
    quiet = ["--disable-pip-version-check", "--quiet", "--retries=5", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", *options, *quiet]
    command += ["--dest", str(folder), "--requirement", str(requirement)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise UserError(*_download_message(requirement, result.stderr))
    (wheel,) = folder.glob("*.whl")
    _, expected = _pin(requirement)
    actual = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if actual != expected:
        raise UserError(f"{wheel.name} has sha256 {actual}, not the pinned {expected}; not used")
    return wheel


def _download_message(requirement: Path, pip_output: str) -> list[str]:
    lines = pip_output.strip().splitlines() or ["it said nothing"]
    name, sha256 = _pin(requirement)
    if "DO NOT MATCH THE HASHES" in pip_output:
        return [f"{name}: the download does not have the pinned sha256 {sha256}; not used"]
    return [
        f"pip could not download {name} ({lines[-1].removeprefix('ERROR: ')}).",
        "With a network, run again: ulga install-detectron2",
        "Without one, on another machine: pip download --no-deps --only-binary=:all: "
        f"--python-version=3.10 -d FOLDER {name}",
        "then here: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER ulga install-detectron2",
    ]


def _pin(requirement: Path) -> tuple[str, str]:
    pattern = r"^(\S+==\S+) --hash=sha256:([0-9a-f]{64})$"
    found = re.search(pattern, requirement.read_text(), re.MULTILINE)
    if not found:
        raise UserError(f"{requirement}: expected a line NAME==VERSION --hash=sha256:DIGEST")
    return found.group(1), found.group(2)


def _unpack(wheel: Path, folder: Path) -> Path:
    """Unpack what is kept of the wheel and make its dist-info say so; return the dist-info."""
    with zipfile.ZipFile(wheel) as archive:
        kept = [name for name in archive.namelist() if _is_kept(name)]
        archive.extractall(folder, kept)
    (dist_info,) = folder.glob("*.dist-info")
    (dist_info / "top_level.txt").write_text("detectron2\n")
    (dist_info / "INSTALLER").write_text(INSTALLER + "\n")
    record = dist_info / "RECORD"
    record.write_text(_record(folder, record))
    return dist_info


def _is_kept(name: str) -> bool:
    top, _, rest = name.partition("/")
    return top.endswith(".dist-info") or (top == "detectron2" and not rest.startswith("_C."))


def _record(folder: Path, record: Path) -> str:
    """List every unpacked file with its hash and size, as `pip uninstall` wants it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != record):
        data = path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        name = path.relative_to(folder).as_posix()
        writer.writerow([name, f"sha256={digest}", len(data)])
    writer.writerow([record.relative_to(folder).as_posix(), "", ""])
    return out.getvalue()
