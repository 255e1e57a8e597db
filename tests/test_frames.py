"""One of several frames or pages: chosen by INPUT.FRAME, counted in the report, else refused."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import CONFIGS, tiny_options
from dicom_files import dicom_of
from PIL import Image

from ulga_d2 import get_cfg
from ulga_d2.config import merge_config, merge_options
from ulga_d2.data.formats.yolo import read_yolo_labels
from ulga_d2.data.image import choose_frames, count_frames, image_size, read_image
from ulga_d2.data.mapper import DetectionMapper
from ulga_d2.data.mapper import test_augmentations as evaluation_augmentations
from ulga_d2.engine.datasets import load_run_data
from ulga_d2.errors import UserError
from ulga_d2.inference.inputs import open_input
from ulga_d2.inference.preprocess import InferenceMapper, Preprocessing
from ulga_d2.values import check_values

pytestmark = pytest.mark.usefixtures("catalogs")

RNG = np.random.default_rng(0)
PAGES = RNG.integers(0, 256, (5, 40, 60), np.uint8)


def write_stack(path, pages=PAGES) -> str:
    first, *others = map(Image.fromarray, pages)
    first.save(path, save_all=True, append_images=others)
    return str(path)


def write_dataset(root, write) -> str:
    """Write three YOLO images by `write`, and the YAML of the dataset."""
    for kind in ("images", "labels"):
        (root / kind).mkdir()
    for number in range(3):
        write(root / "images" / f"{number}.tif")
        (root / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    splits = "{train: {images: images, labels: labels}, val: {images: images, labels: labels}}"
    text = f"name: stacks\nformat: yolo\nroot: .\nclass_names: [cell]\nsplits: {splits}\n"
    (root / "set.yaml").write_text(text)
    return str(root / "set.yaml")


def config_of(file: str, **changes):
    cfg = get_cfg()
    merge_options(cfg, tiny_options("unused", DATASETS__CUSTOM=file, **changes))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("stacks_train",), ("stacks_val",)
    return cfg


def test_a_stack_is_refused_in_training_and_evaluation_until_a_page_is_chosen(tmp_path):
    file = write_dataset(tmp_path, write_stack)
    message = r"0\.tif has 5 frames or pages, and none is chosen; set INPUT\.FRAME .* 0 to 4"
    for with_training in (True, False):
        with pytest.raises(UserError, match=message):
            load_run_data(config_of(file), with_training=with_training)
    data = load_run_data(config_of(file, INPUT__FRAME=3), with_training=True)
    record = data.train[0]
    expected = np.repeat(PAGES[3][..., None], 3, 2)
    shown = DetectionMapper(evaluation_augmentations(60))(record)["image"]
    np.testing.assert_array_equal(shown.permute(1, 2, 0).numpy(), expected)
    views = InferenceMapper(Preprocessing(60))(data.test["stacks_val"][0])["views"]
    np.testing.assert_array_equal(views[0].image.permute(1, 2, 0).numpy(), expected)


def test_prediction_takes_every_page_whatever_the_key(tmp_path):
    path = write_stack(tmp_path / "a.tif")
    found = list(open_input(path, Preprocessing(60)))
    assert [image.source for image in found] == [f"{path}#{number:04d}" for number in range(5)]
    for page, image in zip(PAGES, found, strict=True):
        np.testing.assert_array_equal(image.read()[..., 0], page)


def test_files_of_one_frame_take_no_notice_of_the_key(tmp_path):
    file = write_dataset(tmp_path, lambda path: write_stack(path, PAGES[:1]))
    data = load_run_data(config_of(file, INPUT__FRAME=3), with_training=True)
    shown = DetectionMapper(evaluation_augmentations(60))(data.train[0])["image"]
    np.testing.assert_array_equal(shown[0].numpy(), PAGES[0])


def test_files_with_several_frames_are_counted_also_when_sizes_come_from_the_cache(tmp_path):
    write_dataset(tmp_path, write_stack)
    for _ in range(2):
        loaded = read_yolo_labels(tmp_path / "images", tmp_path / "labels", ("cell",))
        assert loaded.report.reasons["files with several frames or pages"] == 3
        assert [record["frames"] for record in loaded.records] == [5, 5, 5]


def test_a_frame_beyond_the_last_is_an_error_that_names_the_file(tmp_path):
    file = write_dataset(tmp_path, write_stack)
    with pytest.raises(UserError, match=r"0\.tif has 5 frames, and no frame 5"):
        load_run_data(config_of(file, INPUT__FRAME=5), with_training=True)


@pytest.mark.parametrize("value", ["-1", "1.5", "True", "first"])
def test_impossible_frames_are_refused(value):
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml"), ["INPUT.FRAME", "0"])
    check_values(cfg)
    with pytest.raises(UserError, match=r"INPUT\.FRAME"):
        merge_options(cfg, ["INPUT.FRAME", value])
        check_values(cfg)


def test_a_page_of_another_size_than_the_first_is_refused(tmp_path):
    path = write_stack(tmp_path / "a.tif", [PAGES[0], PAGES[1][:20]])
    record = {"file_name": path, "height": 40, "width": 60, "frames": 2, "annotations": []}
    assert choose_frames([record], 0) == [{**record, "frame": 0}]
    with pytest.raises(UserError, match="frame 1 has 60 x 20 pixels, and the first has 60 x 40"):
        choose_frames([record], 1)


def test_frames_of_dicom_are_chosen_in_the_same_way(tmp_path):
    dataset = dicom_of(PAGES[0], NumberOfFrames=5)
    dataset.PixelData = PAGES.tobytes()
    path = str(tmp_path / "many.dcm")
    dataset.save_as(path, enforce_file_format=True)
    assert image_size(path) == (40, 60)
    np.testing.assert_array_equal(read_image(path, frame=2)[..., 0], PAGES[2])
    with pytest.raises(UserError, match=r"has 5 frames or pages, and none is chosen"):
        read_image(path)


def test_smaller_copies_and_masks_are_no_pages(tmp_path):
    first, copy, mask, second = (Image.fromarray(page) for page in PAGES[:4])
    images = []
    for image, subfile in ((first, 0), (copy.resize((30, 20)), 1), (mask, 4), (second, 2)):
        image.encoderinfo = {"tiffinfo": {254: subfile}}
        images.append(image)
    path = str(tmp_path / "pyramid.tif")
    first.save(path, save_all=True, append_images=images[1:], tiffinfo={254: 0})
    assert count_frames(path) == 2
    np.testing.assert_array_equal(read_image(path, frame=1)[..., 0], PAGES[3])


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_are_refused_by_name_and_single_frames_read(tmp_path, suffix):
    moving, still = tmp_path / f"moving.{suffix}", tmp_path / f"still.{suffix}"
    first, *others = map(Image.fromarray, PAGES)
    first.save(moving, save_all=True, append_images=others, lossless=True)
    first.save(still, lossless=True)
    np.testing.assert_array_equal(read_image(str(still))[..., 0], PAGES[0])
    for read in (read_image, image_size, count_frames):
        with pytest.raises(UserError, match=rf"moving\.{suffix} is an animated {suffix.upper()}"):
            read(str(moving))
