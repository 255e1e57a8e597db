"""One process against several: `python -m benchmarks.ranks`.

Three tables: how far RetinaNet's own normalisation moves a gradient when its batch is divided, what
a second process gains on this machine, and what the exchange of gradients costs on many GPUs. The
last is arithmetic, not a measurement.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from detectron2.utils import comm

from ulga_d2.data.sample import write_sample
from ulga_d2.engine.distributed import launch_processes
from ulga_d2.engine.launch import add_arguments, setup
from ulga_d2.engine.trainer import Trainer
from ulga_d2.inference.device import available_cores

LEAF = "configs/brain_tumor_swin_ulga_nano.yaml"
BATCH = 8
FORMS = {  # name: (processes, micro-batches)
    "one process": (1, 1),
    "two micro-batches": (1, 2),
    "two processes": (2, 1),
}
STEPS = 40
COMPARED = (0, 20, 25, 30, 35, 39)  # steps; 0.9 ** 20 = 0.12 is left of where a normaliser began

# The arithmetic: the shipped Swin with ACP and CAT at 512x512, as `ulga analyze` counts it.
PARAMETERS = 51.03e6
FORWARD_FLOP = 115.66e9  # an image; the backward pass is taken as two forward passes
GPU_FLOP_S = 989e12 * 0.25  # H100, dense bf16, a quarter of its peak reached
IMAGES_A_GPU = (2, 16)
TOTAL = 64  # a batch that stays the same, however many GPUs share it
GPUS_A_NODE = 8
NETWORKS = {"8 x 400 Gb/s": 8 * 50e9, "1 x 100 Gb/s": 12.5e9}  # a node's cards; bytes a second
INSIDE_A_NODE = 450e9  # bytes a second that a GPU sends over NVLink
HOP_SECONDS = 5e-6  # what a message takes beside its bytes


def options(folder: Path, processes: int, micro: int, **changes: object) -> argparse.Namespace:
    """Return the arguments of a run that is the same whatever its batch is cut into."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    settings = {
        "MODEL.DEVICE": "cpu",
        "MODEL.ULGA.SWIN.DROP_PATH_RATE": 0.0,
        "INPUT.SQUARE_SIZE": 128,
        "SOLVER.AMP.ENABLED": False,
        "SOLVER.CLIP_GRADIENTS.ENABLED": False,
        "SOLVER.IMS_PER_BATCH": BATCH,
        "SOLVER.ACCUMULATION_STEPS": micro,
        "SOLVER.NUM_EPOCHS": 0,
        "SOLVER.MAX_ITER": STEPS,
        "SOLVER.CHECKPOINT_PERIOD": STEPS,
        "DATALOADER.NUM_WORKERS": 0,
        "OUTPUT_DIR": folder,
        **changes,
    }
    words = ["--config-file", LEAF, "--num-gpus", str(processes)]
    return parser.parse_args([*words, *(str(word) for pair in settings.items() for word in pair)])


def record(args: argparse.Namespace) -> None:
    """Train, and save the moment of each step and the gradients of the compared ones."""
    logging.disable(logging.INFO)
    cfg, data, _ = setup(args)
    trainer = Trainer(cfg, data)
    gradients, moments = {}, []

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if trainer.iter in COMPARED:
            parts = [p.grad.flatten() for g in optimizer.param_groups for p in g["params"]]
            gradients[trainer.iter] = torch.cat(parts)
        moments.append(time.perf_counter())

    trainer.optimizer.register_step_pre_hook(keep)
    trainer.train()
    saved = {"gradients": gradients, "moments": moments}
    if comm.is_main_process():
        torch.save(saved, Path(cfg.OUTPUT_DIR) / "record.pt")


def recorded(folder: Path, processes: int, micro: int, **changes: object) -> dict:
    """Run in as many processes as asked for; return what the first of them has recorded."""
    args = options(folder, processes, micro, **changes)
    if launch_processes(record, args, "cpu"):
        raise SystemExit(f"the run in {folder} failed")
    return torch.load(folder / "record.pt")


def normalisation(folder: Path) -> None:
    """Print how far each form's gradients are from those of one process and one batch."""
    # The weights stay, so that gradients of one step can be compared.
    still = {"SOLVER.BASE_LR": 1e-30, "SOLVER.BASE_LR_END": 0.0}
    runs = {
        name: recorded(folder / name.replace(" ", "_"), *form, **still)["gradients"]
        for name, form in FORMS.items()
    }
    expected = runs.pop("one process")
    print(f"| batch of {BATCH} in | step | length of the gradient | its distance |")
    print("|---|---|---|---|")
    for name, gradients in runs.items():
        lengths = [(gradients[i].norm() / expected[i].norm()).item() for i in COMPARED]
        distances = [
            ((gradients[i] - expected[i]).norm() / expected[i].norm()).item() for i in COMPARED
        ]
        print(f"| {name} | first | {lengths[0]:.3f} | {distances[0]:.1%} |")
        length, distance = (statistics.median(values[1:]) for values in (lengths, distances))
        print(f"| {name} | {COMPARED[1]} to {STEPS} | {length:.3f} | {distance:.1%} |")


def speed(folder: Path, rounds: int) -> None:
    """Print images a second of one process and of two, in turns."""
    cores = available_cores()
    layouts = {(1, 1): [], (1, cores): [], (2, max(1, cores // 2)): []}  # (processes, threads each)
    for number in range(rounds):
        for (processes, threads), taken in layouts.items():
            os.environ["OMP_NUM_THREADS"] = str(threads)
            moments = recorded(folder / f"{processes}_{threads}_{number}", processes, 1)["moments"]
            steps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
            taken.append(statistics.median(steps))
    print(f"\n{cores} cores, batch {BATCH}, {rounds} rounds of {STEPS} steps\n")
    print("| processes x threads | images a second, median [least-largest] |\n|---|---|")
    for (processes, threads), taken in layouts.items():
        low, middle, high = (BATCH / f(taken) for f in (max, statistics.median, min))
        print(f"| {processes} x {threads} | {middle:.1f} [{low:.1f}-{high:.1f}] |")


def exchange_seconds(gpus: int, node_bytes_a_second: float) -> float:
    """Return the time in which all GPUs have the sum of their gradients.

    Every GPU sends 2 (n - 1) / n of the gradients' bytes over NVLink, and as many leave each node
    over its cards. Of the hops one waits for, a tree has two a doubling of the GPUs.
    """
    sent = 2 * (gpus - 1) / gpus * 4 * PARAMETERS
    seconds = sent / INSIDE_A_NODE
    if gpus > GPUS_A_NODE:
        seconds = max(seconds, sent / node_bytes_a_second)
    return seconds + 2 * math.log2(gpus) * HOP_SECONDS


def efficiency(images: float, exchange: float) -> float:
    """Return the share of a step in which a GPU computes; the backward pass hides the exchange."""
    forward = images * FORWARD_FLOP / GPU_FLOP_S
    return 3 * forward / (forward + max(2 * forward, exchange))


def images_that_hide(exchange: float) -> int:
    """Return the images a GPU from which the exchange costs nothing."""
    return math.ceil(exchange / (2 * FORWARD_FLOP / GPU_FLOP_S))


def communication() -> None:
    """Print what the exchange of gradients costs for three numbers of GPUs and two networks."""
    image_ms = 3e3 * FORWARD_FLOP / GPU_FLOP_S
    print(f"\n{4 * PARAMETERS / 1e6:.0f} MB of gradients, {image_ms:.1f} ms of compute an image\n")
    columns = [f"{count} images a GPU (batch)" for count in IMAGES_A_GPU]
    columns += [f"batch {TOTAL} (images a GPU)", "hidden from"]
    print(f"| GPUs | a node's network | exchange ms | {' | '.join(columns)} |")
    print("|---|---|---|" + "---|" * len(columns))
    for gpus in (8, 64, 512):
        networks = NETWORKS if gpus > GPUS_A_NODE else {"NVLink": INSIDE_A_NODE}
        for name, rate in networks.items():
            seconds = exchange_seconds(gpus, rate)
            cells = [f"{efficiency(n, seconds):.0%} ({n * gpus:,})" for n in IMAGES_A_GPU]
            own = TOTAL // gpus
            cells.append(f"{efficiency(own, seconds):.0%} ({own})" if own else "no image for each")
            cells.append(f"{images_that_hide(seconds)} images a GPU")
            print(f"| {gpus} | {name} | {1e3 * seconds:.1f} | {' | '.join(cells)} |")


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description="One process against several.")
    parser.add_argument("--rounds", type=int, default=3, help="of the timed runs; 0 for none")
    parser.add_argument("--arithmetic", action="store_true", help="the last table alone")
    args = parser.parse_args()
    if not args.arithmetic:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            sample = {"size": 128, "difficulty": "easy", "seed": 0}
            write_sample("brain_tumor", folder / "brain_tumor", num_train=64, num_val=2, **sample)
            os.environ["DETECTRON2_DATASETS"] = name
            normalisation(folder)
            if args.rounds:
                speed(folder, args.rounds)
    communication()


if __name__ == "__main__":
    main()
