"""How far does a token see? `python -m benchmarks.receptive_field`.

Effective receptive fields of nano Swins with random weights: plain, with a plain convolution, with
1 to 4 layers of ACP, with CAT, with both; on brain images of the sample. What training makes of a
field, `ulga explain` tells.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from ulga_d2 import get_cfg
from ulga_d2.analysis.receptive_field import receptive_fields
from ulga_d2.config import merge_config
from ulga_d2.data.image import read_image
from ulga_d2.data.sample import write_sample
from ulga_d2.inference.model import build_seeded_model

LEAF = "configs/brain_tumor_swin_baseline_nano.yaml"
ACP = "MODEL.ULGA.ACP.NUM_LAYERS"
KIND = "MODEL.ULGA.INTERACTIONS"
VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "depthwise convolution": [KIND, "['depthwise']"],
    **{f"ACP, {n} layers": [KIND, "['acp']", ACP, str(n)] for n in (1, 2, 3, 4)},
    "CAT": [KIND, "['cat']"],
    "ACP (2) + CAT": [KIND, "['acp', 'cat']"],
}
LEVELS = ("p3", "p4", "p5")


def main() -> None:
    """Print one row a variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4, help="of the sample (default 4)")
    parser.add_argument("--seeds", type=int, default=3, help="of the weights (default 3)")
    parser.add_argument("--size", type=int, default=256, help="side in pixels (default 256)")
    args = parser.parse_args()
    images = sample_images(args.images, args.size)
    rows = []
    for name, options in VARIANTS.items():
        fields = [fields_of(images, options, seed) for seed in range(args.seeds)]
        rows.append([name, *(spread(fields, level) for level in LEVELS)])
        print(f"{name}: done", flush=True)
    headers = ["nano Swin", *(f"{level}: px that hold 50 / 90 %" for level in LEVELS)]
    print(tabulate(rows, headers, tablefmt="pipe"))


def sample_images(count: int, size: int) -> list[dict[str, torch.Tensor]]:
    """Return sample images as a detector takes them."""
    with tempfile.TemporaryDirectory() as folder:
        write_sample(
            "brain_tumor",
            folder,
            num_train=count,
            num_val=1,
            size=size,
            difficulty="medium",
            seed=0,
        )
        paths = sorted(Path(folder).glob("images/train/*"))
        arrays = [np.ascontiguousarray(read_image(str(path)).transpose(2, 0, 1)) for path in paths]
    return [{"image": torch.from_numpy(array)} for array in arrays]


def fields_of(
    images: list[dict[str, torch.Tensor]], options: list[str], seed: int
) -> dict[str, dict[float, float]]:
    """Return the radii of each level, for weights drawn from `seed`."""
    size = images[0]["image"].shape[-1]
    cfg = get_cfg()
    own = ["MODEL.DEVICE", "cpu", "INPUT.SQUARE_SIZE", str(size), "SEED", str(seed)]
    merge_config(cfg, LEAF, [*options, *own])
    model = build_seeded_model(cfg).eval()
    batch = model.preprocess_image(images).tensor
    return {field.level: field.radii for field in receptive_fields(model.backbone, batch, LEVELS)}


def spread(fields: list[dict[str, dict[float, float]]], level: str) -> str:
    """Return the mean radii over seeds, each with its smallest and largest."""
    parts = []
    for share in (0.5, 0.9):
        radii = [field[level][share] for field in fields]
        parts.append(f"{np.mean(radii):.0f} ({min(radii):.0f} to {max(radii):.0f})")
    return " / ".join(parts)


if __name__ == "__main__":
    main()
