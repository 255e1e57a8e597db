"""Views of an image through a model and back: whole images, tiles, test-time augmentation.

The model here finds bright blobs exactly, so what is cut, moved or doubled is the detector's doing.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import tiny_args
from detectron2.structures import Boxes, Instances
from torch import nn

from ulga_d2 import Predictor
from ulga_d2.engine.launch import main, setup
from ulga_d2.inference.detector import Detector
from ulga_d2.inference.load import INFERENCE_CHECKPOINT, INFERENCE_FOLDER
from ulga_d2.inference.preprocess import Augmentation, Preprocessing, Tiling
from ulga_d2.inference.views import View

SIDE = 256


class BlobModel(nn.Module):
    """Finds connected bright pixels; the class is the channel, the score the brightness."""

    device = torch.device("cpu")

    def forward(self, inputs: list[dict]) -> list[dict]:
        return [{"instances": self.find(**item)} for item in inputs]

    def find(self, image: torch.Tensor, height: int, width: int) -> Instances:
        rows, scores, classes = [], [], []
        for channel, plane in enumerate(image.float().numpy()):
            mask = (plane > 100).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
            for label in range(1, len(stats)):
                x, y, w, h, _ = stats[label]
                rows.append([x, y, x + w, y + h])
                scores.append(float(plane[y : y + h, x : x + w].max()) / 255)
                classes.append(channel)
        scale = torch.tensor([width / image.shape[2], height / image.shape[1]] * 2)
        instances = Instances((height, width))
        instances.pred_boxes = Boxes(torch.tensor(rows).reshape(-1, 4).float() * scale)
        instances.scores = torch.tensor(scores)
        instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
        return instances[instances.scores.argsort(descending=True)]


def detect(image: np.ndarray, preprocessing: Preprocessing, limit: int = 3000) -> Instances:
    detector = Detector(BlobModel(), batch_size=8, nms_threshold=0.5, max_detections=limit)
    item = {"views": preprocessing.views(image), "height": len(image), "width": image.shape[1]}
    (output,) = detector([item])
    return output["instances"]


def cells(height: int, width: int, count: int, side: int = 20, seed: int = 0) -> tuple:
    """Return an image with discs of a side that do not touch, and their boxes."""
    generator = np.random.default_rng(seed)
    planes = [np.zeros((height, width), np.uint8) for _ in range(3)]
    taken = np.zeros((height, width), bool)
    boxes = []
    while len(boxes) < count:
        x, y = generator.integers(2, [width - side - 2, height - side - 2])
        if taken[y - 2 : y + side + 2, x - 2 : x + side + 2].any():
            continue
        taken[y : y + side, x : x + side] = True
        centre = (int(x) + side // 2, int(y) + side // 2)
        brightness = int(generator.integers(160, 255))
        cv2.circle(planes[generator.integers(3)], centre, side // 2 - 1, brightness, -1)
        boxes.append([x + 1, y + 1, x + side, y + side])
    return np.stack(planes, axis=2), np.array(boxes, float)


def ious(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (found, truth)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def recall_and_duplicates(found: Instances, truth: np.ndarray) -> tuple[float, float]:
    table = ious(found.pred_boxes.tensor.numpy(), truth) >= 0.5
    return table.any(0).mean(), (table.sum(0) > 1).mean()


def test_an_image_no_larger_than_a_tile_gives_the_untiled_result_bit_for_bit():
    image, _ = cells(200, 300, 20)
    plain = detect(image, Preprocessing(SIDE))
    tiled = detect(image, Preprocessing(SIDE, tiling=Tiling(300)))
    assert torch.equal(plain.pred_boxes.tensor, tiled.pred_boxes.tensor)
    assert torch.equal(plain.scores, tiled.scores)


@pytest.mark.parametrize("with_whole", [False, True])
def test_a_large_micrograph_keeps_the_recall_of_tiles_cut_by_hand(with_whole):
    image, truth = cells(3000, 4000, 900)
    preprocessing = Preprocessing(SIDE, tiling=Tiling(SIDE, 0.2, with_whole))
    recall, duplicates = recall_and_duplicates(detect(image, preprocessing), truth)
    by_hand = 0
    for y in range(0, 3000, SIDE):
        for x in range(0, 4000, SIDE):
            tile = image[y : y + SIDE, x : x + SIDE]
            inside = (truth >= [x, y, x, y]).all(1)
            inside &= (truth <= [x + SIDE, y + SIDE, x + SIDE, y + SIDE]).all(1)
            own = truth[inside] - [x, y, x, y]
            if len(own):
                found = detect(tile, Preprocessing(max(tile.shape[:2])))
                by_hand += recall_and_duplicates(found, own)[0] * len(own)
    whole_inside = by_hand / len(truth)  # of all objects: those that a cut spares
    assert recall >= 0.95 * whole_inside and recall >= 0.99
    assert duplicates <= 0.01


def test_shifting_by_a_stride_shifts_the_boxes_by_it():
    image, _ = cells(1024, 1434, 150)
    stride = round(SIDE * 0.8)
    tiling = Preprocessing(SIDE, tiling=Tiling(SIDE))
    shifted = np.zeros((1024, 1434, 3), np.uint8)
    shifted[:, stride:] = image[:, :-stride]
    first, second = (detect(one, tiling).pred_boxes.tensor.numpy() for one in (image, shifted))
    # Where both tilings agree: away from the tiles that are moved inside, and from the old edge.
    inner = first[(first[:, 2] < 1434 - 2 * SIDE) & (first[:, 0] > SIDE)]
    moved = inner + [stride, 0, stride, 0]
    nearest = np.abs(second[None] - moved[:, None]).max(-1).min(1)
    assert len(inner) > 50 and nearest.max() < 1e-3


@pytest.mark.parametrize("flip", [False, True])
def test_views_of_an_augmentation_come_back_to_their_places(flip):
    image, truth = cells(256, 200, 12, side=30)
    augmentation = Augmentation(min_sizes=(150, 200), max_size=256, flip=flip)
    found = detect(image, Preprocessing(SIDE, augmentation=augmentation))
    assert len(found) == len(truth)
    assert ious(found.pred_boxes.tensor.numpy(), truth).max(0).min() > 0.85
    views = Preprocessing(SIDE, augmentation=augmentation).views(image)
    assert len(views) == (4 if flip else 2)
    assert max(max(view.image.shape[1:]) for view in views) <= SIDE


def test_sizes_that_the_square_does_not_allow_come_once():
    augmentation = Augmentation(min_sizes=(400, 500, 600), max_size=4000, flip=False)
    (view,) = Preprocessing(SIDE, augmentation=augmentation).views(
        np.zeros((100, 200, 3), np.uint8)
    )
    (plain,) = Preprocessing(SIDE).views(np.zeros((100, 200, 3), np.uint8))
    assert view.image.shape == plain.image.shape


def test_masks_of_tiles_lie_where_their_boxes_are():
    from pycocotools import mask as run_lengths

    class Masked(BlobModel):
        def find(self, image, height, width):
            instances = super().find(image, height, width)
            masks = torch.zeros(len(instances), height, width, dtype=torch.bool)
            for number, (x0, y0, x1, y1) in enumerate(instances.pred_boxes.tensor.int().tolist()):
                masks[number, y0:y1, x0:x1] = True
            instances.pred_masks = masks
            return instances

    image, truth = cells(300, 600, 40)
    views = Preprocessing(SIDE, tiling=Tiling(SIDE)).views(image)
    detector = Detector(Masked(), nms_threshold=0.5, max_detections=100)
    found = detector([{"views": views, "height": 300, "width": 600}])[0]["instances"]
    assert len(found) == len(truth)
    for box, mask in zip(found.pred_boxes.tensor.tolist(), found.pred_masks_rle, strict=True):
        x, y, width, height = run_lengths.toBbox(mask)
        assert np.abs(np.array(box) - [x, y, x + width, y + height]).max() < 1e-6


def test_a_run_with_tiles_is_scored_in_pixels_of_the_whole_image(tmp_path, sample_data):
    changes = {"INPUT__TILE__SIDE": 48, "MODEL__RETINANET__SCORE_THRESH_TEST": "0.005"}
    main(tiny_args(tmp_path, **changes))
    cfg, data, _ = setup(tiny_args(tmp_path, resume=True, **changes))
    predictor = Predictor(tmp_path / INFERENCE_FOLDER / INFERENCE_CHECKPOINT)
    assert predictor.preprocessing.tiling == Tiling(48, cfg.INPUT.TILE.OVERLAP)
    widest = 0.0
    for record in data.test["brain_tumor_val"]:
        found = predictor(record["file_name"])
        widest = max(widest, float(found.boxes[:, 2].max(initial=0)))
    assert widest > 48  # beyond the first tile
    untiled = Predictor(tmp_path, tile=0)
    assert untiled.preprocessing == replace(predictor.preprocessing, tiling=None)


def test_flipped_views_mirror_their_boxes_and_masks():
    from ulga_d2.inference.detector import to_raw

    instances = Instances((20, 40))
    instances.pred_boxes = Boxes(torch.tensor([[2.0, 3, 10, 8]]))
    instances.scores, instances.pred_classes = torch.tensor([0.5]), torch.tensor([0])
    found = to_raw(instances, View(torch.empty(0), (100, 50, 140, 70), True), (200, 300))
    assert found.boxes.tolist() == [[130.0, 53.0, 138.0, 58.0]]
