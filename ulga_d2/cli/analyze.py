"""`ulga analyze`: what a config's detector holds, computes, keeps and takes, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UserError
from ..terminal import show, table
from .settings import add_set_option, set_trailing, words_of

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn


def prepare(words: Sequence[str]) -> list[str]:
    """Take KEY VALUE at the end of the command line, as training does."""
    return set_trailing(words)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add this subcommand's arguments."""
    parser = subparsers.add_parser(
        "analyze",
        description="Count parameters, arithmetic by part and the activations kept for the "
        "backward pass; measure the time of backbone, neck and head. Weights are random.",
        epilog="example: ulga analyze configs/brain_tumor_swin_{baseline,ulga}.yaml --batch 2",
    )
    parser.add_argument("configs", nargs="+", metavar="FILE", help="one config, or several")
    parser.add_argument("--batch", type=int, default=1, help="images at once (default 1)")
    parser.add_argument(
        "--size", type=int, help="side of the image in pixels (default: INPUT.SQUARE_SIZE)"
    )
    parser.add_argument("--num-classes", type=int, default=1, help="of the head (default 1)")
    parser.add_argument(
        "--rounds", type=int, default=7, help="runs that a time is the median of; 0 for none"
    )
    add_set_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print one column a config."""
    _check(args)
    columns = [_column(config, args) for config in args.configs]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    headers = ["", *args.configs]
    show(table(rows, headers, tablefmt="pipe", stralign="right", colalign=["left"]))
    show(
        "GFLOP: of our formulation, a multiply-add is two; pooling, resampling, norms and "
        "activations are not counted"
    )
    return 0


def _check(args: argparse.Namespace) -> None:
    size = args.size
    for name, value, is_valid, valid in (
        ("--size", size, size is None or (size >= 32 and size % 32 == 0), "a multiple of 32"),
        ("--batch", args.batch, args.batch >= 1, "1 or more"),
        ("--num-classes", args.num_classes, args.num_classes >= 1, "1 or more"),
        ("--rounds", args.rounds, args.rounds >= 0, "0 or more"),
    ):
        if not is_valid:
            raise UserError(f"{name} is {value}; give {valid}")


def _column(config: str, args: argparse.Namespace) -> dict[str, str]:
    import torch
    from detectron2.modeling import build_model

    from ..analysis.complexity import cost_by_part

    cfg = _read(config, args)
    size = args.size or cfg.INPUT.SQUARE_SIZE
    shape = (args.batch, 3, size, size)
    on_paper = cfg.clone()
    on_paper.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        costs = cost_by_part(build_model(on_paper), shape)
    column = {"input": " x ".join(map(str, shape)), "classes": str(cfg.MODEL.RETINANET.NUM_CLASSES)}
    millions = {part: cost.parameters / 1e6 for part, cost in costs.items()}
    billions = {part: cost.flops / 1e9 for part, cost in costs.items()}
    for label, amounts in (("M parameters", millions), ("GFLOP", billions)):
        column[label] = f"{sum(amounts.values()):.2f}"
        column |= {f"{label}, {part}": f"{amount:.2f}" for part, amount in amounts.items()}
    if args.rounds:
        kind, amp = cfg.MODEL.DEVICE.split(":")[0], cfg.SOLVER.AMP.ENABLED
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=amp):
            column |= _measured(build_model(cfg), shape, args.rounds)
        column["device"] = f"{cfg.MODEL.DEVICE}, {'bf16 autocast' if amp else 'float32'}"
    return column


def _read(config: str, args: argparse.Namespace) -> CfgNode:
    from ..engine.launch import read_config
    from ..inference.device import resolve_device

    options = ["MODEL.RETINANET.NUM_CLASSES", str(args.num_classes)]
    options += words_of(args)
    cfg = read_config(argparse.Namespace(config_file=config, opts=options, eval_only=True))
    if cfg.MODEL.META_ARCHITECTURE != "RetinaNet":
        raise UserError(f"{config} is a {cfg.MODEL.META_ARCHITECTURE}; only RetinaNet is analyzed")
    resolve_device(cfg)
    return cfg


def _measured(detector: nn.Module, shape: tuple[int, ...], rounds: int) -> dict[str, str]:
    import torch

    from ..analysis.complexity import Network, kept_bytes, median_seconds

    network = Network(detector)
    image = torch.randn(shape, device=detector.device)

    def infer() -> None:
        with torch.inference_mode():
            network(image)

    def train() -> None:
        torch.autograd.backward(sum(value.mean() for value in network(image)))
        network.zero_grad(set_to_none=True)

    seconds = median_seconds(infer, rounds, detector.device)
    network.train()
    return {
        "ms forward": f"{1e3 * seconds:.0f}",
        "ms forward and backward": f"{1e3 * median_seconds(train, rounds, detector.device):.0f}",
        "MiB kept for the backward pass": f"{kept_bytes(network, image) >> 20}",
    }
