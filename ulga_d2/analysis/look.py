"""Look into a detector while it looks at an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ..layers.deformable_attention import DeformableAttention
from .receptive_field import receptive_fields
from .record import BlockRecord, attention_rows, recorded, sampled_points
from .similarity import map_entropy
from .view import BlockView, View

SHOWN = 5  # detections
FOLLOWED = 2  # detections whose centres become queries
LEVELS = ("p3", "p4", "p5")
GRID = 16  # places a side among which that of the background is chosen
INNER = 0.25  # of the image, that no such place lies in, on each side


def look(
    detector: nn.Module, image: Tensor, *, name: str, class_names: Sequence[str], score: float
) -> View:
    """Run a detector on an image and return what was seen inside it.

    The queries are the centres of the best detections and one place of the background: of an even
    grid over the middle half of the image, the place farthest from all detections that are shown.

    Args:
        detector: detectron2's RetinaNet or R-CNN with one of our backbones, in evaluation mode.
        image: (3, H, W) RGB in 0..255, as at test time.
        name: of the detector.
        class_names: in the order of its outputs.
        score: least of a detection that is shown.
    """
    with torch.no_grad():
        batch = detector.preprocess_image([{"image": image}]).tensor  # normalised and padded
        with recorded(detector.backbone.bottom_up) as blocks:
            features = detector.backbone(batch)
        found = detector([{"image": image}])[0]["instances"]
    found = found[found.scores >= score][:SHOWN]
    levels = [level for level in LEVELS if level in features]
    queries = _queries(found, batch.shape[2:])
    return View(
        name=name,
        image=_seen_image(detector, batch),
        boxes=found.pred_boxes.tensor.cpu().numpy(),
        scores=found.scores.cpu().numpy(),
        labels=tuple(class_names[number] for number in found.pred_classes.tolist()),
        queries=queries,
        blocks=tuple(_view(block, queries, batch.shape[2]) for block in blocks),
        levels={level: features[level][0].permute(1, 2, 0).cpu().numpy() for level in levels},
        fields=receptive_fields(detector.backbone, batch, levels),
    )


def _seen_image(detector: nn.Module, batch: Tensor) -> np.ndarray:
    """Return the image with its padding, which is of the mean colour, in 0..255."""
    pixels = batch[0] * detector.pixel_std + detector.pixel_mean
    return pixels.permute(1, 2, 0).cpu().numpy()


def _queries(found: Instances, size: Sequence[int]) -> np.ndarray:
    """Return (Q, 2), places (x, y) in pixels; the last one is of the background."""
    boxes = found.pred_boxes.tensor.cpu().numpy()
    height, width = size
    centres = (boxes[:FOLLOWED, :2] + boxes[:FOLLOWED, 2:]) / 2
    line = np.linspace(INNER, 1 - INNER, GRID)
    grid = np.stack(np.meshgrid(line * width, line * height), axis=-1).reshape(-1, 2)
    outside = np.maximum(boxes[:, None, :2] - grid, grid - boxes[:, None, 2:]).clip(min=0)
    distance = np.hypot(*np.moveaxis(outside, -1, 0)).min(axis=0, initial=np.inf)
    places = np.concatenate([centres, grid[[distance.argmax()]]])
    return places.clip(0, [width - 1, height - 1])


def _view(record: BlockRecord, queries: np.ndarray, height: int) -> BlockView:
    """Return what is shown of a block, of an image of `height` pixels."""
    rows = record.tokens["out"].shape[1]
    stride = round(height / rows)
    view = {"name": record.name, "stride": stride, "similarity": record.similarity()}
    if record.concepts is not None:
        forward, backward = record.concepts
        maps = backward[0].t().unflatten(-1, record.tokens["out"].shape[1:3])  # (K, H, W)
        view |= {"concept_maps": maps.cpu().numpy(), "concept_entropy": map_entropy(forward[0])}
    attn, x = record.block.attn, record.tokens["attention"]
    if isinstance(attn, DeformableAttention):
        points, lengths = sampled_points(attn, x)
        points = np.tile(points.cpu().numpy() * stride, (len(queries), 1, 1))
        return BlockView(
            **view, points=points, offsets=(float(lengths.mean()), float(lengths.std()))
        )
    last = torch.tensor(x.shape[1:3]) - 1
    cells = torch.minimum(torch.from_numpy(queries[:, ::-1] // stride).long(), last)
    return BlockView(**view, attention=attention_rows(attn, x, cells).cpu().numpy())
