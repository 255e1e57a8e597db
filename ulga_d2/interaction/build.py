"""From the config to the interaction of each block; the only file of this room that reads it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

from ..errors import UserError
from .acp import AggressiveConvPooling
from .cat import ConceptualAttentionTransformation
from .enhanced import DepthwiseInteraction, EnhancedInteraction, GatedInteraction

if TYPE_CHECKING:
    from detectron2.config import CfgNode

InteractionLayer = Callable[[int, str], nn.Module]

PARTS = ("acp", "cat")
CONTROLS = ("depthwise", "fuse")
STAGES = ("stage2", "stage3", "stage4", "stage5")


def build_interaction_layer(cfg: CfgNode) -> InteractionLayer:
    """Return a factory from (channels, stage) to the interaction of a block in that stage.

    The baseline, and a stage that MODEL.ULGA.STAGES leaves out, get `nn.Identity()`: no weight, no
    key in the state dict.

    Raises:
        UserError: an unknown or impossible value, with the key and the valid ones.
    """
    node = cfg.MODEL.ULGA
    check_interactions(node)

    def interaction_layer(dim: int, stage: str) -> nn.Module:
        if not node.INTERACTIONS or stage not in node.STAGES:
            return nn.Identity()
        return _build(node, dim)

    return interaction_layer


def _build(node: CfgNode, dim: int) -> nn.Module:
    names, zero_init = node.INTERACTIONS, node.FUSE.ZERO_INIT
    if "depthwise" in names:
        return DepthwiseInteraction(dim, zero_init=zero_init)
    fusion = {"concat": EnhancedInteraction, "sum": GatedInteraction}[node.FUSE.MODE]
    acp = AggressiveConvPooling(dim, **_arguments(node.ACP)) if "acp" in names else None
    cat = ConceptualAttentionTransformation(dim, **_arguments(node.CAT)) if "cat" in names else None
    return fusion(dim, acp=acp, cat=cat, zero_init=zero_init)


def _arguments(node: CfgNode) -> dict:
    return {key.lower(): value for key, value in node.items()}


def check_interactions(node: CfgNode) -> None:
    """Refuse what cannot be built, naming the key and what is valid."""
    names = list(node.INTERACTIONS)
    _check_names("INTERACTIONS", names, PARTS + CONTROLS)
    if len(names) > 1 and set(names) & set(CONTROLS):
        raise UserError(
            f"MODEL.ULGA.INTERACTIONS is {names}; a control ({', '.join(CONTROLS)}) stands alone"
        )
    _check_names("STAGES", list(node.STAGES), STAGES)
    no_effect = bool(names) and not node.STAGES
    _check("STAGES", [], not no_effect, "a stage, or set MODEL.ULGA.INTERACTIONS to [] too")
    _check("ACP.NUM_LAYERS", node.ACP.NUM_LAYERS, node.ACP.NUM_LAYERS in (1, 2, 3, 4), "1 to 4")
    kernel = node.ACP.KERNEL_SIZE
    _check("ACP.KERNEL_SIZE", kernel, kernel > 0 and kernel % 2 == 1, "an odd number: 3 or 5")
    _check("ACP.POOL_STRIDE", node.ACP.POOL_STRIDE, node.ACP.POOL_STRIDE in (1, 2), "1 or 2")
    _check("CAT.NUM_CONCEPTS", node.CAT.NUM_CONCEPTS, node.CAT.NUM_CONCEPTS > 0, "1 or more")
    ratio = node.CAT.CONCEPT_RATIO
    _check("CAT.CONCEPT_RATIO", ratio, 0 < ratio <= 1, "more than 0, at most 1.0")
    _check("FUSE.MODE", node.FUSE.MODE, node.FUSE.MODE in ("concat", "sum"), "'concat' or 'sum'")
    if node.FUSE.MODE == "sum":
        if "cat" in names:
            _check("CAT.CONCEPT_RATIO", ratio, ratio == 1, "1.0 with FUSE.MODE 'sum'")
        if "fuse" in names:
            _check("FUSE.MODE", "sum", False, "'concat' with INTERACTIONS ['fuse']")


def _check(key: str, value: object, is_valid: bool, valid: str) -> None:
    if not is_valid:
        raise UserError(f"MODEL.ULGA.{key} is {value!r}; give {valid}")


def _check_names(key: str, names: list[str], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.3)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(
                f"MODEL.ULGA.{key} has the unknown name {name!r}; known are "
                f"{', '.join(known)}{hint}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"MODEL.ULGA.{key} is {names}; name each once")
