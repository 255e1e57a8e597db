"""How the names in a public checkpoint become ours, and which of them have no counterpart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .tensor_checks import check_float

OUTSIDE = "parts outside the backbone"


@dataclass(frozen=True)
class Layout:
    """The names of one kind of public checkpoint.

    Attributes:
        name: what a user knows it as.
        node: the node of MODEL.ULGA that holds the sizes of such a backbone.
        renames: (pattern, replacement), all applied in order; names that none matches stay.
        ignored: (pattern of a whole name, what it is): weights for which we have no use.
        absent: pattern of our names that such a checkpoint does not have.
        optional: pattern of our names that it may have and a model of ours need not.
        mark: one of our names that every backbone of this family has, and no other family.
        adapt: gives a weight, under our name, the shape that we keep it in.
        sizes: reads those keys of `node` off the weights, under our names, that their shapes tell.
        guesses: those that change what the weights mean and show in no shape: as published weights
            have them.
        silent: those that the shapes tell, and that a model can have otherwise without a refusal.
    """

    name: str
    node: str
    renames: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    ignored: tuple[tuple[str, str], ...]
    absent: str
    optional: str
    mark: str
    adapt: Callable[[str, Tensor], Tensor]
    sizes: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    guesses: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    silent: tuple[str, ...] = ()

    def builder(self) -> str:
        """Return the MODEL.BACKBONE.NAME of such a backbone."""
        return f"build_retinanet_ulga_{self.node.lower()}_fpn_backbone"


@dataclass(frozen=True)
class PublicWeights:
    """A public checkpoint under our names.

    Attributes:
        place: the file.
        layout: the layout that its names were recognised as.
        tensors: the backbone's weights by our names, which start at the backbone.
        sources: our name to the name in the file.
        ignored: what is not used, to the names in the file.
    """

    place: str
    layout: Layout
    tensors: dict[str, Tensor]
    sources: dict[str, str]
    ignored: dict[str, list[str]]

    def size_options(self) -> tuple[str, str]:
        """Return the sizes of the backbone as options of the command line, and which are guesses.

        Both are empty where the weights that tell the sizes are missing or misshapen.
        """
        try:
            sizes, guesses = self.layout.sizes(self.tensors), self.layout.guesses(self.tensors)
        except (KeyError, IndexError, ZeroDivisionError):
            return "", ""
        node = f"MODEL.ULGA.{self.layout.node}"
        options = [f"{node}.{key} {_word(value)}" for key, value in {**sizes, **guesses}.items()]
        return " ".join(options), ", ".join(guesses)


def _word(value: Any) -> str:
    return f'"{value}"' if isinstance(value, list) else str(value)


def translate(
    state: Mapping[str, Tensor], layout: Layout, prefix: str, place: str
) -> PublicWeights:
    """Rename the weights of a checkpoint; those whose names do not start with `prefix` are left.

    Raises:
        UserError: a weight that is used is no dense tensor of finite floating-point numbers.
    """
    tensors: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    ignored: dict[str, list[str]] = {}
    for source, tensor in state.items():
        name = source.removeprefix(prefix)
        reason = OUTSIDE if not source.startswith(prefix) else _reason_to_ignore(name, layout)
        if reason is not None:
            ignored.setdefault(reason, []).append(source)
            continue
        check_float(source, tensor, place)
        for pattern, replacement in layout.renames:
            name = re.sub(pattern, replacement, name)
        tensors[name] = layout.adapt(name, tensor)
        sources[name] = source
    return PublicWeights(place, layout, tensors, sources, ignored)


def _reason_to_ignore(name: str, layout: Layout) -> str | None:
    matching = (reason for pattern, reason in layout.ignored if re.fullmatch(pattern, name))
    return next(matching, None)
