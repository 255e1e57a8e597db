"""What each writer writes is read back: by our readers, by pycocotools, by plain parsers."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from ulga_d2.data.formats.coco import read_coco
from ulga_d2.data.formats.csv_boxes import read_csv
from ulga_d2.data.formats.voc import read_voc
from ulga_d2.data.formats.yolo import read_class_names, read_yolo
from ulga_d2.errors import UserError
from ulga_d2.inference.detections import Category, Detections
from ulga_d2.inference.writers import (
    WRITERS,
    Output,
    OutputNames,
    open_writers,
    save_annotated,
)

CATEGORIES = (Category(3, "ring"), Category(7, 'so, "lid" ö'))
CLASS_NAMES = tuple(category.name for category in CATEGORIES)
# Names that some format could stumble over; all are files of one output tree.
FILES = (
    "a.png",
    "sub/a.png",
    "sub2/a.png",
    "sub/with space, comma.png",
    "sub/quote\"s'.png",
    "sub/zell#3 körper 细胞.png",
    "sub/dots.1.2.png",
    "empty.png",
)
SOURCE = "/secret/DOE^JOHN/1970.dcm"


def detections_of(number: int, size: tuple[int, int], *, masks: bool = False) -> Detections:
    """Return as many detections as the number says, all inside the image."""
    rng = np.random.default_rng(number)
    height, width = size
    start = rng.uniform(0, 0.5, (number, 2)) * (width, height)
    boxes = np.concatenate([start, start + rng.uniform(0.1, 0.5, (number, 2)) * (width, height)], 1)
    scores = np.sort(rng.uniform(0.1, 1, number))[::-1].astype(np.float32)
    return Detections(
        boxes.astype(np.float32).reshape(-1, 4),
        scores,
        rng.integers(0, 2, number),
        CATEGORIES,
        size,
        SOURCE,
        [mask_of(box, size) for box in boxes] if masks else None,
    )


def mask_of(box: np.ndarray, size: tuple[int, int]) -> dict:
    pixels = np.zeros(size, np.uint8, order="F")
    x0, y0, x1, y1 = np.rint(box).astype(int)
    pixels[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = 1
    return {"size": list(size), "counts": run_lengths.encode(pixels)["counts"].decode()}


def images_of(files: Sequence[str], *, masks: bool = False) -> dict[str, Detections]:
    """Return detections by name: none on the last image, sizes that differ."""
    return {
        name: detections_of((3 + i) * (i < len(files) - 1), (60 + 7 * i, 91 + 5 * i), masks=masks)
        for i, name in enumerate(files)
    }


def write(
    out: Path,
    images: dict[str, Detections],
    *kinds: str,
    files: Sequence[str] = (),
    categories: tuple[Category, ...] = CATEGORIES,
) -> Path:
    output = Output(out, categories, {"model_sha256": "ab12"}, OutputNames(files or list(images)))
    writers = open_writers(output, kinds)
    for image_id, (name, found) in enumerate(images.items(), start=11):
        for writer in writers:
            writer.add(image_id, name, found)
    for writer in writers:
        writer.close()
    return out


def write_images(folder: Path, images: dict[str, Detections]) -> Path:
    for name, found in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", found.image_size[::-1], 90).save(path)
    return folder


def assert_same(records: Sequence[dict], images: dict[str, Detections], folder: Path) -> None:
    """Compare records that a reader returns with the detections, to a thousandth of a pixel."""
    by_name = {Path(r["file_name"]).relative_to(folder).as_posix(): r for r in records}
    assert by_name.keys() == images.keys()
    for name, found in images.items():
        record = by_name[name]
        assert (record["height"], record["width"]) == found.image_size
        boxes = np.array([item["bbox"] for item in record["annotations"]]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, found.boxes, atol=2e-3)
        assert [i["category_id"] for i in record["annotations"]] == found.class_ids.tolist()


def test_yolo_labels_are_read_back_and_an_empty_image_has_an_empty_file(tmp_path):
    images = images_of(FILES)
    folder = write_images(tmp_path / "images", images)
    out = write(tmp_path / "out", images, "yolo")
    loaded = read_yolo(folder, out / "labels", out / "data.yaml")
    assert loaded.class_names == CLASS_NAMES and not loaded.report.reasons
    assert_same(loaded.records, images, folder)
    assert (out / "labels/empty.txt").read_text() == ""
    assert (out / "labels/sub/a.txt").read_text() != (out / "labels/sub2/a.txt").read_text()


def test_voc_files_are_read_back_and_have_scores(tmp_path):
    images = images_of(FILES)
    folder = write_images(tmp_path / "images", images)
    out = write(tmp_path / "out", images, "voc")
    loaded = read_voc(out / "annotations", folder, class_names=CLASS_NAMES)
    assert not loaded.report.reasons
    assert_same(loaded.records, images, folder)
    root = ElementTree.parse(out / "annotations/sub/a.xml").getroot()
    assert root.findtext("filename") == "sub/a.png"
    scores = [float(item.findtext("score")) for item in root.iter("object")]
    np.testing.assert_allclose(scores, images["sub/a.png"].scores, atol=1e-6)


@pytest.mark.parametrize("masks", [False, True])
def test_a_coco_dataset_is_read_back_by_us_and_by_pycocotools(tmp_path, masks):
    images = images_of(FILES, masks=masks)
    folder = write_images(tmp_path / "images", images)
    out = write(tmp_path / "out", images, "coco")
    loaded = read_coco(out / "dataset.json", folder)
    assert loaded.class_names == CLASS_NAMES and not loaded.report.reasons
    assert_same(loaded.records, images, folder)
    content = COCO(str(out / "dataset.json"))
    assert sorted(content.cats) == [3, 7]
    assert [content.imgs[key]["file_name"] for key in sorted(content.imgs)] == list(FILES)
    count = sum(map(len, images.values()))
    assert sorted(content.anns) == list(range(1, count + 1))
    for image_id, found in enumerate(images.values(), start=11):
        items = content.loadAnns(content.getAnnIds(imgIds=[image_id]))
        assert [item["score"] for item in items] == pytest.approx(found.scores.tolist(), abs=1e-6)
        for item, mask in zip(items, found.masks or [None] * len(items), strict=True):
            assert item["iscrowd"] == 0
            if mask is None:
                assert item["area"] == pytest.approx(item["bbox"][2] * item["bbox"][3], abs=0.2)
                assert "segmentation" not in item
            else:
                assert item["area"] == content.annToMask(item).sum()
                assert (content.annToMask(item) == run_lengths.decode(mask)).all()
    assert sorted(path.name for path in out.iterdir()) == ["dataset.json"]


def test_coco_results_load_into_the_dataset_and_the_second_file_names_the_images(tmp_path):
    images = images_of(FILES, masks=True)
    out = write(tmp_path / "out", images, "json", "coco")
    results = json.loads((out / "predictions.json").read_text())
    content = COCO(str(out / "dataset.json"))
    assert len(content.loadRes(results).anns) == sum(map(len, images.values()))
    expected = [
        item
        for image_id, found in enumerate(images.values(), start=11)
        for item in found.to_coco(image_id)
    ]
    for ours, exact in zip(results, expected, strict=True):
        assert ours["bbox"] == [round(value, 3) for value in exact["bbox"]]
        assert ours["score"] == round(exact["score"], 6)
        same = ("image_id", "category_id", "segmentation")
        assert [ours[key] for key in same] == [exact[key] for key in same]
    meta = json.loads((out / "predictions_meta.json").read_text())
    assert meta["categories"] == [category._asdict() for category in CATEGORIES]
    assert meta["info"] == {"format": "ulga_d2 predictions 1", "model_sha256": "ab12"}
    assert meta["images"] == [
        {
            "id": number,
            "file_name": name,
            "width": found.image_size[1],
            "height": found.image_size[0],
        }
        for number, (name, found) in enumerate(images.items(), start=11)
    ]


def test_csv_has_a_row_a_detection_that_our_reader_reads(tmp_path):
    images = images_of(FILES)
    folder = write_images(tmp_path / "images", images)
    out = write(tmp_path / "out", images, "csv")
    loaded = read_csv(out / "predictions.csv", folder, CLASS_NAMES)
    assert not loaded.report.reasons
    with_boxes = {name: found for name, found in images.items() if len(found)}
    assert_same(loaded.records, with_boxes, folder)
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [score for found in images.values() for score in found.scores.tolist()]
    assert [float(row["score"]) for row in rows] == pytest.approx(scores, abs=1e-6)
    assert {row["category_id"] for row in rows} == {"3", "7"}


@pytest.mark.parametrize("start", ["=1+1", "+", "-", "@SUM", "'quoted"])
def test_no_cell_of_the_csv_is_a_formula_and_the_text_can_be_restored(tmp_path, start):
    name = f"{start}.png"
    found = detections_of(2, (20, 30))
    categories = (Category(1, f"{start} class"), Category(2, "plain"))
    out = write(tmp_path, {name: found}, "csv", categories=categories)
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, number in zip(rows, found.class_ids, strict=True):
        assert row["file_name"] == f"'{name}"
        assert row["class"] == (f"'{start} class", "plain")[number]


def test_label_studio_tasks_give_the_boxes_in_pixels(tmp_path):
    images = images_of(FILES)
    out = write(tmp_path, images, "label-studio")
    tasks = json.loads((out / "label_studio.json").read_text())
    assert [task["data"]["image"] for task in tasks] == list(FILES)
    for task, found in zip(tasks, images.values(), strict=True):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "ab12"
        boxes, scores, labels, ids = [], [], [], []
        for region in prediction["result"]:
            assert (region["type"], region["from_name"], region["to_name"]) == (
                "rectanglelabels",
                "label",
                "image",
            )
            width, height, value = (
                region["original_width"],
                region["original_height"],
                region["value"],
            )
            assert (height, width) == found.image_size and value["rotation"] == 0
            x, y = value["x"] / 100 * width, value["y"] / 100 * height
            sides = value["width"] / 100 * width, value["height"] / 100 * height
            boxes.append([x, y, x + sides[0], y + sides[1]])
            scores.append(region["score"])
            labels.extend(value["rectanglelabels"])
            ids.append(region["id"])
        np.testing.assert_allclose(np.array(boxes).reshape(-1, 4), found.boxes, atol=1e-3)
        assert scores == pytest.approx(found.scores.tolist(), abs=1e-6)
        assert tuple(labels) == found.class_names and len(set(ids)) == len(ids)
    view = ElementTree.parse(out / "label_studio.xml").getroot()
    assert [label.get("value") for label in view.iter("Label")] == list(CLASS_NAMES)
    assert view.find("RectangleLabels").get("name") == "label"
    assert view.find("Image").get("name") == "image"


def test_nothing_but_the_given_name_says_whose_image_it_is(tmp_path):
    out = write(tmp_path, images_of(FILES), *WRITERS)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 2 * len(FILES)
    for path in files:
        content = path.read_bytes()
        assert b"DOE" not in content and b"1970.dcm" not in content


@pytest.mark.parametrize("kind", WRITERS)
def test_no_image_at_all_gives_files_that_can_be_read(tmp_path, kind):
    out = write(tmp_path, {}, kind)
    for path in out.glob("*.json"):
        json.loads(path.read_text())
    assert not list(out.glob("*.tmp"))


@pytest.mark.parametrize("kind", WRITERS)
def test_memory_does_not_grow_with_the_images(tmp_path, kind):
    names = [f"{number}.png" for number in range(100)]
    writers = open_writers(Output(tmp_path, CATEGORIES, {}, OutputNames(names)), [kind])
    writers[0].add(0, names[0], detections_of(30, (60, 90)))
    tracemalloc.start()
    for number, name in enumerate(names[1:], start=1):
        writers[0].add(number, name, detections_of(30, (60, 90)))
    growth = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    writers[0].close()
    assert growth < 60_000  # the arrays of 3,000 detections alone take 84,000 bytes


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    names = OutputNames(["a.png"])
    writers = open_writers(Output(tmp_path, CATEGORIES, {}, names), ["json", "csv", "coco"])
    for writer in writers:
        writer.add(1, "a.png", detections_of(2, (20, 30)))
    assert all(path.suffix == ".tmp" for path in tmp_path.iterdir())


def test_an_unknown_format_and_a_folder_that_is_a_file_are_refused(tmp_path):
    output = Output(tmp_path / "out", CATEGORIES, {}, OutputNames([]))
    with pytest.raises(UserError, match=r"unknown formats \['pdf'\]; choose from json, csv"):
        open_writers(output, ["json", "pdf"])
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out cannot be written"):
        open_writers(output, ["json"])


def test_files_are_called_by_stem_and_frames_keep_their_number():
    names = OutputNames(["sub/a.png", "sub2/a.png", "sub/stack.tif", "1.2.840.7", "B.JPG"])
    assert names.stem("sub/a.png") == "sub/a" and names.stem("sub2/a.png") == "sub2/a"
    assert names.stem("sub/stack.tif#0003") == "sub/stack#0003"
    assert names.stem("1.2.840.7") == "1.2.840.7" and names.stem("B.JPG") == "B"


@pytest.mark.parametrize(
    "files",
    [
        ["a.png", "a.jpg"],
        ["a.png", "A.jpg"],
        ["a.png", "a.jpg", "a.png.png", "a.png.jpg", "a.png.jpg.png"],
        ["a", "a.png"],
        ["a", "a.png", "a.png.png"],
        ["s.tif", "s#0001.png"],
        ["s.tif", "s.png", "s#0001.png", "s.tif#0001.png", "s.png#0001.png"],
    ],
)
def test_no_two_images_share_a_file_in_any_order(files):
    frames = [f"{file}#000{number}" for file in files for number in (0, 1)]
    stems = {}
    for order in (files, files[::-1]):
        names = OutputNames(order)
        found = {name: names.stem(name) for name in [*files, *frames]}
        assert len({stem.casefold() for stem in found.values()}) == len(found)
        assert not stems or stems == found
        stems = found


def test_images_of_one_stem_keep_their_suffix_in_every_format(tmp_path):
    images = images_of(["a.png", "a.jpg", "b.png"])
    out = write(tmp_path, images, "yolo", "voc")
    assert sorted(p.name for p in (out / "labels").iterdir()) == ["a.jpg.txt", "a.png.txt", "b.txt"]
    assert sorted(p.name for p in (out / "annotations").iterdir()) == [
        "a.jpg.xml",
        "a.png.xml",
        "b.xml",
    ]


def test_frames_of_a_stack_are_written_apart(tmp_path):
    images = images_of(["s.tif#0000", "s.tif#0001", "b.png"])
    out = write(tmp_path, images, *WRITERS, files=["s.tif", "b.png"])
    assert sorted(p.stem for p in (out / "labels").iterdir()) == ["b", "s#0000", "s#0001"]
    root = ElementTree.parse(out / "annotations/s#0001.xml").getroot()
    assert root.findtext("filename") == "s.tif#0001"
    assert read_class_names(out / "data.yaml") == CLASS_NAMES


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("../a.png", "is not a path within"),
        ("/a.png", "is not a path within"),
        ("", "is not a path within"),
        ("a\n.png", "characters that are not text"),
        ("a\udcff.png", "characters that are not text"),
        ("good.png", "two images have the name"),
    ],
)
def test_names_that_no_file_can_hold_are_refused(file, message):
    with pytest.raises(UserError, match=message):
        OutputNames(["good.png", file])


def test_annotated_images_are_png_when_small_and_jpeg_when_large(tmp_path):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (60, 91, 3)).astype(np.uint8)
    found = detections_of(1, (60, 91))
    path = save_annotated(tmp_path / "images/sub/a.b", small, found)
    assert path == tmp_path / "images/sub/a.b.png"
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert picture.shape == small.shape and (picture != small).any()
    untouched = save_annotated(tmp_path / "plain", small, detections_of(0, (60, 91)))
    plain = cv2.cvtColor(cv2.imread(str(untouched)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(plain, small)
    large = np.full((1500, 3000, 3), 100, np.float32)
    path = save_annotated(tmp_path / "images/sub/large", large, detections_of(2, (1500, 3000)))
    assert path == tmp_path / "images/sub/large.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and picture.size == (2000, 1000)
