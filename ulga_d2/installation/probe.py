"""Imports the heavy packages one by one and reports each as a line of JSON.

Runs in a process of its own (see `imports.py`), because a broken package may do more than raise:
it may end Python. Not imported by anything.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from typing import Any


def main() -> None:
    """Run every step whose needs are met; write {"step", "facts" | "error"} lines to stdout."""
    # What packages print while they are imported goes to stderr; only our lines go to stdout.
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    failed = set()
    for name, (step, needs) in STEPS.items():
        if failed & needs:
            failed.add(name)
            continue
        print(json.dumps({"step": name}), file=report, flush=True)
        try:
            line = {"step": name, "facts": step()}
        except Exception as error:
            failed.add(name)
            line = {"step": name, "error": _one_line(error)}
        print(json.dumps(line), file=report, flush=True)


def _one_line(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:300]


def _torch() -> dict[str, Any]:
    import torch

    return {
        "version": torch.__version__,
        "built_for": f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU",
    }


def _device() -> dict[str, Any]:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        has_cuda = torch.cuda.is_available()
    gpus = []
    for index in range(torch.cuda.device_count() if has_cuda else 0):
        properties = torch.cuda.get_device_properties(index)
        gpus.append({"name": properties.name, "bytes": properties.total_memory})
    return {
        "gpus": gpus,
        "gpu_bf16": has_cuda and torch.cuda.is_bf16_supported(),
        "cuda_warning": " ".join(str(caught[-1].message).split()) if caught else "",
        "mps": torch.backends.mps.is_available(),
    }


def _torchvision() -> dict[str, Any]:
    import torch
    import torchvision

    # Its compiled part is there and made for this torch if one of its operators runs.
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    return {"version": torchvision.__version__}


def _cv2() -> dict[str, Any]:
    import cv2

    return {"version": cv2.__version__}


def _detectron2() -> dict[str, Any]:
    for part in ("config", "data", "modeling", "evaluation", "engine"):
        importlib.import_module(f"detectron2.{part}")
    return {}


def _ulga_d2() -> dict[str, Any]:
    from ulga_d2 import get_cfg

    get_cfg()
    return {}


# name: (step, the steps it stands on)
STEPS = {
    "torch": (_torch, set()),
    "device": (_device, {"torch"}),
    "torchvision": (_torchvision, {"torch"}),
    "cv2": (_cv2, set()),
    "detectron2": (_detectron2, {"torch", "torchvision", "cv2"}),
    "ulga_d2": (_ulga_d2, {"detectron2"}),
}

if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])
    main()
