"""The mapper: boxes follow the pixels, and numpy's generator is all its randomness."""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_files import (
    write_image,
)
from detectron2.structures import BoxMode
from pycocotools import mask as run_lengths

from ulga_d2.data.image import image_size, read_image
from ulga_d2.data.intensity import Intensity
from ulga_d2.data.mapper import DetectionMapper, training_augmentations
from ulga_d2.data.mapper import test_augmentations as evaluation_augmentations
from ulga_d2.errors import UserError
from ulga_d2.inference.preprocess import InferenceMapper, Preprocessing


def record_of(path: Path, boxes: list[list[float]], **changes: object) -> dict:
    height, width = image_size(str(path))
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": number, "iscrowd": 0}
        for number, box in enumerate(boxes)
    ]
    record = {"file_name": str(path), "image_id": 5, "height": height, "width": width}
    return record | {"annotations": annotations} | changes


@pytest.fixture(params=["uint8", "uint16"])
def marked_image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a black 90 x 60 image with a white rectangle at (30, 20, 60, 35)."""
    pixels = np.zeros((60, 90), request.param)
    pixels[20:35, 30:60] = np.iinfo(request.param).max
    path = tmp_path / "marked.png"
    cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_boxes_follow_the_pixels_through_scale_flip_and_crop(marked_image, flip):
    record = record_of(marked_image, [[30, 20, 60, 35]])
    mapper = DetectionMapper(training_augmentations(64, (0.5, 1.6), flip))
    seen = set()
    for seed in range(25):
        np.random.seed(seed)
        mapped = mapper(record)
        image = mapped["image"]
        assert image.shape[0] == 3 and max(image.shape[1:]) <= 64
        bright = (image[0].float() > 127).numpy()
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        (box,) = mapped["instances"].gt_boxes.tensor.numpy()
        assert np.abs(box - found).max() <= 1
        assert mapped["instances"].image_size == tuple(image.shape[1:])
        seen.add(tuple(found))
    assert len(seen) > 20


def test_float_images_stay_float_and_8_bits_stay_8_bits(marked_image):
    mapped = DetectionMapper(evaluation_augmentations(64))(record_of(marked_image, []))
    deep = read_image(str(marked_image)).dtype == np.float32
    assert mapped["image"].dtype == (torch.float32 if deep else torch.uint8)
    assert float(mapped["image"].max()) == pytest.approx(255, abs=0.01)


def test_a_window_reaches_the_network(marked_image):
    top = np.iinfo(cv2.imread(str(marked_image), cv2.IMREAD_UNCHANGED).dtype).max
    window = Intensity("window", -float(top), float(top))
    mapper = DetectionMapper(evaluation_augmentations(90), intensity=window)
    image = mapper(record_of(marked_image, []))["image"]
    assert set(np.round(np.unique(image.numpy()), 1)) == {127.5, 255.0}


def test_both_depths_are_resized_alike(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80), np.uint8)
    images = []
    for name, stored in (("a.png", pixels), ("b.png", pixels.astype(np.uint16) * 257)):
        cv2.imwrite(str(tmp_path / name), stored)
        mapper = DetectionMapper(evaluation_augmentations(33))
        images.append(mapper(record_of(tmp_path / name, []))["image"].float())
    assert float((images[0] - images[1]).abs().max()) <= 0.51


def test_evaluation_keeps_the_original_size_beside_the_resized_image(marked_image):
    mapped = InferenceMapper(Preprocessing(64))(record_of(marked_image, [[30, 20, 60, 35]]))
    (view,) = mapped["views"]
    assert view.image.shape == (3, 43, 64) and view.region == (0, 0, 90, 60)
    assert {key: mapped[key] for key in ("height", "width", "image_id")} == {
        "height": 60,
        "width": 90,
        "image_id": 5,
    }
    assert mapped["file_name"] == str(marked_image) and "instances" not in mapped


def test_equal_seeds_give_equal_results_and_the_record_stays(marked_image):
    record = record_of(marked_image, [[30, 20, 60, 35], [0, 0, 9, 9]])
    before = copy.deepcopy(record)
    mapper = DetectionMapper(training_augmentations(48, (0.8, 1.25), "horizontal"))

    def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        np.random.seed(seed)
        torch.manual_seed(np.random.SeedSequence().entropy % 2**32)
        mapped = mapper(record)
        return mapped["image"], mapped["instances"].gt_boxes.tensor

    for seed in range(5):
        (image, boxes), (again, boxes_again) = draw(seed), draw(seed)
        assert torch.equal(image, again) and torch.equal(boxes, boxes_again)
    assert record == before


def test_boxes_that_a_crop_removes_are_removed(tmp_path):
    write_image(tmp_path / "a.png", 200, 50)
    # Scaled by 1 and cropped to 50 x 50 at a random place: at most one of the two corners is seen.
    record = record_of(tmp_path / "a.png", [[0, 0, 20, 20], [180, 30, 200, 50]])
    crop = training_augmentations(50, (4.0, 4.0), "none")
    mapper = DetectionMapper(crop)
    classes = set()
    for seed in range(40):
        np.random.seed(seed)
        instances = mapper(record)["instances"]
        boxes = instances.gt_boxes.tensor
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides >= 1).all() and (sides.prod(1) >= 0.2 * 400).all()
        classes.add(tuple(instances.gt_classes.tolist()))
    assert classes == {(), (0,), (1,)}


@pytest.mark.parametrize("iscrowd", [0, 1])
def test_empty_images_and_crowds_give_empty_instances(marked_image, iscrowd):
    record = record_of(marked_image, [[1, 1, 9, 9]] * iscrowd)
    for annotation in record["annotations"]:
        annotation["iscrowd"] = 1
    mapper = DetectionMapper(training_augmentations(48, (0.8, 1.25), "none"))
    instances = mapper(record)["instances"]
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.dtype == torch.int64


def test_an_image_that_changed_since_loading_is_named(marked_image):
    record = record_of(marked_image, [], width=91)
    message = r"marked\.png has height and width \(60, 90\), but had"
    with pytest.raises(UserError, match=message):
        DetectionMapper(evaluation_augmentations(48))(record)
    with pytest.raises(UserError, match=message):
        raise InferenceMapper(Preprocessing(48))(record)


def with_mask(record: dict, segmentation: object) -> dict:
    record["annotations"][0]["segmentation"] = segmentation
    return record


def rectangle_mask() -> np.ndarray:
    mask = np.zeros((60, 90), np.uint8)
    mask[20:35, 30:60] = 1
    return mask


def rle_of(mask: np.ndarray) -> dict:
    return run_lengths.encode(np.asfortranarray(mask))


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
@pytest.mark.parametrize("as_polygon", [False, True])
def test_masks_follow_the_pixels_like_their_boxes(marked_image, flip, as_polygon):
    polygon = [[30.0, 20.0, 60.0, 20.0, 60.0, 35.0, 30.0, 35.0]]
    record = record_of(marked_image, [[30, 20, 60, 35]])
    record = with_mask(record, polygon if as_polygon else rle_of(rectangle_mask()))
    augmentations = training_augmentations(64, (0.5, 1.6), flip)
    mapper = DetectionMapper(augmentations, with_masks=True)
    for seed in range(10):
        np.random.seed(seed)
        mapped = mapper(record)
        (mask,) = mapped["instances"].gt_masks.tensor
        bright = mapped["image"][0].float() > 127
        assert mask.dtype == torch.bool and mask.shape == bright.shape
        # At most the object's outline differs, by the rounding of its edge.
        assert (mask ^ bright).sum() <= 2 * sum(mask.nonzero().amax(0) - mask.nonzero().amin(0) + 2)


def test_a_mask_goes_with_its_box_when_a_crop_removes_it(tmp_path):
    write_image(tmp_path / "a.png", 200, 50)
    record = record_of(tmp_path / "a.png", [[0, 0, 20, 20], [180, 30, 200, 50]])
    for annotation in record["annotations"]:
        mask = np.zeros((50, 200), np.uint8)
        x0, y0, x1, y1 = annotation["bbox"]
        mask[y0:y1, x0:x1] = 1
        annotation["segmentation"] = rle_of(mask)
    crop = training_augmentations(50, (4.0, 4.0), "none")
    mapper = DetectionMapper(crop, with_masks=True)
    for seed in range(20):
        np.random.seed(seed)
        instances = mapper(record)["instances"]
        masks = instances.gt_masks.tensor
        assert masks.shape == (len(instances), 50, 50)
        boxes = instances.gt_masks.get_bounding_boxes().tensor
        assert torch.equal(boxes, instances.gt_boxes.tensor)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [(None, "a box without a mask; set MODEL.MASK_ON"), ((9, 9), r"but a mask of \(9, 9\)")],
)
def test_masks_that_are_missing_or_of_another_image_are_named(marked_image, segmentation, message):
    record = record_of(marked_image, [[30, 20, 60, 35]])
    if segmentation:
        record = with_mask(record, rle_of(np.ones(segmentation, np.uint8)))
    mapper = DetectionMapper(evaluation_augmentations(64), with_masks=True)
    with pytest.raises(UserError, match=rf"marked\.png has .*{message}"):
        mapper(record)
