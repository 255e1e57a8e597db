"""Match a pattern that a user gives, in a process of its own: some patterns never end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ..errors import UserError

# What matching all names may take, in seconds of the processor, and in addition for each name.
MATCH_SECONDS = 2.0
_SECONDS_PER_NAME = 1e-5
# The longest pattern; compiling a long one can take minutes, too.
LONGEST_PATTERN = 500
# A machine so busy that the process gets no time at all; in seconds.
_WALL_SECONDS = 60.0

# Reads the pattern and all names, and writes one line a name at once, so that the number of lines
# tells where it was stopped. The kernel ends the process (SIGVTALRM) when its time is over.
_CHILD = """
import json, re, resource, signal, sys
pattern, names, seconds = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
def write(value):
    sys.stdout.write(json.dumps(value) + "\\n")
    sys.stdout.flush()
try:
    compiled = re.compile(pattern)
    write({"groups": compiled.groups})
    for name in names:
        match = compiled.search(name)
        write(match[1] if match and compiled.groups else None)
except (re.error, OverflowError, RecursionError, MemoryError) as error:
    write({"error": str(error) or type(error).__name__})
"""


@lru_cache
def check_pattern(pattern: str, path: str) -> None:
    """Refuse a pattern that is none, that has not one group, or that takes too long to compile.

    Args:
        pattern: a regular expression.
        path: the file that gives it, for messages.

    Raises:
        UserError: with the file and the pattern.
    """
    _run(pattern, [], path)


def check_patient(path: Path, value: object) -> str | None:
    """Return the pattern that a dataset's description gives under `patient`, None without one.

    Raises:
        UserError: it is no text, or see `check_pattern`.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{path}: patient is {str(value)[:50]!r}, not text; put it in quotes")
    check_pattern(value.strip(), str(path))
    return value.strip()


def first_groups(pattern: str, names: Sequence[str], path: str) -> list[str | None]:
    """Return what the pattern's one group finds in each name; None where it finds nothing.

    Args:
        pattern: a regular expression with one group; it is searched for, not matched as a whole.
        names: texts, usually paths of images.
        path: the file that gives the pattern, for messages.

    Raises:
        UserError: see `check_pattern`; or matching the names takes longer than MATCH_SECONDS.
    """
    return [found or None for found in _run(pattern, names, path)]


def _run(pattern: str, names: Sequence[str], path: str) -> list[str | None]:
    where = f"{path}: patient {pattern[:50]!r}"
    if len(pattern) > LONGEST_PATTERN:
        raise UserError(
            f"{where} has {len(pattern):,} characters, more than {LONGEST_PATTERN}; write a "
            "shorter pattern"
        )
    seconds = MATCH_SECONDS + _SECONDS_PER_NAME * len(names)
    task = json.dumps([pattern, list(names), seconds])
    lines, is_late = _output_of(task)
    answers = [json.loads(line) for line in lines]
    facts = answers.pop(0) if answers else {}
    if "error" in facts:
        raise UserError(f"{where} is no pattern: {facts['error']}")
    if facts.get("groups", 1) != 1:
        raise UserError(
            f"{where} has {facts['groups']} groups; put the part of the path that is the "
            "patient's, and only it, in brackets: '^([^_]+)_'"
        )
    if answers and isinstance(answers[-1], dict):
        raise UserError(f"{where} fails on {names[len(answers) - 1]}: {answers[-1]['error']}")
    if is_late or not facts or len(answers) < len(names):
        what = f"on {names[len(answers)]}" if facts and names else "while it is compiled"
        raise UserError(
            f"{where} does not come to an end within {MATCH_SECONDS:g} s ({what}); write it "
            "without repeats inside repeats, such as '^([^_]+)_'"
        )
    return answers


def _output_of(task: str) -> tuple[list[str], bool]:
    """Return the whole lines that the process wrote, and whether it had to be killed."""
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    try:
        done = subprocess.run(
            command,
            input=task.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return _whole_lines(error.stdout or b""), True
    return _whole_lines(done.stdout), False


def _whole_lines(output: bytes) -> list[str]:
    return output.decode().split("\n")[:-1]
