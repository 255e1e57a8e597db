"""Time of our backbones beside their peers': `python -m benchmarks.backbones [--rows NAME ...]`.

Prints the rows of a Markdown table. Candidates of a group take turns in one process; a figure is
the median over rounds of the ratio within a round, with the least and the largest behind it.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator

import torch

from . import peers
from .timing import forward, forward_backward, take_turns

Group = Callable[[int], Iterator[str]]


def swin(rounds: int) -> Iterator[str]:
    """Compare Swin-T and its interactions with detectron2's Swin-T."""
    ours, theirs = peers.swin_pair()
    full = peers.our_swin("acp", "cat")
    models = {"detectron2 Swin-T": theirs, "Swin-T": ours, "Swin-T + ACP + CAT": full}
    image = torch.randn(1, 3, 512, 512)
    yield _equal("Swin-T", peers.largest_difference(ours, theirs, image))
    cases = [
        ("forward 512", forward, image, (0.80, 0.30)),
        ("forward 800x1024", forward, torch.randn(1, 3, 800, 1024), (0.90, None)),
        ("forward + backward 512, batch 2", forward_backward, torch.randn(2, 3, 512, 512),
         (0.92, 0.30)),
    ]  # fmt: skip
    for what, kind, input_, (goal, added_goal) in cases:
        times = take_turns({name: kind(model, input_) for name, model in models.items()}, rounds)
        peer = "detectron2 Swin-T"
        base = times.median(peer)
        yield _row(f"Swin-T {what}", peer, base, times.ratio("Swin-T", peer), goal)
        added = times.ratio("Swin-T + ACP + CAT", peer, minus="Swin-T")
        yield _row(f"what ACP and CAT add, {what}", peer, base, added, added_goal)


def vit(rounds: int) -> Iterator[str]:
    """Compare ViT-S, with and without relative positions, with detectron2's windowed form."""
    ours, theirs = peers.vit_pair(grid_size=32)
    plain = peers.our_vit(rel_pos=False, window_size=0, grid_size=32)
    models = {"detectron2 ViT-S": theirs, "windowed": ours, "plain": plain}
    image = torch.randn(1, 3, 512, 512)
    yield _equal("ViT-S with relative positions", peers.largest_difference(ours, theirs, image))
    for what, kind, input_ in (
        ("forward 512", forward, image),
        ("forward + backward 512, batch 2", forward_backward, torch.randn(2, 3, 512, 512)),
    ):
        times = take_turns({name: kind(model, input_) for name, model in models.items()}, rounds)
        peer = "detectron2 ViT-S"
        base = times.median(peer)
        goal = 0.92 if kind is forward else None
        name = "ViT-S with relative positions"
        yield _row(f"{name}, {what}", peer, base, times.ratio("windowed", peer), goal)
        name = "ViT-S without relative positions"
        yield _row(f"{name}, {what}", peer, base, times.ratio("plain", peer), 0.85)


def dat(rounds: int) -> Iterator[str]:
    """Compare DAT++ T with its plain formulas, and with detectron2's Swin-T."""
    ours, plain = peers.dat_pair()
    swin_t = peers.swin_pair()[1]
    models = {"plain formulas": plain, "detectron2 Swin-T": swin_t, "DAT++ T": ours}
    image = torch.randn(1, 3, 512, 512)
    yield _equal("DAT++ T", peers.largest_difference(ours, plain, image))
    for what, kind, against_swin in (
        ("forward 512", forward, 1.6),
        ("forward + backward 512", forward_backward, None),
    ):
        times = take_turns({name: kind(model, image) for name, model in models.items()}, rounds)
        for peer, goal in (("plain formulas", 0.60), ("detectron2 Swin-T", against_swin)):
            ratio = times.ratio("DAT++ T", peer)
            yield _row(f"DAT++ T {what}", peer, times.median(peer), ratio, goal)


GROUPS: dict[str, Group] = {"swin": swin, "vit": vit, "dat": dat}


def _row(what: str, peer: str, seconds: float, ratio: object, goal: float | None) -> str:
    shown = "-" if goal is None else f"<= {goal:.2f}"
    return f"| {what} | {peer}, {1e3 * seconds:.0f} ms | {ratio} | {shown} |"


def _equal(what: str, difference: float) -> str:
    return (
        f"| {what}: largest difference of outputs | equal weights | {difference:.0e} | <= 1e-05 |"
    )


def main() -> None:
    """Print the groups asked for."""
    parser = argparse.ArgumentParser(description="Time backbones beside their peers.")
    parser.add_argument("--rows", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, float32"
    )
    print("| what | against | ratio of times, median [least-largest] | goal |")
    print("|---|---|---|---|")
    for name in args.rows:
        for row in GROUPS[name](args.rounds):
            print(row, flush=True)


if __name__ == "__main__":
    main()
