"""Which public layout a checkpoint has, told by the names in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ..errors import UserError
from . import dat, swin, vit
from .layout import Layout, PublicWeights, translate
from .load import is_own

# Where trainers put the weights, beside their optimizer and settings.
WRAPPERS = ("model", "state_dict", "model_state")
# The first weight of every layout that is known here; what stands before it is the prefix.
FIRST_NAMES = (
    "patch_embed.proj.weight",
    "conv_proj.weight",
    "features.0.0.weight",
    "patch_proj.0.weight",
)
MAX_DEPTH = 4  # levels of wrappers; a dict may even hold itself
FAMILIES = (swin, vit, dat)
LONGEST_NAME = 500  # characters
MOST_BACKBONES = 20


def unwrap(loaded: Any, place: str) -> dict[str, Any]:
    """Return the dict of weights in what a file held.

    Raises:
        UserError: it holds no dict with names, or is a checkpoint of this project.
    """
    if is_own(loaded):
        raise UserError(
            f"{place} is a checkpoint of this project and no public one; MODEL.WEIGHTS takes it as "
            "it is"
        )
    found = loaded
    for _ in range(MAX_DEPTH):
        if not isinstance(found, dict):
            raise UserError(f"{place} holds a {type(found).__name__} and no weights by name")
        inner = [found[key] for key in WRAPPERS if isinstance(found.get(key), dict)]
        if not inner:
            break
        found = inner[0]
    else:
        raise UserError(f"{place} nests its weights more than {MAX_DEPTH} levels deep")
    return {name: value for name, value in found.items() if isinstance(name, str)}


def recognise(loaded: Any, place: str) -> PublicWeights:
    """Find the backbone in what a file held, and give its weights our names.

    The names may stand under "model", "state_dict" or "model_state", and may all start with a
    prefix, such as "module." or "backbone.bottom_up.".

    Raises:
        UserError: no known layout, or more than one backbone.
    """
    state = {k: v for k, v in unwrap(loaded, place).items() if isinstance(v, Tensor)}
    for name in state:
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise UserError(f"{place} holds a tensor called {name[:LONGEST_NAME]!a}: no weight is")
    prefixes = _prefixes(state)
    if len(prefixes) > MOST_BACKBONES:
        raise UserError(
            f"{place} holds {len(prefixes):,} backbones; keep the weights of one of them"
        )
    found = {
        prefix: layout
        for prefix in prefixes
        if (layout := _find_layout(_inside(state, prefix))) is not None
    }
    if not found:
        first = ", ".join(list(state)[:3]) or "no tensors"
        raise UserError(
            f"{place}: the names of its weights ({first}, ...) are of no layout that is known "
            "here; docs/weights.md lists those that are"
        )
    if len(found) > 1:
        raise UserError(
            f"{place} holds {len(found)} backbones, under {', '.join(map(repr, found))}; keep the "
            "weights of one of them"
        )
    ((prefix, layout),) = found.items()
    return translate(state, layout, prefix, place)


def _prefixes(names: Collection[str]) -> list[str]:
    found = {
        name.removesuffix(first)
        for name in names
        for first in FIRST_NAMES
        if name == first or name.endswith(f".{first}")
    }
    return sorted(found)


def _inside(state: Mapping[str, Tensor], prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name in state if name.startswith(prefix)}


def _find_layout(names: Collection[str]) -> Layout | None:
    layouts = (family.find_layout(names) for family in FAMILIES)
    return next((layout for layout in layouts if layout is not None), None)
