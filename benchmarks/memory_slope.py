"""Whether a long training grows: `python -m benchmarks.memory_slope`.

The resident set of one process (Linux) over a training with evaluations and checkpoints, and the
slope of the straight line through its second part; the first part is warm-up, in which allocators
and caches fill.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from detectron2.engine import HookBase

from ulga_d2.data.sample import write_sample
from ulga_d2.engine.launch import add_arguments, setup
from ulga_d2.engine.trainer import Trainer

from .memory import resident

LEAF = "configs/brain_tumor_swin_ulga_nano.yaml"
SIZE = 64  # pixels
WARMUP = 0.2  # of the run
SAMPLES = 200
GOAL = 1.0  # MB per 1,000 iterations


class Resident(HookBase):
    """Note the resident set in MB now and then."""

    def __init__(self, period: int) -> None:
        self.period = period
        self.found: list[tuple[int, float]] = []
        self._start = time.perf_counter()

    def after_step(self) -> None:
        """Note it at every `period`-th iteration, and print every tenth note."""
        if (self.trainer.iter + 1) % self.period:
            return
        megabytes = resident("VmRSS") * 1.048576
        self.found.append((self.trainer.iter + 1, megabytes))
        if len(self.found) % 10 == 0:
            passed = time.perf_counter() - self._start
            print(
                f"{passed:4.0f} s, iteration {self.trainer.iter + 1}: {megabytes:.1f} MB",
                flush=True,
            )


def slope(found: list[tuple[int, float]], first: float) -> float:
    """Return MB per 1,000 iterations of the least-squares line from iteration `first` on."""
    kept = np.array([pair for pair in found if pair[0] >= first])
    return float(1000 * np.polyfit(kept[:, 0], kept[:, 1], 1)[0])


def options(args: argparse.Namespace, folder: Path) -> list[str]:
    """Return the settings of the run: the nano detector on small images."""
    settings = {
        "MODEL.DEVICE": "cpu",
        "INPUT.SQUARE_SIZE": SIZE,
        "SOLVER.AMP.ENABLED": False,
        "SOLVER.NUM_EPOCHS": 0,
        "SOLVER.MAX_ITER": args.iterations,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.CHECKPOINT_PERIOD": args.period,
        "TEST.EVAL_PERIOD": args.period,
        "DATALOADER.NUM_WORKERS": 0,
        "OUTPUT_DIR": folder / "run",
    }
    return [*(str(word) for pair in settings.items() for word in pair), *args.opts]


def main() -> None:
    """Train, print the resident set as it goes, and the slope."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--period", type=int, default=250, help="iterations from test to test")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sample(
            "brain_tumor",
            folder / "brain_tumor",
            num_train=16,
            num_val=8,
            size=SIZE,
            difficulty="easy",
            seed=0,
        )
        os.environ["DETECTRON2_DATASETS"] = name
        words = argparse.ArgumentParser()
        add_arguments(words)
        given = words.parse_args(["--config-file", LEAF, *options(args, folder)])
        trainer = Trainer(*setup(given))
        notes = Resident(max(1, args.iterations // SAMPLES))
        trainer.register_hooks([notes])
        trainer.train()
    after = WARMUP * args.iterations
    found = slope(notes.found, after)
    print(
        f"{found:+.2f} MB per 1,000 iterations from iteration {after:.0f} to {args.iterations} "
        f"(goal: below {GOAL:g}); evaluated every {args.period}"
    )


if __name__ == "__main__":
    main()
