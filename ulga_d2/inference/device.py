"""Which device a run takes, whether it computes in bfloat16, and how many processes read data."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..keys import default_device

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def cpu_computes_in_bf16() -> bool:
    """Tell whether this CPU has bfloat16 instructions; without them fp32 is the faster.

    Read from the kernel's list of CPU flags (Linux); False where there is none.
    """
    info = Path("/proc/cpuinfo")
    return info.is_file() and bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", info.read_text()))


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpu_computes_in_bf16() -> bool:
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)


def resolve_device(cfg: CfgNode) -> None:
    """Replace MODEL.DEVICE "auto" and SOLVER.AMP.ENABLED None by what this machine gives, in place.

    Raises:
        UserError: a device that this machine does not have.
    """
    import torch

    if cfg.MODEL.DEVICE == "auto":
        cfg.MODEL.DEVICE = default_device()
    kind, _, index = cfg.MODEL.DEVICE.partition(":")
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if not (index or "0").isdecimal() or int(index or 0) >= count.get(kind, 0):
        have = ", ".join(f"{name} ({number})" for name, number in count.items() if number)
        raise UserError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE}, but this machine has: {have}; use auto"
        )
    if cfg.SOLVER.AMP.ENABLED is None:
        bf16 = {"cpu": cpu_computes_in_bf16, "cuda": _gpu_computes_in_bf16, "mps": bool}
        cfg.SOLVER.AMP.ENABLED = bf16[kind]()
    name = torch.cuda.get_device_name(cfg.MODEL.DEVICE) if kind == "cuda" else kind
    logger.info("device %s, %s", name, "bf16 autocast" if cfg.SOLVER.AMP.ENABLED else "float32")


def resolve_workers(cfg: CfgNode, num_processes: int) -> None:
    """Lower DATALOADER.NUM_WORKERS, in place, where this machine's cores are too few for it.

    Half the cores read data for all of the machine's `num_processes`; the rest is the network's.
    """
    most = available_cores() // 2 // num_processes
    if cfg.DATALOADER.NUM_WORKERS > most:
        logger.info(
            "DATALOADER.NUM_WORKERS %d -> %d: %d cores, %d processes",
            cfg.DATALOADER.NUM_WORKERS,
            most,
            available_cores(),
            num_processes,
        )
        cfg.DATALOADER.NUM_WORKERS = most
