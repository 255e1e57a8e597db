"""What the machine has for training: device, memory, disk."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from .report import ERROR, NOTE, OK, WARNING, Fact

_GIB = 2**30
_MEMORY = 4 * _GIB  # a nano model with its data loader takes about half
_DISK = 2 * _GIB  # a few runs with their checkpoints
_DISK_LEAST = _GIB // 4  # one checkpoint of a small model
_SHARED = _GIB // 4  # batches travel from the loader's processes through it


def device_facts(device: dict[str, Any] | None, *, cores: int, cpu_bf16: bool) -> list[Fact]:
    """Say what training would run on.

    Args:
        device: what the probe found of torch's devices; None if torch does not import.
        cores: the CPU cores that this process may use.
        cpu_bf16: whether the CPU computes in bfloat16.
    """
    bf16 = "bf16" if cpu_bf16 else "no bf16 instructions, so fp32"
    facts = [Fact(OK, f"CPU: {cores} cores, {bf16}")]
    if device is None:
        return facts
    for gpu in device["gpus"]:
        bf16 = "bf16" if device["gpu_bf16"] else "no bf16"
        text = f"GPU: {gpu['name']}, {_size(gpu['bytes'])}, {bf16}; training takes it by itself"
        facts.append(Fact(OK, text))
    if not device["gpus"]:
        facts.append(_no_gpu_fact(device["cuda_warning"]))
    if device["mps"]:
        facts.append(Fact(OK, "MPS: there; taken when asked for, MODEL.DEVICE mps"))
    return facts


def _no_gpu_fact(warning: str) -> Fact:
    if not Path("/proc/driver/nvidia/version").exists():
        return Fact(NOTE, "GPU: none; training runs on the CPU")
    text = f"GPU: there is an NVIDIA driver, but torch cannot use it. {warning}".strip()
    return Fact(WARNING, text, "nvidia-smi shows the driver; update it, or install an older torch")


def memory_facts() -> list[Fact]:
    """Report main memory, and shared memory where a container has too little."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _container_limit()
    total = min(total, limit) if limit else total
    free = min(_available() or total, total)
    text = f"memory: {_size(free)} free of {_size(total)}"
    facts = [Fact(OK, text)]
    if free < _MEMORY:
        cure = "close other programs, or lower SOLVER.IMS_PER_BATCH"
        facts = [Fact(WARNING, f"{text}: little for training", cure)]
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).total < _SHARED:
        text = f"shared memory: {_size(shutil.disk_usage(shared).total)}, little for data loading"
        cure = "docker run --shm-size=2g ..., or train with DATALOADER.NUM_WORKERS 0"
        facts.append(Fact(WARNING, text, cure))
    return facts


def _available() -> int | None:
    info = Path("/proc/meminfo")
    found = info.is_file() and re.search(r"MemAvailable:\s+(\d+) kB", info.read_text())
    return int(found.group(1)) * 1024 if found else None


def _container_limit() -> int | None:
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return int(text) if text.isdigit() else None


def disk_facts(folder: Path) -> list[Fact]:
    """Report the free space where `folder`, the root of the run folders, lies."""
    free = shutil.disk_usage(folder).free
    text = f"disk: {_size(free)} free in {folder}"
    if free >= _DISK:
        return [Fact(OK, text)]
    level = ERROR if free < _DISK_LEAST else WARNING
    return [Fact(level, f"{text}: little for checkpoints", "OUTPUT_DIR on another disk")]


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"
