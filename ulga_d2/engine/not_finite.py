"""A step whose loss or gradient is not finite: where that began, and what is kept of it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ..evaluation.atomic import write_atomically
from ..inference.finite import tensors_in
from ..weights.tensor_checks import is_finite
from .step import GradientStep, StepOutcome

REPORT = "not_finite.json"


def report_not_finite(
    folder: str | Path,
    step: GradientStep,
    batches: Sequence[list[dict]],
    iteration: int,
    outcome: StepOutcome,
    rate: float,
) -> str:
    """Repeat a step, and write where it went wrong and each rank's images; every rank must call it.

    Args:
        folder: of the run.
        step: computes the gradient, from the weights that it began with.
        batches: this rank's micro-batches.
        iteration: counted from 0.
        outcome: of the step.
        rate: the learning rate.

    Returns:
        What happened, in words; the same on every rank.
    """
    images = f"not_finite_rank{comm.get_rank()}.pth"
    own = {
        "rank": comm.get_rank(),
        "first": first_fault(step, batches, iteration),
        "image_ids": [image["image_id"] for batch in batches for image in batch],
        "images": images,
    }
    own["not_stored"] = _store_images(Path(folder) / images, batches)
    report = {
        "iteration": iteration,
        "losses": outcome.losses,
        "gradient_norm": outcome.norm,
        "learning_rate": rate,
        "ranks": comm.all_gather(own),
    }
    if comm.is_main_process():
        _write(report, Path(folder) / REPORT)
    return _in_words(report)


def _write(report: dict[str, Any], path: Path) -> None:
    with contextlib.suppress(OSError):  # the words tell as much
        write_atomically(str(path), json.dumps(_without_nan(report), indent=1).encode())


def has_finite_weights(model: nn.Module) -> bool:
    """Tell whether a model's weights can be gone on with."""
    return all(map(is_finite, model.parameters()))


def first_fault(step: GradientStep, batches: Sequence[list[dict]], iteration: int) -> str:
    """Repeat a step on this rank alone; name the first thing in it that is not finite, or "".

    Looked at in this order: weights, images, what modules return as they are left (inner ones
    first), losses, gradients as they flow back, their length.
    """
    model = step.model
    kinds = (("weight", model.named_parameters()), ("buffer", model.named_buffers()))
    for kind, named in kinds:
        for name, value in named:
            if not is_finite(value):
                return f"the {kind} {name}"
    for image in (image for batch in batches for image in batch):
        if not is_finite(image["image"]):
            return f"the pixels of image {image['image_id']}"
    model.zero_grad(set_to_none=True)
    with _watching(model) as faults:
        for micro, batch in enumerate(batches):
            losses = step.losses(model, batch, iteration, micro)
            faults += [f"the loss {name}" for name in losses if not is_finite(losses[name])]
            if not faults:
                step.backward(losses)
            if faults:
                return faults[0]
    return _overflow(model)


@contextlib.contextmanager
def _watching(model: nn.Module) -> Iterator[list[str]]:
    """Note, in order, the modules' outputs and the gradients that are not finite."""
    faults: list[str] = []

    def note(value: Tensor, text: str) -> None:
        if not is_finite(value):
            faults.append(text)

    def after_forward(name: str, output: Any) -> None:
        for value in tensors_in(output):
            note(value, f"the output of {name}")
            if value.requires_grad:
                value.register_hook(
                    lambda grad: note(grad, f"the gradient at the output of {name}")
                )

    handles = [
        module.register_forward_hook(lambda _m, _i, output, n=name: after_forward(n, output))
        for name, module in model.named_modules()
        if name
    ]
    handles += [
        parameter.register_hook(lambda grad, n=name: note(grad, f"the gradient of {n}"))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    try:
        yield faults
    finally:
        for handle in handles:
            handle.remove()


def _overflow(model: nn.Module) -> str:
    """Name the largest gradient, where the square of them all is too large for its type."""
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    if not grads or is_finite(nn.utils.get_total_norm(grads.values())):
        return ""
    largest = max(grads, key=lambda name: float(grads[name].abs().max()))
    return f"the length of the gradient, of which {largest} has the largest entry"


def _store_images(path: Path, batches: Sequence[list[dict]]) -> str:
    """Write the images as the model got them, with their boxes; return why not, or ""."""
    images = [
        {
            "micro_batch": micro,
            "image_id": image["image_id"],
            "file_name": image["file_name"],
            "image": image["image"],
            "boxes": image["instances"].gt_boxes.tensor,
            "classes": image["instances"].gt_classes,
        }
        for micro, batch in enumerate(batches)
        for image in batch
    ]
    try:
        torch.save(images, path)
    except (OSError, RuntimeError) as error:
        return str(error)
    return ""


def _in_words(report: dict[str, Any]) -> str:
    losses = ", ".join(f"{name} {value:.4g}" for name, value in report["losses"].items())
    found = [rank for rank in report["ranks"] if rank["first"]]
    where = "; ".join(
        f"{rank['first']} (rank {rank['rank']}, images {', '.join(map(str, rank['image_ids']))})"
        for rank in found
    )
    first = f"First not finite: {where}" if found else "It was finite when it was repeated"
    return (
        f"iteration {report['iteration']}: {losses}, gradient {report['gradient_norm']:.4g}: not "
        f"finite, so the step was not taken. {first}. Learning rate {report['learning_rate']:.3g}"
    )


def _without_nan(value: Any) -> Any:
    """Return a JSON value with "nan" and "inf" for what JSON has no numbers for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list) else value
