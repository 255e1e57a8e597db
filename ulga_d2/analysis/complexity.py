"""Parameters, arithmetic, kept activations and time of a detector, by part."""

from __future__ import annotations

import copy
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# The part that a module's name belongs to; the first match counts, and what is below it with it.
PARTS = {
    "ACP": r"\.interaction\.acp",
    "CAT": r"\.interaction\.cat",
    "fusion": r"\.interaction",
    "attention": r"\.attn",
    "MLP": r"\.mlp",
    "rest of the backbone": r"^backbone\.bottom_up",
    "FPN": r"^backbone",
    "head": r"^head",
}


@dataclass(frozen=True)
class Cost:
    """What a part holds and computes.

    Attributes:
        parameters: numbers that are trained.
        flops: of one forward pass; a multiply-add counts as two. Matrix products, convolutions and
            attention are counted; pooling, resampling, norms and activations are not.
    """

    parameters: int
    flops: int


def part_of(name: str) -> str:
    """Return the part that a module or parameter of a detector belongs to."""
    return next(part for part, pattern in PARTS.items() if re.search(pattern, name))


def cost_by_part(detector: nn.Module, shape: Sequence[int]) -> dict[str, Cost]:
    """Count parameters and arithmetic of backbone, neck and head; nothing is computed.

    Args:
        detector: as for `Network`, on any device.
        shape: (B, 3, H, W) of the normalised and padded images.
    """
    parameters = dict.fromkeys(PARTS, 0)
    for name, parameter in detector.named_parameters():
        parameters[part_of(name)] += parameter.numel()
    flops = dict.fromkeys(PARTS, 0)
    # On "meta", attention is one operator that the counter knows on every machine.
    network = copy.deepcopy(Network(detector)).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(shape, device="meta"))
    own = _own_flops(counter.get_flop_counts(), network)
    for name, count in own.items():
        flops[part_of(name)] += count
    return {part: Cost(parameters[part], flops[part]) for part in PARTS}


class Network(nn.Module):
    """Backbone, neck and head of a detector: what is left without images, boxes and losses.

    Args:
        detector: has `backbone`, `head` and `head_in_features`, as detectron2's RetinaNet.

    Shape:
        input (B, 3, H, W), normalised and padded; output the head's maps, level by level.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.head
        self.levels = detector.head_in_features

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the class logits of all levels, then their box deltas."""
        features = self.backbone(image)
        logits, deltas = self.head([features[level] for level in self.levels])
        return [*logits, *deltas]


def _own_flops(counts: dict[str, dict], network: nn.Module) -> dict[str, int]:
    """Return what each module computes itself, without its children, by its name."""
    root = type(network).__name__
    total = {
        name.removeprefix(root).removeprefix("."): sum(by_operator.values())
        for name, by_operator in counts.items()
        if name != "Global"
    }
    own = dict(total)
    for name, count in total.items():
        parent = name.rpartition(".")[0]
        while parent and parent not in total:
            parent = parent.rpartition(".")[0]
        if name and parent in own:
            own[parent] -= count
    own.pop("", None)
    return own


def kept_bytes(module: nn.Module, x: Tensor) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, the weights apart."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:  # also as views: a linear keeps its transposed one
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = module(x)  # held until the sum is made, so that no storage is used twice
    del result
    return sum(kept.values())


def _wait(device: torch.device) -> None:
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def median_seconds(call: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Return the median time of a call, after one to warm up."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])
