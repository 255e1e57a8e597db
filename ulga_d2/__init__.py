"""ULGA for detectron2: token interaction by ACP and CAT (arXiv:2412.18778) before self-attention.

Importing this package imports nothing heavy. `get_cfg` and `add_ulga_config` register backbones and
data sets, once; every entry point starts from one of them.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = [
    "Detections",
    "Predictor",
    "__version__",
    "add_ulga_config",
    "get_cfg",
    "register_datasets",
]

# Public names that take a moment to import, and where they are.
_LAZY = {
    "Detections": ".inference.detections",
    "Predictor": ".inference.predictor",
    "register_datasets": ".engine.datasets",
}

# What detectron2 and fvcore make torch say at each start; nothing a user of ours can act on.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __name__), name)


def get_cfg() -> CfgNode:
    """Return detectron2's config with our keys and our defaults, everything registered."""
    from detectron2.config import get_cfg as get_detectron2_cfg

    from .keys import set_defaults

    cfg = get_detectron2_cfg()
    add_ulga_config(cfg)
    set_defaults(cfg)
    return cfg


def add_ulga_config(cfg: CfgNode) -> None:
    """Add this project's keys to `cfg` in place and register its backbones and data sets, once.

    No key of detectron2's own changes, so that another project's trainer can use the backbones.
    """
    from .keys import add_keys

    add_keys(cfg)
    _register()


def _register() -> None:
    from .backbone import build, retinanet  # noqa: F401  (decorators fill detectron2's registries)
    from .data.builtin import register_all

    register_all()
