"""Which device a run takes, and whether it computes in bfloat16."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def cpu_computes_in_bf16() -> bool:
    """Tell whether this CPU has bfloat16 instructions; without them fp32 is the faster.

    Read from the kernel's list of CPU flags (Linux); False where there is none.
    """
    info = Path("/proc/cpuinfo")
    return info.is_file() and bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", info.read_text()))


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
        cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    kind = cfg.MODEL.DEVICE.split(":")[0]
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(kind, False):
        have = ", ".join(name for name, is_there in present.items() if is_there)
        raise UserError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE}, but this machine has: {have}; use auto"
        )
    if cfg.SOLVER.AMP.ENABLED is None:
        bf16 = {"cpu": cpu_computes_in_bf16, "cuda": _gpu_computes_in_bf16, "mps": bool}
        cfg.SOLVER.AMP.ENABLED = bf16[kind]()
    name = torch.cuda.get_device_name() if kind == "cuda" else kind
    logger.info("device %s, %s", name, "bf16 autocast" if cfg.SOLVER.AMP.ENABLED else "float32")
