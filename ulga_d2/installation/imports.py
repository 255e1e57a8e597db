"""Which of the heavy packages import, and the facts about each; found in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from .detectron2_wheel import find_detectron2, read_version
from .packages import detectron2_distribution, detectron2_origin, pip_install, pip_uninstall
from .report import ERROR, OK, Fact

_PROBE = Path(__file__).with_name("probe.py")
_SECONDS = 300  # a first import of torch from a slow disk takes its time

Results = dict[str, dict[str, Any]]


def run_probe() -> Results:
    """Return for each step of the probe that began {"facts": ...} or {"error": ...}."""
    command = [sys.executable, str(_PROBE), json.dumps(sys.path)]
    results: Results = {}
    try:
        child = subprocess.run(command, capture_output=True, timeout=_SECONDS)
        output, end = child.stdout, _describe_end(child.returncode)
    except subprocess.TimeoutExpired as expired:
        output, end = expired.stdout or b"", f"took more than {_SECONDS} s"
    for line in output.splitlines():
        entry = json.loads(line)
        results[entry.pop("step")] = entry
    results.setdefault("torch", {})
    for entry in results.values():
        if not entry:  # began and did not end
            entry["error"] = f"its import {end}"
    return results


def _describe_end(code: int) -> str:
    if code < 0:
        return f"ended Python by {signal.Signals(-code).name}"
    return f"ended Python with exit code {code}"


def import_facts(results: Results) -> list[Fact]:
    """Turn what the probe found into one fact a package, errors with their cures."""
    facts = [_torch_fact(results), _torchvision_fact(results), _cv2_fact(results)]
    facts.append(_detectron2_fact(results))
    ours = results.get("ulga_d2", {})
    if "error" in ours:
        text = f"ulga_d2 does not register its backbones: {ours['error']}"
        facts.append(Fact(ERROR, text, "in a fresh clone: make test"))
    return facts


def _torch_fact(results: Results) -> Fact:
    found = results["torch"]
    if "facts" in found:
        torch = found["facts"]
        return Fact(OK, f"torch {torch['version']}, built for {torch['built_for']}")
    cure = pip_install("torch", "torchvision")
    if not _is_there("torch"):
        return Fact(ERROR, "torch is missing", cure)
    cure = pip_install("torch", "torchvision", reinstall=True)
    return Fact(ERROR, f"torch does not import: {found['error']}", cure)


def _torchvision_fact(results: Results) -> Fact:
    if not _is_there("torchvision"):
        return Fact(ERROR, "torchvision is missing", pip_install("torch", "torchvision"))
    found = results.get("torchvision")
    if found is None:
        return Fact(ERROR, "torchvision cannot be checked before torch imports")
    if "facts" in found:
        return Fact(OK, f"torchvision {found['facts']['version']}, fits torch (ran an operator)")
    text = f"torchvision does not fit torch: {found['error']}"
    return Fact(ERROR, text, pip_install("torch", "torchvision", reinstall=True))


def _cv2_fact(results: Results) -> Fact:
    if not _is_there("cv2"):
        return Fact(ERROR, "OpenCV is missing", pip_install("opencv-python-headless"))
    found = results.get("cv2")
    if found is None:
        return Fact(ERROR, "OpenCV cannot be checked before torch imports")
    if "facts" in found:
        return Fact(OK, f"OpenCV {found['facts']['version']}")
    text = f"OpenCV does not import: {found['error']}"
    return Fact(ERROR, text, pip_install("opencv-python-headless", reinstall=True))


def _detectron2_fact(results: Results) -> Fact:
    package = find_detectron2()
    if package is None:
        return Fact(ERROR, "detectron2 is missing", "ulga install-detectron2")
    text = f"detectron2 {read_version(package)} in {package}, {detectron2_origin(package)}"
    found = results.get("detectron2")
    if found is None:
        return Fact(ERROR, f"{text}; cannot be checked before the packages above import")
    if "facts" in found:
        return Fact(OK, text)
    return Fact(ERROR, f"{text}; does not import: {found['error']}", _detectron2_cure(package))


def _detectron2_cure(package: Path) -> str:
    found = detectron2_distribution()
    if found is None:
        remove = f"mv {shlex.quote(str(package))} {shlex.quote(str(package))}.broken"
    else:
        remove = pip_uninstall(found.metadata["Name"])
    return f"{remove} && ulga install-detectron2"


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
