"""A tiny detector with random weights that finds something, and images of many kinds."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from tests.conftest import CONFIGS
from tests.dicom_files import write_dicom
from tests.tiny_detectors import CLASSES, options
from ulga_d2.config import resolve_classes
from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.launch import read_config
from ulga_d2.inference.model import build_seeded_model


def write_checkpoint(
    folder: Path, kind: str = "swin_ulga", *settings: str, seed: int = 0, **changes: object
) -> Path:
    """Save a detector with random weights whose scores are spread out, so that boxes have ranks.

    Args:
        folder: gets `kind.pth`.
        kind: of the config.
        settings: config keys and values.
        seed: of the last layers' weights.
        changes: entries of the checkpoint.
    """
    leaf = str(CONFIGS / f"brain_tumor_{kind}_nano.yaml")
    folder.mkdir(parents=True, exist_ok=True)
    words = [*options(), *settings]
    cfg = read_config(argparse.Namespace(config_file=leaf, opts=words, eval_only=True))
    resolve_classes(cfg, CLASSES)
    state = {
        "model": spread(build_seeded_model(cfg).state_dict(), seed),
        "iteration": 0,
        "class_names": list(CLASSES),
        "config": cfg.dump(),
        **changes,
    }
    return save_checkpoint(folder, f"{kind}.pth", state)


def spread(weights: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Return weights whose last layers are large enough for scores far from each other."""
    dice = torch.Generator().manual_seed(seed)
    weights = {name: value.clone() for name, value in weights.items()}
    for name, size in (("head.cls_score.weight", 0.1), ("head.bbox_pred.weight", 0.1)):
        weights[name] = size * torch.randn(weights[name].shape, generator=dice)
    return weights


def pixels(seed: int, height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    """Return grey pixels (height, width): smooth blobs over the whole range of a type."""
    dice = np.random.default_rng(seed)
    blobs = cv2.resize(dice.random((5, 5), np.float32), (width, height))
    return (np.iinfo(dtype).max * np.clip(blobs, 0, 1)).astype(dtype)


def colored(seed: int, height: int, width: int) -> np.ndarray:
    """Return RGB pixels (height, width, 3)."""
    return np.stack([pixels(seed + number, height, width) for number in (0, 100, 200)], axis=2)


def write_png(path: Path, seed: int = 0, height: int = 48, width: int = 64) -> Path:
    """Write an RGB file."""
    Image.fromarray(colored(seed, height, width)).save(path)
    return path


def write_kinds(folder: Path) -> list[Path]:
    """Write an image of each kind that a dataset may hold: depth, rotation, shape, format."""
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / "color.png", 1, 64, 64)
    write_png(folder / "wide.png", 2, 40, 110)
    write_png(folder / "tall.png", 3, 130, 33)
    Image.fromarray(pixels(4, 50, 70)).save(folder / "grey.png")
    cv2.imwrite(str(folder / "deep.png"), pixels(5, 60, 45, np.uint16))
    cv2.imwrite(str(folder / "deep_color.png"), np.uint16(257) * colored(6, 52, 61))
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = Image.fromarray(colored(7 + orientation, 44, 72))
        picture.save(folder / f"turned{orientation}.jpg", quality=95, exif=exif)
    alpha = np.dstack([colored(20, 48, 48), pixels(21, 48, 48)])
    Image.fromarray(alpha, "RGBA").save(folder / "alpha.png")
    Image.fromarray(colored(22, 40, 56)).quantize(32).save(folder / "palette.png")
    film = pixels(23, 56, 48, np.uint16) // 16
    write_dicom(folder / "film.dcm", film, BitsStored=12, HighBit=11)
    window = {"WindowCenter": 1800, "WindowWidth": 2000, "RescaleSlope": 1, "RescaleIntercept": 0}
    write_dicom(folder / "window.dcm", film, BitsStored=12, HighBit=11, **window)
    Image.fromarray(pixels(24, 47, 59)).save(folder / "grey.tif")
    return sorted(folder.iterdir())
