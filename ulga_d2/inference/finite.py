"""Count the numbers that a detector's heads give and that are not finite.

detectron2 drops a box whose score is NaN without a word, and stops with an assertion on a box that
is infinite. So the heads' outputs are looked at before anything is decoded or left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

# Of detectron2's meta-architectures: what gives the scores, boxes and masks before decoding.
HEADS = (
    "head",  # RetinaNet
    "proposal_generator.rpn_head",
    "roi_heads.box_predictor",
    "roi_heads.mask_head.predictor",
)
NOT_FINITE = "of the model's scores, boxes or masks are not finite"
ADVICE = "compute in float32 (SOLVER.AMP.ENABLED False, no --half), or use other weights"

_counts: ContextVar[list[Tensor] | None] = ContextVar("counts of outputs not finite", default=None)


def watch_heads(model: nn.Module) -> None:
    """Have the heads of a model report to `counting`; elsewhere they are as before."""
    modules = dict(model.named_modules())
    found = [modules[name] for name in HEADS if name in modules]
    for head in found:
        for part in head if isinstance(head, nn.ModuleList) else [head]:  # of a cascade
            if _count_outputs not in part._forward_hooks.values():
                part.register_forward_hook(_count_outputs)


def _count_outputs(_module: nn.Module, _inputs: Any, output: Any) -> None:
    counts = _counts.get()
    if counts is not None:
        counts.extend(count_not_finite(value) for value in tensors_in(output))


def tensors_in(output: Any) -> Iterator[Tensor]:
    """Yield the tensors that a module has returned, alone or in dicts, lists and tuples."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (dict, list, tuple)):
        for value in output.values() if isinstance(output, dict) else output:
            yield from tensors_in(value)


def count_not_finite(value: Tensor) -> Tensor:
    """Return how many numbers of a tensor are not finite, on its device."""
    return torch.count_nonzero(~torch.isfinite(value))


@contextlib.contextmanager
def counting() -> Iterator[list[Tensor]]:
    """Give the list that the heads' counts of numbers that are not finite go to, in this thread."""
    counts: list[Tensor] = []
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def run_counted(model: nn.Module, batch: list[dict[str, Any]]) -> tuple[list[Instances], int]:
    """Run a model on a batch; return its detections, and how many numbers were not finite.

    Where detectron2 gives up on an infinite box, there are no detections, and it counts as one.
    """
    with counting() as counts:
        try:
            found = [output["instances"] for output in model(batch)]
        except AssertionError as error:
            if "infinite or NaN" not in str(error):  # of detectron2's Boxes.clip
                raise
            found = []
            counts.append(torch.tensor(1))
    for instances in found:
        counts += map(count_not_finite, (instances.scores, instances.pred_boxes.tensor))
    return found, sum(map(int, counts))
