"""How far does what names a lesion come from? `python -m benchmarks.context_reach`.

For each variant of a context study: the logits that name a lesion, at its cell of the finest
level, and the share of their gradient over pixels that lies as far from the lesion as the sign that
decides its class. With random weights, or with the trained ones of a study's cells.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from ulga_d2 import get_cfg
from ulga_d2.config import merge_config
from ulga_d2.data.sample.context import CLASS_NAMES, LEAST_DISTANCE, make_context
from ulga_d2.data.sample.difficulty import DIFFICULTIES
from ulga_d2.data.sample.scene import Scene
from ulga_d2.inference.model import build_seeded_model
from ulga_d2.study.plan import Cell, read_study
from ulga_d2.weights.checkpoint import load_checkpoint, load_weights

STUDY = Path("configs/studies/context.yaml")
IMAGE_SEED = 7  # of images that no study trains or tests on


def main() -> None:
    """Print one row a variant, its seeds taken together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=STUDY, help=f"default {STUDY}")
    parser.add_argument("--cells", type=Path, help="its trained cells (default: random weights)")
    parser.add_argument("--images", type=int, default=8, help="default 8")
    args = parser.parse_args()
    study = read_study(args.study)
    (sample,) = study.samples.values()
    scenes = [scene_of(index, sample) for index in range(args.images)]
    rows = []
    for variant, cells in study.rows().items():
        there = [cell for cell in cells if not args.cells or weights_of(args.cells, cell).is_file()]
        models = (detector_of(cell, args.cells) for cell in there)
        shares = [100 * np.mean([far_share(model, scene) for scene in scenes]) for model in models]
        if shares:
            rows.append([variant, len(shares), np.mean(shares), min(shares), max(shares)])
        print(f"{variant}: {len(shares)} seeds", flush=True)
    if not rows:
        parser.error(f"{args.cells} holds no finished cell of {args.study}")
    headers = ["variant", "seeds", "far share, %", "least", "largest"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".2f"))


def scene_of(index: int, sample: Mapping[str, object]) -> Scene:
    """Make an image like those of the study's sample."""
    difficulty = DIFFICULTIES[str(sample["difficulty"])]
    size = int(str(sample["size"]))
    return make_context(
        seed=IMAGE_SEED, split_number=0, index=index, size=size, difficulty=difficulty
    )


def weights_of(cells: Path, cell: Cell) -> Path:
    """Return where a cell's last weights lie."""
    return cells / cell.name / "model_final.pth"


def detector_of(cell: Cell, cells: Path | None) -> nn.Module:
    """Build a cell's detector, with the weights of its seed before or after training."""
    cfg = get_cfg()
    own = ["MODEL.DEVICE", "cpu", "SEED", str(cell.seed)]
    own += ["MODEL.RETINANET.NUM_CLASSES", str(len(CLASS_NAMES))]
    merge_config(cfg, cell.config, [*cell.options, *own])
    model = build_seeded_model(cfg).eval()
    if cells is not None:
        path = str(weights_of(cells, cell))
        load_weights(model, load_checkpoint(path), path)
    return model


def far_share(model: nn.Module, scene: Scene) -> float:
    """Return the share of |d f / d pixel| that lies beyond the sign's least distance.

    f is the difference of the two classes' logits at the lesion's cell, summed over its anchors.

    Args:
        model: a RetinaNet of two classes.
        scene: one image with one object.
    """
    pixels = np.broadcast_to(scene.image[..., None], (*scene.image.shape[:2], 3))
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    left, top, right, bottom = scene.objects[0].box
    centre = ((left + right) / 2, (top + bottom) / 2)
    batch = model.preprocess_image([{"image": image}]).tensor.requires_grad_()
    level = model.head_in_features[0]
    stride = model.backbone.output_shape()[level].stride
    maps = model.backbone(batch)
    logits = model.head([maps[name] for name in model.head_in_features])[0][0]  # (1, A * 2, H, W)
    here = logits[0, :, int(centre[1] / stride), int(centre[0] / stride)].view(-1, 2)
    (gradient,) = torch.autograd.grad((here[:, 0] - here[:, 1]).sum(), batch)
    return _beyond(gradient[0].abs().sum(dim=0), centre, LEAST_DISTANCE * image.shape[-1])


def _beyond(density: Tensor, centre: tuple[float, float], radius: float) -> float:
    """Return the share of a density (H, W) beyond a radius in pixels around (x, y)."""
    height, width = density.shape
    rows = torch.arange(height)[:, None] + 0.5 - centre[1]
    columns = torch.arange(width) + 0.5 - centre[0]
    far = torch.hypot(rows, columns.expand(height, -1)) >= radius
    return float(density[far].sum() / density.sum())


if __name__ == "__main__":
    main()
