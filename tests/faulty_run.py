"""A run into which a NaN is put: `python -m tests.faulty_run --place X --rank N ...`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ulga_d2.engine import launch, trainer
from ulga_d2.engine.distributed import launch_processes
from ulga_d2.errors import UserError

FAULTY_ITERATION = 3
BLOCK = "backbone.bottom_up.stages.stage3.0"


class FaultyTrainer(trainer.Trainer):
    """A trainer that puts a fault into a step of one rank, and again when it is repeated."""

    place, rank = "", 0

    def run_step(self) -> None:
        """Take a step; put the fault in before the one that is to fail."""
        if self.iter == FAULTY_ITERATION and comm.get_rank() == self.rank:
            FAULTS[self.place][0](self)
        super().run_step()


def _spoil(value: Any, factor: float = math.nan) -> Any:
    if isinstance(value, Tensor):
        return value * factor
    if isinstance(value, dict):
        return {name: _spoil(item, factor) for name, item in value.items()}
    return type(value)(_spoil(item, factor) for item in value)


def _output(name: str, run: FaultyTrainer, factor: float = math.nan) -> None:
    module = run.model.get_submodule(name)
    module.register_forward_hook(lambda _m, _i, output: _spoil(output, factor))


def _gradient(name: str, run: FaultyTrainer) -> None:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output.register_hook(lambda grad: grad * math.inf)
        return output

    run.model.get_submodule(name).register_forward_hook(hook)


def _loss(name: str, run: FaultyTrainer) -> None:
    losses = run.model.losses

    def spoiled(*inputs: Any) -> dict[str, Tensor]:
        found = losses(*inputs)
        return {**found, name: found[name] * math.nan}

    run.model.losses = spoiled


def _weight(name: str, run: FaultyTrainer) -> None:
    with torch.no_grad():
        run.model.get_parameter(name).view(-1)[0] = math.nan


def _weight_gradient(name: str, run: FaultyTrainer) -> None:
    run.model.get_parameter(name).register_hook(lambda grad: grad * math.nan)


def _overflow(name: str, run: FaultyTrainer) -> None:
    run.model.get_parameter(name).register_hook(lambda grad: grad.sign() * 1e30)


# What is put in, and what the diagnosis has to name.
FAULTS: dict[str, tuple[Callable[[FaultyTrainer], None], str]] = {
    "stem": (partial(_output, "backbone.bottom_up.stem"), "the output of backbone.bottom_up.stem"),
    "attention": (partial(_output, f"{BLOCK}.attn"), f"the output of {BLOCK}.attn"),
    "interaction": (partial(_output, f"{BLOCK}.interaction"), f"the output of {BLOCK}.interaction"),
    "overflowing activation": (
        partial(_output, f"{BLOCK}.mlp", factor=1e39),
        f"the output of {BLOCK}.mlp",
    ),
    "pyramid": (partial(_output, "backbone.fpn_output4"), "the output of backbone.fpn_output4"),
    "head": (partial(_output, "head.bbox_pred"), "the output of head.bbox_pred"),
    "loss": (partial(_loss, "loss_box_reg"), "the loss loss_box_reg"),
    "weight": (partial(_weight, "head.cls_score.bias"), "the weight head.cls_score.bias"),
    "gradient": (
        partial(_gradient, f"{BLOCK}.mlp"),
        f"the gradient at the output of {BLOCK}",
    ),
    "gradient of a weight": (
        partial(_weight_gradient, "head.cls_score.weight"),
        "the gradient of head.cls_score.weight",
    ),
    "overflowing length": (
        partial(_overflow, "head.cls_score.weight"),
        "the length of the gradient, of which head.cls_score.weight has the largest entry",
    ),
}


def main(args: argparse.Namespace) -> object:
    """Train with the fault; runs in each rank."""
    FaultyTrainer.place, FaultyTrainer.rank = args.place, args.rank
    trainer.Trainer = FaultyTrainer
    return launch.main(args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--place", choices=FAULTS)
    parser.add_argument("--rank", type=int)
    launch.add_arguments(parser)
    try:
        launch_processes(main, parser.parse_args(), "cpu")
    except UserError as error:
        sys.exit(f"error: {error}")
