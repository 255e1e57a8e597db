"""A lock on an output folder, so that two processes never write into one run.

The lock is a small JSON file in the folder: host, process, start time, scheduler job. It is
created with O_EXCL and needs no locks of the file system, so it works on network file systems. A
thread refreshes its time every 30 seconds. Another process takes over a lock whose owner is gone:

- the same host shows that the process has ended, or that its number belongs to another process;
- the scheduler counts a restart of the same job, or the same torchrun has started it again;
- the same task of the same job is there on another host without such a count, and the file has
  not been refreshed for 75 seconds, which a process that starts waits for;
- the file has not been refreshed for 5 minutes, by the clock of the file system itself.

A process that finds its own lock taken over ends at once with exit code 2 and writes nothing more.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError

logger = logging.getLogger(__name__)

LOCK_PREFIX = ".ulga_"  # of all files that locking writes
LOCK = f"{LOCK_PREFIX}lock.json"
REFRESH_SECONDS = 30.0
STALE_SECONDS = 300.0
MISSED_REFRESHES = 2.5  # that show the end of an owner whose own job asks
LOST_CODE = 2  # exit code of a process whose lock was taken over
_MOST_BYTES = 65_536  # of a lock file
_TORCHRUN = "torchrun:"
_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0")

# Variables of schedulers: the job, what else its name needs, and how often it has been restarted.
_SCHEDULERS = (
    ("slurm", "SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT"),
    ("pbs", "PBS_JOBID", "", ""),
    ("lsf", "LSB_JOBID", "LSB_JOBINDEX", ""),
    ("sge", "SGE_TASK_ID", "JOB_ID", "RESTARTED"),
    ("flux", "FLUX_JOB_ID", "", ""),
)
# Which of a job's tasks this process is. One of a name runs at a time.
_TASK = (
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "PBS_TASKNUM",
    "FLUX_TASK_RANK",
    "LSF_PM_TASKID",
    "OMPI_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
)


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        host: its name.
        pid: number of the process.
        process_start: its start in clock ticks since boot; None where the system does not tell.
        boot_id: of the running kernel; "" where the system does not tell.
        pid_namespace: in which `pid` counts: two containers can both have a process 1.
        jobs: [id, restarts, task] of the scheduler's job and of torchrun's.
        since: time at which the lock was created, with the zone.
        token: differs for every lock.
    """

    host: str
    pid: int
    process_start: int | None = None
    boot_id: str = ""
    pid_namespace: str = ""
    jobs: list[list[Any]] = field(default_factory=list)
    since: str = ""
    token: str = ""

    def is_on_this_machine(self, me: Owner) -> bool:
        """Tell whether the process number means something here."""
        return (self.host, self.boot_id, self.pid_namespace) == (
            me.host,
            me.boot_id,
            me.pid_namespace,
        )

    def has_ended(self, me: Owner) -> str:
        """Return the reason why the owner cannot be running any more, or ""."""
        if self.is_on_this_machine(me):
            start = _process_start(self.pid)
            if start is None:
                return "it has ended"
            if self.process_start is not None and start not in (0, self.process_start):
                return "it has ended, and another process has its number"
            return ""
        for name, restarts, task in self.jobs:
            for own_name, own_restarts, own_task in me.jobs:
                is_same = (own_restarts, own_task) == (restarts, task)
                # One launcher of torchrun has one rank 0, while jobs can have many such tasks.
                is_restart = own_restarts > restarts or (is_same and name.startswith(_TORCHRUN))
                if name == own_name and is_restart:
                    return f"its job ({name}) has been started again"
        return ""

    def job_in_common(self, me: Owner) -> str:
        """Return the job of which both are the same task on different machines, or ""."""
        if self.is_on_this_machine(me):
            return ""
        return next((name for name, *rest in self.jobs if [name, *rest] in me.jobs), "")


@dataclass
class _Held:
    path: Path
    label: str
    owner: Owner
    content: bytes
    ended: threading.Event


_held: dict[Path, _Held] = {}


def lock_folder(folder: Path, key: str, *, name: str = LOCK) -> str:
    """Take the lock on a folder, until `release_locks` or the end of the process.

    A process that holds it already keeps it.

    Args:
        folder: exists.
        key: what the user gives the folder by, for messages: "OUTPUT_DIR" or "--out".
        name: of the lock file.

    Returns:
        a line for the log if the lock was taken over from a process that is gone, else "".

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    path = folder.resolve() / name
    if path in _held and _held[path].owner.pid == os.getpid():
        return ""
    me = _describe_this_process()
    content = json.dumps(asdict(me)).encode()
    label, taken_over = f"{key} {folder}", ""
    try:
        for _ in range(20):
            if _create(path, content) or _holds(path, content):
                break
            taken_over = _remove_stale(path, label, me) or taken_over
        else:
            raise UserError(f"{label}: other processes take its lock in turns; try again")
    except OSError as error:
        raise UserError(
            f"{label} cannot be written ({error.strerror}); name another folder"
        ) from None
    held = _Held(path, label, me, content, threading.Event())
    _held[path] = held
    threading.Thread(target=_refresh, args=(held,), name="folder-lock", daemon=True).start()
    return taken_over


@contextlib.contextmanager
def locked_folder(folder: Path, key: str, *, name: str = LOCK) -> Iterator[None]:
    """Hold the lock on a folder during the block; see `lock_folder`."""
    path = folder.resolve() / name
    taken_over = lock_folder(folder, key, name=name)
    if taken_over:
        logger.warning("%s", taken_over)
    try:
        yield
    finally:
        if path in _held:
            _release(_held.pop(path))


def check_not_locked(folder: Path, key: str, *, pattern: str = LOCK, but: str = "") -> None:
    """Refuse a folder that another process has locked; take nothing.

    Args:
        folder: may be missing.
        key: what the user gives the folder by, for messages.
        pattern: of the names of the lock files.
        but: the name of a lock file that does not count.

    Raises:
        UserError: another process holds a lock of that name.
    """
    me = _describe_this_process()
    for path in sorted(folder.glob(pattern)):
        if path.name == but or path.resolve() in _held:
            continue
        read = _read(path)
        if read is not None and not _why_stale(path, read, me):
            raise _in_use(path, f"{key} {folder}", read, me)


def check_still_locked(folder: str | Path) -> None:
    """Refuse to write into a folder whose lock has been taken from this process.

    Nothing is checked where this process has never locked the folder.

    Raises:
        UserError: another process holds the lock now.
    """
    held = _held.get(Path(folder).resolve() / LOCK)
    if held is not None and held.owner.pid == os.getpid():
        message = _why_lost(held)
        if message:
            raise UserError(message)


def release_locks() -> None:
    """Remove all lock files of this process; a forked child removes none of its parent's."""
    while _held:
        _release(_held.popitem()[1])


atexit.register(release_locks)


def _release(held: _Held) -> None:
    if held.owner.pid != os.getpid():
        return
    held.ended.set()
    with contextlib.suppress(OSError):
        if _holds(held.path, held.content):
            held.path.unlink()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _create(path: Path, content: bytes) -> bool:
    """Create a lock file; return False where there is one."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


@dataclass(frozen=True)
class _Read:
    content: bytes
    owner: Owner | None  # None of a file that is no lock, or whose writer has not yet come to it
    modified: float  # by the clock of the file system


def _read(path: Path) -> _Read | None:
    """Read a lock file; None where it is gone."""
    try:
        with open(path, "rb") as file:  # opening has a network file system ask its server
            content = file.read(_MOST_BYTES)
            modified = os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    try:
        given = json.loads(content)
        known = {item.name for item in fields(Owner)}
        owner = Owner(**{name: value for name, value in given.items() if name in known})
        jobs = [[str(name), int(count), str(task)] for name, count, task in owner.jobs]
        is_sound = isinstance(owner.pid, int) and owner.pid > 0 and isinstance(owner.host, str)
        start = owner.process_start
        is_sound = is_sound and (start is None or isinstance(start, int))
        owner = Owner(**{**asdict(owner), "jobs": jobs}) if is_sound else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        owner = None
    return _Read(content, owner, modified)


def _remove_stale(path: Path, label: str, me: Owner) -> str:
    """Remove a lock file whose owner is gone; return a line about it, or "" if others did.

    The file is renamed first: of several processes that do so, one succeeds.

    Raises:
        UserError: the owner may be running.
    """
    read = _read(path)
    if read is not None and read.owner is None:
        time.sleep(0.5)  # its writer may be about to fill it
        read = _read(path)
    if read is None:
        return ""
    reason = _why_stale(path, read, me) or _outwait(path, label, read, me)
    again = _read(path)
    if again is None or again.content != read.content:
        return ""
    if not reason:
        raise _in_use(path, label, again, me)
    aside = path.with_name(f"{path.name}.{me.token}.{me.pid}.tmp")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return ""
    moved = _read(aside)
    if moved is None:
        return ""
    if moved.content != read.content:
        # Another process was quicker, and this is its new lock: it gets it back.
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
        aside.unlink(missing_ok=True)
        return ""
    aside.unlink(missing_ok=True)
    return f"{label}: took over the lock of {_name(read)}: {reason}"


def _why_stale(path: Path, read: _Read, me: Owner) -> str:
    """Return the reason why a lock no longer counts, or ""."""
    reason = read.owner.has_ended(me) if read.owner else ""
    if reason:
        return reason
    age = _now(path.parent, me) - read.modified
    return f"it has not refreshed it for {age:.0f} s" if age > STALE_SECONDS else ""


def _outwait(path: Path, label: str, read: _Read, me: Owner) -> str:
    """Wait whether the owner, which may be this job's earlier start, refreshes its lock.

    Returns:
        the reason why the lock no longer counts; "" at once if it is of no job of ours, or as soon
        as it has been refreshed.
    """
    job = read.owner.job_in_common(me) if read.owner else ""
    if not job:
        return ""
    quiet = MISSED_REFRESHES * REFRESH_SECONDS
    left = min(quiet, read.modified + quiet - _now(path.parent, me))
    deadline = time.monotonic() + left
    if left > 0:
        logger.warning("%s: waiting up to %.0f s whether %s has ended", label, left, _name(read))
    while time.monotonic() < deadline:
        time.sleep(min(1.0, quiet / 50))
        again = _read(path)
        if again is None or (again.content, again.modified) != (read.content, read.modified):
            return ""
    return f"its job ({job}) has been started again, and it has not refreshed it"


def _now(folder: Path, me: Owner) -> float:
    """Return the time by the clock of a folder's file system, which hosts share."""
    probe = folder / f"{LOCK_PREFIX}clock.{me.token}.{me.pid}.tmp"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # read-only or full
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _in_use(path: Path, label: str, read: _Read, me: Owner) -> UserError:
    hint = ""
    if read.owner is None or not read.owner.is_on_this_machine(me):
        left = max(0.0, read.modified + STALE_SECONDS - _now(path.parent, me))
        hint = f". If it has ended without releasing it, the lock expires in {left:.0f} s"
    return UserError(
        f"{label} is in use by {_name(read)}; stop it, wait for it, or choose another "
        f"{label.split()[0]}{hint}"
    )


def _name(read: _Read) -> str:
    owner = read.owner
    if owner is None:
        since = datetime.datetime.fromtimestamp(read.modified).astimezone()
        return f"an unknown process since {since.isoformat(' ', 'seconds')}"
    text = f"process {owner.pid} on {owner.host} since {owner.since}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _refresh(held: _Held) -> None:
    """Refresh a lock until it is released; end the process if another one has taken it."""
    is_failing = False
    while not held.ended.wait(REFRESH_SECONDS):
        try:
            message = _why_lost(held)
            if message:
                _end_process(held, message)
                return
            os.utime(held.path)  # without times: the server's clock
            is_failing = False
        except OSError as error:
            if not is_failing:
                logger.warning("%s cannot be refreshed (%s)", held.path, error.strerror)
            is_failing = True


def _why_lost(held: _Held) -> str:
    """Return who holds the lock now, or "". A lock that was deleted is created again."""
    try:
        read = _read(held.path)
    except OSError:
        return ""  # the file system does not answer: nothing shows that the lock is lost
    if read is None:
        with contextlib.suppress(OSError):
            if held.ended.is_set() or _create(held.path, held.content):
                return ""
            read = _read(held.path)
    if read is None or read.content == held.content:
        return ""
    return (
        f"{held.label} has been taken over by {_name(read)}; this run ends and "
        "writes nothing more into it"
    )


def _end_process(held: _Held, message: str) -> None:
    if held.ended.is_set():
        return
    logger.error("%s", message)
    print(f"error: {message}", file=sys.stderr)
    exit_now(LOST_CODE)


def exit_now(code: int) -> NoReturn:
    """Release the locks and end the process, whatever its threads wait for.

    The interpreter's own end would wait for data workers, and gloo's threads can abort in it.
    """
    last = threading.Thread(target=_clean_up, daemon=True)
    last.start()
    last.join(timeout=5)  # a thread that waits for a disk may hold the lock of the log
    os._exit(code)


def _clean_up() -> None:
    release_locks()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _describe_this_process() -> Owner:
    pid = os.getpid()
    return Owner(
        host=socket.gethostname(),
        pid=pid,
        process_start=_process_start(pid) or None,
        boot_id=_first_line("/proc/sys/kernel/random/boot_id"),
        pid_namespace=_pid_namespace(),
        jobs=_jobs(),
        since=datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        token=uuid.uuid4().hex,
    )


def _process_start(pid: int) -> int | None:
    """Return when a process started, in clock ticks; 0 where that is unknown, None if it ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        state, *rest = text.rpartition(")")[2].split()  # behind the name, which may hold anything
        return None if state in "ZX" else int(rest[18])
    except (OSError, ValueError, IndexError):
        pass  # no /proc, or one that hides the processes of others
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        pass
    return 0


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _jobs() -> list[list[Any]]:
    environment = os.environ
    task = ".".join(environment.get(name, "") for name in _TASK)
    jobs: list[list[Any]] = []
    for kind, job, more, counter in _SCHEDULERS:
        if environment.get(job):
            name = ":".join(filter(None, [kind, environment[job], environment.get(more, "")]))
            jobs.append([name, _count(environment.get(counter, "")), task])
    run = environment.get("TORCHELASTIC_RUN_ID")
    if run:
        # The address is the launcher's own, so two launchers never have the same. Its count of
        # restarts is not used, because rank 0 can move to a machine that counts otherwise.
        address = environment.get("MASTER_ADDR", "")
        if address.startswith(_LOOPBACK):
            address = socket.gethostname()
        name = f"{_TORCHRUN}{run}:{address}:{environment.get('MASTER_PORT', '')}"
        jobs.append([name, 0, ""])
    return jobs


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0
