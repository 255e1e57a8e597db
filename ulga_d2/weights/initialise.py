"""From a public checkpoint into a model: strict about what should match, with a report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import UserError
from .layout import PublicWeights
from .position import resize
from .report import Report, some
from .tensor_checks import check_types

BACKBONE = "backbone.bottom_up."  # where detectron2's FPN keeps the backbone of a detector


def initialise(model: nn.Module, public: PublicWeights) -> Report:
    """Give a detector's backbone the weights of a public checkpoint, in place.

    Position tables of another size are resized. The interactions, the pyramid and the head keep
    their initial values: no public checkpoint has them.

    Raises:
        UserError: a weight that such a checkpoint has and this one does not, one that the model has
            no place for, or one of another shape; with the names and the sizes that would fit.
    """
    state = model.state_dict()
    backbone = {
        name.removeprefix(BACKBONE): value.shape
        for name, value in state.items()
        if name.startswith(BACKBONE)
    }
    fit = _fit(public, backbone)
    if fit.has_faults():
        raise UserError("\n".join(_complaint(public, fit)))
    loaded = {BACKBONE + name: value for name, value in fit.tensors.items()}
    check_types(loaded, state, public.place)
    model.load_state_dict({**state, **loaded}, strict=True)
    return Report(
        place=public.place,
        layout=public.layout.name,
        loaded=tuple(loaded),
        resized=fit.resized,
        ignored={**public.ignored, **({UNUSED_NORMS: fit.unused} if fit.unused else {})},
        absent=tuple(name for name in state if name not in loaded),
    )


UNUSED_NORMS = "norms of maps that this model does not return"


@dataclass
class _Fit:
    """A checkpoint's weights beside a backbone's."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    resized: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    homeless: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    def has_faults(self) -> bool:
        return bool(self.missing or self.homeless or self.misshapen)


def _fit(public: PublicWeights, backbone: Mapping[str, torch.Size]) -> _Fit:
    if public.layout.mark not in backbone:
        raise UserError(
            f"{public.place} is a {public.layout.name}, and the backbone of this config is another "
            f"kind: it fits MODEL.BACKBONE.NAME {public.layout.builder()}"
        )
    fit = _Fit()
    for name, tensor in public.tensors.items():
        if name in backbone:
            _take(fit, name, tensor, backbone[name])
        elif re.fullmatch(public.layout.optional, name):
            fit.unused.append(public.sources[name])
        else:
            fit.homeless.append(public.sources[name])
    for name in backbone:
        may_lack = ".interaction." in name or re.fullmatch(public.layout.absent, name)
        if name not in public.tensors and not may_lack:
            fit.missing.append(name)
    return fit


def _take(fit: _Fit, name: str, tensor: Tensor, shape: torch.Size) -> None:
    if tensor.shape == shape:
        fit.tensors[name] = tensor
        return
    resized = resize(name, tensor, shape)
    if resized is None:
        shapes = f"{tuple(tensor.shape)} in the file and {tuple(shape)} in the model"
        fit.misshapen.append(f"{name}: {shapes}")
        return
    fit.tensors[name] = resized
    fit.resized[name] = (tuple(tensor.shape), tuple(shape))


def _complaint(public: PublicWeights, fit: _Fit) -> Iterator[str]:
    yield f"{public.place} ({public.layout.name}) does not fit the backbone of this config:"
    for what, names in (
        ("weights of the backbone are not in the file", fit.missing),
        ("weights of the file have no place in the backbone", fit.homeless),
        ("weights have another shape", fit.misshapen),
    ):
        if names:
            yield f"  {what}: {some(names)}"
    options, guesses = public.size_options()
    if options:
        yield f"A backbone of the file's sizes: {options}"
    if guesses:
        yield f"Not seen in the file, a guess after published ones: {guesses}"
