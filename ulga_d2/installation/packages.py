"""Which versions are installed, against our own ranges; where detectron2 came from."""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path

from .detectron2_wheel import INSTALLER
from .report import ERROR, NOTE, OK, WARNING, Fact

# Reported by the import checks when they are missing, with more to say than a version.
_IMPORTED = {"torch", "torchvision", "opencv-python-headless"}
# All four wheels write the same `cv2` folder; the last one installed wins, file by file.
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
# package, first version without it, advisory, what a file can do
_VULNERABLE = (
    ("torch", "2.6", "CVE-2025-32434", "a checkpoint can run code although weights_only is set"),
    ("torch", "2.10", "CVE-2026-24747", "a checkpoint can run code although weights_only is set"),
    ("pillow", "12.1.1", "CVE-2026-25990", "a PSD image can write beyond a buffer"),
    ("pillow", "12.3", "CVE-2026-59199", "huge coordinates of a crop can write beyond a buffer"),
)


def pip_install(*requirements: str, reinstall: bool = False) -> str:
    """Return the command that installs `requirements`, in our ranges, into this Python."""
    words = [sys.executable, "-m", "pip", "install"]
    if reinstall:
        words.append("--force-reinstall")
    ranges = {_name(line): _bare(line) for line in our_requirements()}
    return shlex.join([*words, *(ranges.get(name, name) for name in requirements)])


def pip_uninstall(*names: str) -> str:
    """Return the command that removes packages from this Python."""
    return shlex.join([sys.executable, "-m", "pip", "uninstall", "--yes", *names])


def our_requirements() -> list[str]:
    """Return the requirement lines of the installed ulga_d2, without those of its extras."""
    try:
        lines = metadata.requires("ulga_d2") or []
    except metadata.PackageNotFoundError:
        return []
    return [line for line in lines if "extra ==" not in line]


def range_facts() -> list[Fact]:
    """Compare each of our dependencies with its range."""
    lines = our_requirements()
    if not lines:
        text = "ulga_d2 is not installed, so the ranges of its dependencies are not known"
        return [Fact(WARNING, text, "make test, or in a clone: pip install -e .")]
    facts = [fact for line in lines if (fact := _range_fact(line))]
    if not facts:
        facts = [Fact(OK, f"dependencies: all {len(lines)} in their ranges")]
    return facts


def _range_fact(line: str) -> Fact | None:
    name, needed = _name(line), _bare(line)
    version = _version(name)
    if version is None:
        if name in _IMPORTED:
            return None
        return Fact(ERROR, f"{name} is missing; {needed} is asked for", pip_install(name))
    if _is_in_range(version, needed):
        return None
    text = f"{name} {version} is out of range; {needed} is asked for"
    return Fact(WARNING, text, pip_install(name))


def _name(line: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", line).group().lower()


def _bare(line: str) -> str:
    """A requirement line without its marker and blanks."""
    return line.split(";")[0].replace(" ", "")


def _is_in_range(version: str, requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # itself one of the dependencies, and reported as missing
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def vulnerability_facts() -> list[Fact]:
    """Name installed versions of which weaknesses are published that a later one has not."""
    facts = []
    for name in dict.fromkeys(name for name, *_ in _VULNERABLE):
        version = _version(name)
        found = [
            row[1:]
            for row in _VULNERABLE
            if row[0] == name and version and not _is_in_range(version, f"{name}>={row[1]}")
        ]
        if found:
            what = "; ".join(f"{advisory}: {harm}" for _, advisory, harm in found)
            together = ("torchvision",) if name == "torch" else ()
            cure = pip_install(f"{name}>={found[-1][0]}", *together)
            facts.append(Fact(WARNING, f"{name} {version} is vulnerable ({what})", cure))
    return facts


def opencv_facts() -> list[Fact]:
    """Name a clash of several OpenCV wheels."""
    found = [name for name in _OPENCV if _version(name)]
    if len(found) < 2:
        return []
    text = f"{' and '.join(found)} overwrite each other's files; only one can be installed"
    cure = f"{pip_uninstall(*found)} && {pip_install('opencv-python-headless')}"
    return [Fact(WARNING, text, cure)]


def detectron2_origin(package: Path) -> str:
    """Say in a few words where a detectron2 package came from."""
    found = detectron2_distribution()
    if found is None:
        checkout = (package.parent / ".git").exists()
        return "from a source checkout" if checkout else "of unknown origin (no package metadata)"
    wheel = f"{found.metadata['Name']} {found.version}"
    direct = json.loads(found.read_text("direct_url.json") or "{}")
    if "vcs_info" in direct:
        return f"from source, commit {direct['vcs_info']['commit_id'][:8]} of {direct['url']}"
    if "dir_info" in direct:
        return f"from the source folder {direct['url'].removeprefix('file://')}"
    if (found.read_text("INSTALLER") or "").strip() == INSTALLER:
        return f"from the wheel {wheel} by {INSTALLER}"
    return f"from the package {wheel}"


def detectron2_facts() -> list[Fact]:
    """Explain what pip says, after an install and in `pip check`, about the pinned wheel."""
    found = detectron2_distribution()
    if found is None or (found.read_text("INSTALLER") or "").strip() != INSTALLER:
        return []
    lines = [_bare(line) for line in found.requires or [] if ";" not in line]
    unmet = [line for line in lines if not _is_met(line)]
    if not unmet:
        return []
    name = found.metadata["Name"]
    text = f"pip complains that {name}'s metadata asks for {', '.join(unmet)}: harmless"
    return [Fact(NOTE, text)]


def _is_met(line: str) -> bool:
    version = _version(_name(line))
    return version is not None and _is_in_range(version, line)


def detectron2_distribution() -> metadata.Distribution | None:
    """Return the metadata under which detectron2 is installed, if it has any."""
    for name in ("detectron2", "sal-detectron2"):
        try:
            return metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
    return None
