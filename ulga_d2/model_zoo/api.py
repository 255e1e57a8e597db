"""The four functions that detectron2's zoo has, for this project's configs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..weights.zoo import fetch, find_entry

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def get_config_file(config_path: str) -> str:
    """Return the path of one of the project's configs.

    Args:
        config_path: its name, such as "brain_tumor_swin_ulga.yaml"; the suffix may be left out.

    Raises:
        UserError: there is none of that name.
    """
    path = CONFIGS / f"{_stem(config_path)}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in CONFIGS.glob("*.yaml")))
        raise UserError(f"no config is called {config_path!r}; there are {known}")
    return str(path)


def get_config(config_path: str, trained: bool = False) -> CfgNode:
    """Return one of the project's configs, merged with the defaults.

    Args:
        config_path: see `get_config_file`.
        trained: let it be the config of the zoo's weights, and MODEL.WEIGHTS name them.

    Raises:
        UserError: no such config, or with `trained` no such weights.
    """
    from .. import get_cfg
    from ..config import merge_config, merge_text
    from ..weights.checkpoint import load_checkpoint

    cfg = get_cfg()
    merge_config(cfg, get_config_file(config_path), [])
    if trained:
        weights = str(fetch(_stem(config_path)))
        cfg = get_cfg()
        merge_text(cfg, load_checkpoint(weights)["config"], weights)
        cfg.MODEL.WEIGHTS = weights
    return cfg


def get_checkpoint_url(config_path: str) -> str:
    """Return where the zoo keeps the trained weights of a config: a path or a URL.

    Raises:
        UserError: no zoo, or one without them.
    """
    root, entry = find_entry(_stem(config_path))
    return f"{root}/{entry.file}"


def get(config_path: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Build the model of a config, in evaluation mode if it is trained.

    Args:
        config_path: see `get_config_file`.
        trained: give it the zoo's weights; else it has its initial ones.
        device: as MODEL.DEVICE; the config's own if None.

    Raises:
        UserError: no such config or weights.
    """
    from ..inference.device import resolve_device
    from ..inference.model import build_seeded_model
    from ..weights.checkpoint import load_checkpoint, load_weights

    cfg = get_config(config_path, trained)
    if device is not None:
        cfg.MODEL.DEVICE = device
    resolve_device(cfg)
    model = build_seeded_model(cfg)
    if trained:
        load_weights(model, load_checkpoint(cfg.MODEL.WEIGHTS), cfg.MODEL.WEIGHTS)
        model.eval()
    return model


def _stem(config_path: str) -> str:
    return config_path.removeprefix("configs/").removesuffix(".yaml")
