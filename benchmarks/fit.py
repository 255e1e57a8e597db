"""What `ulga fit` foretells beside what train_net.py logs: `python -m benchmarks.fit [ROW ...]`.

Every row is a nano leaf with a batch, its micro-batches, checkpointing and a size. The forecast is
made from the trials of `ulga fit`, the truth is the "peak memory" that a training of some
iterations with an evaluation logs, on a sample of the data set.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ulga_d2.data.sample import write_sample
from ulga_d2.engine.datasets import load_run_data
from ulga_d2.engine.fit import Plan, Trials
from ulga_d2.engine.launch import read_config
from ulga_d2.engine.trial import Cost, measure
from ulga_d2.inference.device import resolve_device, resolve_workers

ROWS = (
    ("brain_tumor_swin_ulga_nano", Plan(4, 1, False, 256)),
    ("brain_tumor_swin_ulga_nano", Plan(8, 1, False, 256)),
    ("brain_tumor_swin_ulga_nano", Plan(8, 4, False, 256)),
    ("brain_tumor_swin_ulga_nano", Plan(8, 1, True, 256)),
    ("brain_tumor_vit_baseline_nano", Plan(4, 1, False, 320)),
    ("brain_tumor_dat_ulga_nano", Plan(4, 2, False, 192)),
)
ITERATIONS = 8
IMAGES = 16  # to train on, and as many to test


def main() -> None:
    """Print the table, or the rows with the given numbers (from 1)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW")
    wanted = parser.parse_args().rows or range(1, len(ROWS) + 1)
    print(
        "| leaf | batch x accumulation | checkpointing | size | foretold MiB | logged MiB | off |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DETECTRON2_DATASETS"] = folder
        write_sample(
            "brain_tumor",
            Path(folder) / "brain_tumor",
            num_train=IMAGES,
            num_val=IMAGES,
            size=256,
            difficulty="easy",
            seed=0,
        )
        for number in wanted:
            print(row(Path(folder), *ROWS[number - 1]), flush=True)


def row(folder: Path, leaf: str, plan: Plan) -> str:
    """Return a row of the table."""
    file = f"configs/{leaf}.yaml"
    peak = Trials(trial_of(file), plan.size, plan.checkpointing, plan.batch).peak(plan) / 2**20
    logged = train(folder, file, plan)
    cells = [leaf, f"{plan.batch} x {plan.accumulation}", "yes" if plan.checkpointing else "no"]
    cells += [str(plan.size), f"{peak:.0f}", f"{logged:.0f}", f"{peak / logged - 1:+.0%}"]
    return f"| {' | '.join(cells)} |"


@functools.cache
def trial_of(file: str) -> Any:
    """Return what measures changed settings of a leaf; equal trials are made once."""
    cfg = read_config(
        argparse.Namespace(config_file=file, opts=["MODEL.DEVICE", "cpu"], eval_only=True)
    )
    resolve_device(cfg)
    resolve_workers(cfg, 1)
    data = load_run_data(cfg, with_training=True)
    boxes = max(len(record["annotations"]) for record in data.train)

    @functools.cache
    def once(options: str) -> Cost:
        return measure(cfg, json.loads(options), boxes=boxes, classes=len(data.class_names))

    return lambda options: once(json.dumps(options))


def train(folder: Path, file: str, plan: Plan) -> float:
    """Train as a user does; return the MiB that the run logs."""
    settings = {
        **plan.options(),
        "MODEL.DEVICE": "cpu",
        "SOLVER.NUM_EPOCHS": 0,
        "SOLVER.MAX_ITER": ITERATIONS,
        "OUTPUT_DIR": folder / f"run_{len(list(folder.iterdir()))}",
    }
    words = [str(word) for pair in settings.items() for word in pair]
    command = [sys.executable, "train_net.py", "--config-file", file, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"peak memory (\d+) MiB", done.stdout + done.stderr)
    if found is None:
        raise SystemExit(f"no peak in the output of {' '.join(command)}:\n{done.stderr[-2000:]}")
    return float(found[1])


if __name__ == "__main__":
    main()
