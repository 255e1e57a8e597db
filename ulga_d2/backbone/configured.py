"""What all our backbones share: their arguments are read off the config in one way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from detectron2.modeling import Backbone

from ..interaction.build import build_interaction_layer

if TYPE_CHECKING:
    from detectron2.config import CfgNode


class ConfiguredBackbone(Backbone):
    """A backbone whose constructor takes the keys of one node of MODEL.ULGA, in lower case.

    Attributes:
        node: the name of that node.
    """

    node: ClassVar[str]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments: the node's, and those that all backbones share."""
        return {
            **{key.lower(): value for key, value in cfg.MODEL.ULGA[cls.node].items()},
            "interaction_layer": build_interaction_layer(cfg),
            "out_features": cfg.MODEL.FPN.IN_FEATURES,
            "gradient_checkpointing": cfg.MODEL.ULGA.GRADIENT_CHECKPOINTING,
        }
