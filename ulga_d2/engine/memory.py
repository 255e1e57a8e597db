"""Memory that a run has taken, and memory that there is for one."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path


def peak_memory(device: str) -> int:
    """Return bytes: the highest resident set of this process, or what torch had in use on a GPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    # Linux keeps a parent's maximum in ru_maxrss across exec; VmHWM is this process's own.
    highest = _kilobytes("/proc/self/status", "VmHWM")
    if highest is not None:
        return highest * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(device: str) -> int:
    """Return the bytes that a new process could take: the GPU's free memory, or the machine's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    available = _kilobytes("/proc/meminfo", "MemAvailable")
    if available is not None:
        return available * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_shared_memory() -> int | None:
    """Return the free bytes of /dev/shm, through which data workers pass batches, where it is."""
    try:
        status = os.statvfs("/dev/shm")
    except (OSError, AttributeError):  # a system without it
        return None
    return status.f_bavail * status.f_frsize


def _kilobytes(file: str, name: str) -> int | None:
    path = Path(file)
    found = path.is_file() and re.search(rf"{name}:\s+(\d+) kB", path.read_text())
    return int(found[1]) if found else None
