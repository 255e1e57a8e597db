"""Which values from a file can be the weights of a model: dense, finite, of the model's kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

# Floating-point types that are converted to the model's.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
ANOTHER = (
    "Give other weights: an earlier checkpoint of their run by MODEL.WEIGHTS, or those of another "
    "run"
)


def check_tensors(tensors: Any, source: str, *, what: str = "weight") -> None:
    """Refuse values that no model can have, one tensor after another.

    Args:
        tensors: names and values, from a file.
        source: the file, for messages.
        what: the values are, for messages.

    Raises:
        UserError: there are none, a value is not a dense tensor, or one is not finite; the message
            names it.
    """
    if not isinstance(tensors, Mapping) or not tensors:
        raise UserError(f"{source} holds no {what}s by name; use another checkpoint")
    for name, value in tensors.items():
        fault = tensor_fault(value) if isinstance(name, str) else "has no text for a name"
        if fault:
            raise UserError(f"{source}: the {what} {str(name)[:200]!r} {fault}")


def check_float(name: str, value: Any, source: str) -> None:
    """Refuse a public weight that is no dense tensor of finite floating-point numbers.

    Raises:
        UserError: naming the weight and the file.
    """
    fault = tensor_fault(value)
    if not fault and value.dtype not in FLOATS:
        fault = f"is of the type {value.dtype}, and must be floating-point; save it as float32"
    if fault:
        raise UserError(f"{source}: the weight {name[:200]!r} {fault}")


def tensor_fault(value: Any) -> str:
    """Tell why a value from a file is no dense tensor of finite numbers, with the fix, or ""."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__} and no tensor; use another checkpoint"
    for is_so, kind in (
        (value.is_meta, "a meta tensor, which has no values"),
        (value.is_quantized, "quantized"),
        (value.layout is not torch.strided, "sparse"),
    ):
        if is_so:
            return f"is {kind}; save it as a dense tensor of float32"
    if value.dtype not in (*FLOATS, *INTEGERS, torch.bool):
        return f"is of the type {value.dtype}; save it as float32"
    count = 0 if is_finite(value) else int(torch.count_nonzero(~torch.isfinite(value)))
    if count:
        return f"has {count:,} of {value.numel():,} values that are not finite. {ANOTHER}"
    return ""


def is_finite(value: Tensor) -> bool:
    """Tell whether a dense tensor holds finite numbers alone."""
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def check_types(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that a model would have to convert with a loss of their meaning.

    Floating-point types are converted into each other, and so are whole numbers.

    Args:
        tensors: dense tensors, of a file.
        own: the model's, by the same names; names of one side alone are passed over.
        source: the file, for messages.

    Raises:
        UserError: a tensor of another kind than the model's, or a number too large for its type.
    """
    for name, value in tensors.items():
        if name not in own or value.dtype == own[name].dtype:
            continue
        wanted = own[name].dtype
        if not any(value.dtype in kinds and wanted in kinds for kinds in (FLOATS, INTEGERS)):
            raise UserError(
                f"{source}: the weight {name!r} is of the type {value.dtype}, and the model's is "
                f"{wanted}; save it as {wanted} where the file comes from"
            )
        if not is_finite(value.to(wanted)):
            raise UserError(
                f"{source}: the weight {name!r} has numbers that are too large for the model's "
                f"{wanted}. {ANOTHER}"
            )
