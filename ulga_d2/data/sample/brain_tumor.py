"""Write sample slices as the brain tumour data set is distributed: YOLO (two trees), Roboflow, VIA.

Cheng's MATLAB files are in `cheng.py`.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import yaml

from .brain import make_brain
from .coco import coco_content
from .context import CLASS_NAMES as CONTEXT_CLASS_NAMES
from .context import make_context
from .difficulty import DIFFICULTIES
from .layout import (
    COLUMNS,
    DifficultyTable,
    Label,
    Request,
    SampleImage,
    Written,
    class_number,
    labels_of,
    write_image,
    write_text,
)
from .lesion import CLASS_NAMES
from .scene import Scene
from .tasks import CONTEXT, SIZES

SPLITS = ("train", "val")
ALL_SPLITS = ("train", "val", "test")
# Roboflow says valid, and so did Ultralytics.
_VALID = {"train": "train", "val": "valid", "test": "test"}
PLACEHOLDER = "brain-tumor"
# A circle stands for a lesion whose sides differ by no more than this (pixels).
_ROUND = 2


def write_yolo(out: Path, request: Request) -> Written:
    """Write `images/{train,val}` and `labels/{train,val}`, as Ultralytics ships them now."""
    return _write_yolo(out, request, {split: ("images", split) for split in SPLITS})


def write_yolo_old(out: Path, request: Request) -> Written:
    """Write `{train,valid}/images` and `{train,valid}/labels`, as Ultralytics shipped them."""
    return _write_yolo(out, request, {split: (_VALID[split], "images") for split in SPLITS})


def _write_yolo(out: Path, request: Request, folders: dict[str, tuple[str, str]]) -> Written:
    paths = {split: out.joinpath(*parts) for split, parts in folders.items()}
    images = _write_images(out, request, paths, "{}_{:05d}.png", COLUMNS)
    names = CONTEXT_CLASS_NAMES if request.task == CONTEXT else CLASS_NAMES
    content = {
        "path": ".",
        **{split: "/".join(parts) for split, parts in folders.items()},
        "names": dict(enumerate(names)),
    }
    write_text(out / "data.yaml", yaml.safe_dump(content, sort_keys=False))
    return Written(images, partial(_write_labels, names), _label_file)


def _write_images(
    out: Path,
    request: Request,
    folders: dict[str, Path],
    pattern: str,
    columns: tuple[str, ...],
    *,
    with_outlines: bool = False,
) -> list[SampleImage]:
    """Write the images and `difficulty.csv` (one row a lesion)."""
    table = DifficultyTable(columns)
    images = []
    for number, split, index in request.images(tuple(folders)):
        scene = _make(request, number, index)
        path = folders[split] / pattern.format(split, index)
        write_image(path, scene.image)
        table.add(split, path.stem, scene)
        labels = labels_of(scene, with_outlines=with_outlines)
        images.append(SampleImage(split, path.stem, path, scene.image.shape[:2], labels))
    table.write(out)
    return images


def _make(request: Request, split_number: int, index: int) -> Scene:
    place = {"seed": request.seed, "split_number": split_number, "index": index}
    difficulty = DIFFICULTIES[request.difficulty]
    if request.task == CONTEXT:
        return make_context(**place, size=request.size, difficulty=difficulty)
    radii = SIZES.get(request.task)
    return make_brain(**place, size=request.size, difficulty=difficulty, radii=radii)


def _write_labels(class_names: tuple[str, ...], images: list[SampleImage]) -> None:
    for image in images:
        lines = [_label(label, image.size, class_names) for label in image.labels]
        write_text(_label_file(image), "".join(lines))


def _label_file(image: SampleImage) -> Path:
    parts = ["labels" if part == "images" else part for part in image.path.parts[-3:-1]]
    return image.path.parents[2].joinpath(*parts, f"{image.name}.txt")


def _label(label: Label, size: tuple[int, int], class_names: tuple[str, ...]) -> str:
    height, width = size
    x, y, w, h = label.xywh
    numbers = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
    number = class_number(label, class_names, first=0)
    return " ".join([str(number), *(f"{value:.6f}" for value in numbers)]) + "\n"


def write_roboflow(out: Path, request: Request) -> Written:
    """Write `{train,valid,test}/_annotations.coco.json` beside JPEGs, as Roboflow exports them."""
    folders = {split: out / _VALID[split] for split in ALL_SPLITS}
    digest = hashlib.sha256(str(request.seed).encode()).hexdigest()[:32]
    pattern = f"{{}}_{{:05d}}_png.rf.{digest}.jpg"
    images = _write_images(out, request, folders, pattern, COLUMNS)
    return Written(images, partial(_write_coco, folders), lambda image: _coco_file(image.path))


def _coco_file(path: Path) -> Path:
    return path.parent / "_annotations.coco.json"


def _write_coco(folders: dict[str, Path], images: list[SampleImage]) -> None:
    """Write one JSON a split; like Roboflow's, with ids from 0 and a placeholder as category 0."""
    names = [f"label{number}" for number in range(len(CLASS_NAMES))]
    categories = [{"id": 0, "name": PLACEHOLDER, "supercategory": "none"}]
    categories += [
        {"id": number, "name": name, "supercategory": PLACEHOLDER}
        for number, name in enumerate(names, start=1)
    ]
    for split, folder in folders.items():
        content = coco_content(
            [image for image in images if image.split == split],
            categories,
            category_of=lambda label: class_number(label, CLASS_NAMES, first=1),
            first_id=0,
        )
        write_text(_coco_file(folder / "any"), json.dumps(content))


def write_via(out: Path, request: Request) -> Written:
    """Write `{TRAIN,VAL}/annotations_{train,val}.json` of the VGG annotator, as Br35H has them.

    Shapes take turns: polygons, and ellipses, or circles for round lesions. There is one class.
    """
    folders = {split: out / split.upper() for split in SPLITS}
    images = _write_images(out, request, folders, "{}_{:05d}.jpg", COLUMNS, with_outlines=True)
    return Written(images, partial(_write_via, folders), _via_file)


def _via_file(image: SampleImage) -> Path:
    return image.path.parent / f"annotations_{image.split}.json"


def _write_via(folders: dict[str, Path], images: list[SampleImage]) -> None:
    for split, folder in folders.items():
        content = {}
        for number, image in enumerate(image for image in images if image.split == split):
            size = image.path.stat().st_size
            regions = [
                {"shape_attributes": _shape(label, number), "region_attributes": {}}
                for label in image.labels
            ]
            name = image.path.name
            content[f"{name}{size}"] = {
                "filename": name, "size": size, "regions": regions, "file_attributes": {}
            }  # fmt: skip
        write_text(folder / f"annotations_{split}.json", json.dumps(content))


def _shape(label: Label, number: int) -> dict[str, object]:
    """Return VIA's shape of a label: a polygon for every other image, else an ellipse."""
    x, y, width, height = label.xywh
    if not label.outline:
        return {"name": "rect", "x": x, "y": y, "width": width, "height": height}
    points = np.array(label.outline[0], np.float32).reshape(-1, 2)
    if number % 2 == 0 or len(points) < 5:
        xs, ys = (points[:, axis].round(2).tolist() for axis in (0, 1))
        return {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    if abs(width - height) <= _ROUND:
        radius = (width + height) / 4
        return {"name": "circle", "cx": x + width / 2, "cy": y + height / 2, "r": radius}
    (cx, cy), (length, breadth), angle = cv2.fitEllipse(points)
    shape = {"cx": cx, "cy": cy, "rx": length / 2, "ry": breadth / 2, "theta": np.deg2rad(angle)}
    return {"name": "ellipse", **{key: round(float(value), 3) for key, value in shape.items()}}
