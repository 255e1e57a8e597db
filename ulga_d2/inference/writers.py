"""The files that hold the detections of many images, each in the format of a tool.

Images are added one by one, and memory does not grow with them. Files name an image as the caller
does ("sub/a.png", "sub/stack.tif#0003"), and hold nothing else about it than its size.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from xml.etree import ElementTree

import cv2
import numpy as np

from ..data.formats.files import READABLE_SUFFIXES
from ..data.formats.write_coco import coco_annotation, coco_categories, coco_image
from ..data.formats.write_voc import write_voc_file
from ..data.formats.write_yolo import write_yolo_classes, write_yolo_label
from ..drawing.detections import draw_detections, reduce_for_viewing
from ..errors import UserError
from ..evaluation.atomic import unfinished_path, write_atomically
from ..evaluation.saved import JsonList, ResultFiles
from .detections import Category, Detections

BOX_DECIMALS = 3  # of a pixel
SCORE_DECIMALS = 6
PERCENT_DECIMALS = 7  # a thousandth of a pixel in an image of 10,000
JPEG_FROM = 1_000_000  # pixels; larger pictures become JPEG
JPEG_QUALITY = 92
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")
# What the writers make in their folder.
FILE_NAMES = (
    "predictions.json",
    "predictions_meta.json",
    "predictions.csv",
    "labels",
    "data.yaml",
    "annotations",
    "dataset.json",
    "dataset_images.json",
    "label_studio.json",
    "label_studio.xml",
)
SUFFIXES_BY_IMAGE = (".png", ".jpg", ".txt", ".xml")  # of files that there is one an image of
CSV_COLUMNS = (
    "file_name",
    "image_width",
    "image_height",
    "class",
    "category_id",
    "score",
    "xmin",
    "ymin",
    "xmax",
    "ymax",
)


class ResultWriter(Protocol):
    """Writes the detections of many images; images are added in the order of the files."""

    def add(self, image_id: int, name: str, detections: Detections) -> None:
        """Write the detections of an image.

        Args:
            image_id: unique.
            name: of the image in the files, one of those that the writer was opened for.
            detections: of the image.
        """

    def close(self) -> None:
        """Complete the files; until then they have another name or miss their end."""


class OutputNames:
    """How the files of an image are called, whatever its format: "sub/a" for "sub/a.png".

    The suffix goes, and a frame's number stays: "sub/stack#0003" for "sub/stack.tif#0003". Two
    images never get one name: images that would, such as "a.png" and "a.jpg" of one folder, keep
    their whole names, and so does "a.jpg" beside a folder "a.png". Upper and lower case count as
    the same, since some file systems do so.

    Args:
        files: names of all images of the output tree, whole files without numbers of frames; on
            several processes, the names of all of them. Their order does not matter.

    Raises:
        UserError: a name is empty, stands twice, leads out of the output folder, or holds
            characters that a text file cannot hold.
    """

    def __init__(self, files: Sequence[str]) -> None:
        _check_names(files)
        stems = {file: _without_suffix(file) for file in files}
        counts = Counter(_key(stem) for stem in stems.values())
        whole = {_key(file) for file in files}
        folders = {_key(str(parent)) for file in files for parent in PurePosixPath(file).parents}
        self._stems = {}
        for file, stem in stems.items():
            # The whole name of one file may be the stem of another, or of a frame of another.
            parent, _, frame = _key(stem).rpartition("#")
            is_shared = counts[_key(stem)] > 1 or (stem != file and _key(stem) in whole)
            is_like_frame = frame.isdecimal() and (parent in counts or parent in whole)
            is_like_folder = any(f"{_key(stem)}{suffix}" in folders for suffix in SUFFIXES_BY_IMAGE)
            is_usable = not (is_shared or is_like_frame or is_like_folder)
            self._stems[file] = stem if is_usable else file

    def stem(self, name: str) -> str:
        """Return the path of an image's files in the output tree, without their suffix.

        Args:
            name: of a file, or of a frame: the file's with "#0003" behind it.

        Raises:
            KeyError: no file of this name.
        """
        if name in self._stems:
            return self._stems[name]
        file, _, frame = name.rpartition("#")
        return f"{self._stems[file]}#{frame}"


@dataclass(frozen=True)
class Output:
    """What all writers of one run share.

    Attributes:
        folder: that gets the files.
        categories: all classes of the detector.
        info: settings that the detections depend on, for `predictions_meta.json`.
        names: of the files of each image.
    """

    folder: Path
    categories: Sequence[Category]
    info: Mapping[str, Any]
    names: OutputNames

    @property
    def class_names(self) -> list[str]:
        """Names by class number."""
        return [category.name for category in self.categories]


def open_writers(output: Output, kinds: Sequence[str]) -> list[ResultWriter]:
    """Open the files of some formats, in a folder that is made where it is missing.

    Args:
        output: where to write, and what about.
        kinds: keys of WRITERS.

    Raises:
        UserError: an unknown kind, or a folder that cannot be written.
    """
    unknown = [kind for kind in kinds if kind not in WRITERS]
    if unknown:
        raise UserError(f"unknown formats {unknown}; choose from {', '.join(WRITERS)}")
    try:
        output.folder.mkdir(parents=True, exist_ok=True)
        return [WRITERS[kind](output) for kind in dict.fromkeys(kinds)]
    except OSError as error:
        raise UserError(f"{output.folder} cannot be written: {error.strerror or error}") from None


def save_annotated(path: Path, image: np.ndarray, detections: Detections) -> Path:
    """Write an image with its detections drawn on it, at most 2,000 pixels long.

    Args:
        path: of the file without its suffix: the folder of annotated images, then
            `OutputNames.stem`. The file gets ".jpg" (quality 92) where the picture has more than a
            million pixels, else ".png".
        image: (H, W, 3) RGB, uint8 or float in 0..255.
        detections: of the image.

    Returns:
        the path of the file.
    """
    picture = draw_detections(reduce_for_viewing(image), detections)
    suffix, options = ".png", []
    if picture.shape[0] * picture.shape[1] > JPEG_FROM:
        suffix, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    write_atomically(f"{path}{suffix}", data)
    return Path(f"{path}{suffix}")


def _check_names(files: Sequence[str]) -> None:
    for file, count in Counter(files).items():
        path = PurePosixPath(file)
        if count > 1:
            raise UserError(f"two images have the name {file!r}; rename one")
        if not path.name or path.is_absolute() or ".." in path.parts:
            raise UserError(f"{file!r} is not a path within the output folder")
        if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in file):
            raise UserError(f"{file!r} holds characters that are not text; rename the file")


def _without_suffix(file: str) -> str:
    suffix = PurePosixPath(file).suffix
    return file.removesuffix(suffix) if suffix.lower() in READABLE_SUFFIXES else file


def _key(name: str) -> str:
    return name.casefold()


def _record(name: str, detections: Detections) -> dict[str, Any]:
    """Return the detections as a record, as the writers of datasets take it."""
    height, width = detections.image_size
    annotations: list[dict[str, Any]] = [
        {
            "bbox": [round(value, BOX_DECIMALS) for value in box],
            "category_id": number,
            "iscrowd": 0,
            "score": round(score, SCORE_DECIMALS),
        }
        for box, score, number in zip(
            detections.boxes.tolist(),
            detections.scores.tolist(),
            detections.class_ids.tolist(),
            strict=True,
        )
    ]
    for annotation, mask in zip(annotations, detections.masks or [], strict=False):
        annotation["segmentation"] = mask
    return {"file_name": name, "height": height, "width": width, "annotations": annotations}


class JsonWriter:
    """COCO results for evaluation: `predictions.json` and `predictions_meta.json`."""

    def __init__(self, output: Output) -> None:
        categories = [category._asdict() for category in output.categories]
        self._files = ResultFiles(output.folder, categories, output.info)

    def add(self, image_id: int, name: str, detections: Detections) -> None:
        """Write an image and its results."""
        image = coco_image(image_id, name, *detections.image_size)
        results = [
            {
                **result,
                "bbox": [round(value, BOX_DECIMALS) for value in result["bbox"]],
                "score": round(result["score"], SCORE_DECIMALS),
            }
            for result in detections.to_coco(image_id)
        ]
        self._files.add(image, results)

    def close(self) -> None:
        """Complete both files."""
        self._files.close()


class CsvWriter:
    """A row a detection: `predictions.csv`. An image without detections has no row.

    Corners are pixels from 0, half-open. The columns are named as our CSV reader knows them. Text
    that a spreadsheet would take for a formula (it starts with = + - @) gets an apostrophe in
    front, and so does text that starts with an apostrophe.
    """

    def __init__(self, output: Output) -> None:
        self._path = output.folder / "predictions.csv"
        self._file = unfinished_path(self._path).open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(CSV_COLUMNS)
        self._categories = output.categories

    def add(self, image_id: int, name: str, detections: Detections) -> None:
        """Write the rows of an image."""
        record = _record(name, detections)
        for item in record["annotations"]:
            category = self._categories[item["category_id"]]
            self._rows.writerow(
                [
                    _cell(name),
                    record["width"],
                    record["height"],
                    _cell(category.name),
                    category.id,
                    item["score"],
                    *item["bbox"],
                ]
            )

    def close(self) -> None:
        """Put the file in its place."""
        self._file.close()
        os.replace(self._file.name, self._path)


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


class YoloWriter:
    """YOLO labels: `labels/NAME.txt`, empty for an image without detections, and `data.yaml`.

    Lines have five columns, so that the files can be corrected and trained on as they are; the
    scores are in the other formats.
    """

    def __init__(self, output: Output) -> None:
        self._labels = output.folder / "labels"
        self._names = output.names
        write_yolo_classes(output.folder / "data.yaml", output.class_names, {})

    def add(self, image_id: int, name: str, detections: Detections) -> None:
        """Write the label file of an image."""
        file = self._labels / f"{self._names.stem(name)}.txt"
        write_yolo_label(file, _record(name, detections))

    def close(self) -> None:
        """Do nothing: each file is complete."""


class VocWriter:
    """Pascal VOC: `annotations/NAME.xml`, whose objects have an element `score` besides."""

    def __init__(self, output: Output) -> None:
        self._annotations = output.folder / "annotations"
        self._names = output.names
        self._class_names = output.class_names

    def add(self, image_id: int, name: str, detections: Detections) -> None:
        """Write the XML file of an image."""
        file = self._annotations / f"{self._names.stem(name)}.xml"
        write_voc_file(file, _record(name, detections), name, self._class_names)

    def close(self) -> None:
        """Do nothing: each file is complete."""


class CocoWriter:
    """A COCO dataset, `dataset.json`, whose annotations have a `score` besides.

    Its images wait in a second file for the end of the annotations.
    """

    def __init__(self, output: Output) -> None:
        self._images_path = output.folder / "dataset_images.json"
        self._images = JsonList(self._images_path)
        self._annotations = JsonList(
            output.folder / "dataset.json", '{"info": {}, "licenses": [], "annotations": '
        )
        self._categories = output.categories
        self._count = 0

    def add(self, image_id: int, name: str, detections: Detections) -> None:
        """Write an image and its annotations."""
        self._images.add(coco_image(image_id, name, *detections.image_size))
        category_ids = [category.id for category in self._categories]
        for item in _record(name, detections)["annotations"]:
            self._count += 1
            annotation = coco_annotation(self._count, image_id, item, category_ids)
            annotation["bbox"] = [round(value, BOX_DECIMALS) for value in annotation["bbox"]]
            annotation["area"] = round(annotation["area"], BOX_DECIMALS)
            self._annotations.add(annotation)

    def close(self) -> None:
        """Join both lists in one file."""
        self._images.close()
        categories = json.dumps(coco_categories(self._categories))
        with self._images_path.open(encoding="utf-8") as images:
            before = f', "categories": {categories}, "images": '
            self._annotations.close(chain([before], images, ["}"]))
        self._images_path.unlink()


class LabelStudioWriter:
    """Label Studio's tasks with predicted boxes, `label_studio.json`, without masks.

    `label_studio.xml` is the labeling configuration that the tasks fit. `data.image` is the name of
    the image, so a prefix such as "/data/local-files/?d=" may have to be added.
    """

    def __init__(self, output: Output) -> None:
        self._tasks = JsonList(output.folder / "label_studio.json")
        self._class_names = output.class_names
        self._model_version = str(output.info.get("model_sha256") or "ulga_d2")
        config = output.folder / "label_studio.xml"
        write_atomically(str(config), _labeling_config(output.class_names))

    def add(self, image_id: int, name: str, detections: Detections) -> None:
        """Write the task of an image."""
        record = _record(name, detections)
        items = record["annotations"]
        prediction = {
            "model_version": self._model_version,
            "score": max((item["score"] for item in items), default=0.0),
            "result": [
                self._region(f"{image_id}-{number}", item, record)
                for number, item in enumerate(items)
            ],
        }
        self._tasks.add({"data": {"image": name}, "predictions": [prediction]})

    def close(self) -> None:
        """Complete the file of tasks."""
        self._tasks.close()

    def _region(self, key: str, item: Mapping[str, Any], record: Mapping[str, Any]) -> dict:
        width, height = record["width"], record["height"]
        x0, y0, x1, y1 = item["bbox"]
        shares = {
            "x": x0 / width,
            "y": y0 / height,
            "width": (x1 - x0) / width,
            "height": (y1 - y0) / height,
        }
        percent = {side: round(100 * share, PERCENT_DECIMALS) for side, share in shares.items()}
        label = self._class_names[item["category_id"]]
        return {
            "id": key,
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {**percent, "rotation": 0, "rectanglelabels": [label]},
            "score": item["score"],
        }


def _labeling_config(class_names: Sequence[str]) -> bytes:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    labels = ElementTree.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in class_names:
        ElementTree.SubElement(labels, "Label", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="utf-8")


WRITERS: dict[str, Callable[[Output], ResultWriter]] = {
    "json": JsonWriter,
    "csv": CsvWriter,
    "yolo": YoloWriter,
    "voc": VocWriter,
    "coco": CocoWriter,
    "label-studio": LabelStudioWriter,
}
