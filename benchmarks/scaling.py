"""Cost against work: `python -m benchmarks.scaling --picture docs/figures/scaling.png`.

Forward time and memory of each backbone over image sizes and batches, the exponent of time over
pixels, and how far each is from what the machine's matrix product reaches.
"""

from __future__ import annotations

import argparse
import math
import statistics

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from . import peers
from .memory import memory_of
from .timing import forward, take_turns

SIZES = (256, 384, 512, 768, 1024)
BATCHES = (1, 2, 4, 8)
BATCH_SIZE_PX = 256  # the side at which batches are compared


def models() -> dict[str, nn.Module]:
    """Build one of each backbone, plain and with ACP and CAT."""
    return {
        "Swin-T": peers.our_swin(),
        "Swin-T + ACP + CAT": peers.our_swin("acp", "cat"),
        "DAT++ T": peers.dat_pair()[0],
        "ViT-S": peers.our_vit(rel_pos=False, window_size=0, grid_size=32),
    }


def product_peak(side: int = 2048, rounds: int = 15) -> float:
    """Return the GFLOP/s that a square matrix product reaches here, in its best round."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    seconds = take_turns({"product": lambda: a @ b}, rounds).seconds["product"]
    return 2 * side**3 / min(seconds) / 1e9


def gflop(model: nn.Module, image: torch.Tensor) -> float:
    """Count a forward pass; on "meta", where attention is one operator."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image.to("meta"))
    return counter.get_total_flops() / 1e9


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Fit time = c * pixels ** exponent by least squares over the logarithms."""
    x = [2 * math.log(size) for size in sizes]
    y = [math.log(value) for value in seconds]
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def measure(model: nn.Module, shape: tuple[int, ...], rounds: int) -> tuple[float, float]:
    """Return the median seconds of a forward pass, and the MiB it takes above the loaded model."""
    call = forward(model, torch.randn(shape))
    call()
    mebibytes = memory_of(call)
    return take_turns({"model": call}, rounds).median("model"), mebibytes


def draw(path: str, curves: dict[str, list[float]]) -> None:
    """Plot seconds over pixels, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), dpi=120)
    for name, seconds in curves.items():
        slope = exponent(SIZES, seconds)
        axes.loglog([s * s for s in SIZES], seconds, marker="o", label=f"{name}: n^{slope:.2f}")
    axes.set_xticks([s * s for s in SIZES], [f"{s}²" for s in SIZES])
    axes.minorticks_off()
    axes.set_xlabel("pixels n")
    axes.set_ylabel("seconds, forward, batch 1")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def report(
    rows: list[tuple[str, float, float, float]], peak: float, curves: dict[str, list[float]]
) -> None:
    """Print a table of (what, GFLOP, seconds, MiB), and each model's exponent."""
    print(f"matrix product of 2048: {peak:.0f} GFLOP/s, {torch.get_num_threads()} threads\n")
    print("| model | batch x side | GFLOP | ms | GFLOP/s | of the product's | MiB |")
    print("|---|---|---|---|---|---|---|")
    for what, work, taken, mebibytes in rows:
        rate = work / taken
        row = f"{work:.1f} | {1e3 * taken:.0f} | {rate:.0f} | {rate / peak:.0%} | {mebibytes:.0f}"
        print(f"| {what} | {row} |")
    print("\n| model | time grows as |\n|---|---|")
    for name, seconds in curves.items():
        print(f"| {name} | pixels^{exponent(SIZES, seconds):.2f} |")


def main() -> None:
    """Print the table and draw the plot."""
    parser = argparse.ArgumentParser(description="Forward time against image size and batch.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--picture", metavar="FILE")
    args = parser.parse_args()
    peaks, curves, rows = [product_peak()], {}, []
    with torch.device("meta"):
        on_paper = models()
    for name, model in models().items():
        shapes = [(1, size) for size in SIZES]
        shapes += [(batch, BATCH_SIZE_PX) for batch in BATCHES[1:]]
        seconds = []
        for batch, size in shapes:
            shape = (batch, 3, size, size)
            work = gflop(on_paper[name], torch.empty(shape))
            taken, mebibytes = measure(model, shape, args.rounds)
            seconds.append(taken)
            rows.append((f"{name} | {batch} x {size}", work, taken, mebibytes))
        curves[name] = seconds[: len(SIZES)]
        peaks.append(product_peak())  # the machine's moods fall on the products too
    report(rows, max(peaks), curves)
    if args.picture:
        draw(args.picture, curves)


if __name__ == "__main__":
    main()
