"""A trained detector, opened to be looked at: its model, its classes, and how it reads an image."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from ..config import resolve_classes, stated_category_ids
from ..errors import UserError
from ..inference.device import resolve_device
from ..inference.model import build_seeded_model
from ..inference.preprocess import Preprocessing, adopt_intensity, build_preprocessing
from ..weights.checkpoint import evaluated_weights, load_checkpoint, load_weights
from .launch import read_config


class Trained(NamedTuple):
    """A trained detector.

    Attributes:
        name: stem of its config; of a run's config.yaml, the run folder's name.
        weights: where they were read from.
        class_names: of its head, from the checkpoint.
        model: in evaluation, in float32.
        inputs: of each image, (3, H, W) RGB in 0..255, prepared as at test time.
    """

    name: str
    weights: str
    class_names: tuple[str, ...]
    model: nn.Module
    inputs: tuple[Tensor, ...]


def open_trained(
    config: str, weights: str, options: Sequence[str], images: Sequence[str]
) -> Trained:
    """Build a config's detector with trained weights, and read images as it sees them at test time.

    Args:
        config: a file of settings.
        weights: a checkpoint of this project, or zoo://NAME.
        options: KEY VALUE words that change the settings.
        images: files of any kind that training reads.

    Raises:
        UserError: a file that is missing or damaged, or weights of another config's model.
    """
    cfg = read_config(argparse.Namespace(config_file=config, opts=list(options), eval_only=True))
    state = load_checkpoint(weights)
    adopt_intensity(cfg, state.get("config"), weights)
    preprocessing = replace(build_preprocessing(cfg), tiling=None, augmentation=None)
    inputs = tuple(_read(preprocessing, path) for path in images)  # before what takes longer
    resolve_device(cfg)
    cfg.SOLVER.AMP.ENABLED = False
    class_names = tuple(state["class_names"])
    resolve_classes(cfg, class_names, stated_category_ids(state["config"], len(class_names)))
    model = build_seeded_model(cfg).eval()
    load_weights(model, {"model": evaluated_weights(state)}, weights)
    path = Path(config)
    name = path.resolve().parent.name if path.stem == "config" else path.stem
    return Trained(name, weights, class_names, model, inputs)


def _read(preprocessing: Preprocessing, path: str) -> Tensor:
    if "://" not in path and not Path(path).is_file():
        raise UserError(f"image {path} does not exist; check its path")
    (view,) = preprocessing.views(preprocessing.read(path))
    return view.image
