"""Peak memory of one pass, above the loaded model: `python -m benchmarks.memory`.

Each candidate has a process of its own. On a CPU the figure is the highest resident set during the
pass minus the resident set before it (Linux).
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from . import peers
from .timing import forward, forward_backward

PASSES = {
    "forward 800x1024": (forward, (1, 3, 800, 1024), 0.88),
    "forward + backward 512, batch 2": (forward_backward, (2, 3, 512, 512), 0.95),
}
MODELS = ("detectron2 Swin-T", "Swin-T", "Swin-T + ACP + CAT")


def build(name: str) -> torch.nn.Module:
    """Build one of MODELS."""
    if name == MODELS[0]:
        return peers.swin_pair()[1]
    return peers.our_swin() if name == MODELS[1] else peers.our_swin("acp", "cat")


def resident(field: str) -> float:
    """Return VmRSS (now) or VmHWM (the highest) of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024


def peak(name: str, what: str) -> float:
    """Return the MiB that a pass takes above the loaded model, in this process."""
    kind, shape, _ = PASSES[what]
    model = build(name)
    kind(model, torch.randn(1, 3, 64, 64))()  # loads what a first call loads
    call = (
        forward(model, torch.randn(shape)) if kind is forward else kind(model, torch.randn(shape))
    )
    return memory_of(call)


def memory_of(call: Callable[[], object]) -> float:
    """Return the MiB that a call takes at its highest above what is resident before it."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed must not hide in the heap
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest is counted from here
    call()
    return resident("VmHWM") - before


def main() -> None:
    """Print the table; with two arguments, one figure (a child's part)."""
    if len(sys.argv) == 3:
        print(peak(*sys.argv[1:]))
        return
    print("| pass | model | MiB above the loaded model | of detectron2's | goal |")
    print("|---|---|---|---|---|")
    for what, (_, _, goal) in PASSES.items():
        found = {}
        for name in MODELS:
            command = [sys.executable, "-m", "benchmarks.memory", name, what]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[name] = float(output)
            ratio = found[name] / found[MODELS[0]]
            shown = f"<= {goal}" if name == MODELS[1] else "-"
            print(f"| {what} | {name} | {found[name]:.0f} | {ratio:.2f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
