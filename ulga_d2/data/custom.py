"""A user's own data set, described by one small YAML file.

For example::

    name: cells                # its splits are cells_train and cells_val in DATASETS
    format: voc                # coco, yolo, voc, csv or via
    root: ../slides            # relative to this file; all other paths are relative to root
    patient: '^([^_]+)_'       # optional: whose image it is, p07 for JPEGImages/p07_12.jpg
    splits:
      train: {images: JPEGImages, annotations: Annotations, list: ImageSets/Main/train.txt}
      val: {images: JPEGImages, annotations: Annotations, list: ImageSets/Main/val.txt}

An Ultralytics data.yaml and Darknet's obj.data are read as they are.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from .builtin import LOADERS
from .custom_file import CustomFile, parse_custom_file
from .formats.coco import coco_class_names, read_coco
from .formats.coco_file import parse_coco
from .formats.csv_boxes import csv_class_names, csv_image_names, read_csv
from .formats.files import walk_folder
from .formats.json_file import read_json
from .formats.text import read_text
from .formats.ultralytics import (
    DARKNET_SUFFIX,
    YoloDescription,
    is_ultralytics,
    parse_ultralytics,
    read_darknet,
    read_described_yolo,
)
from .formats.via import read_via, via_class_names, via_entries
from .formats.voc import read_image_set, read_voc, voc_class_names
from .formats.yaml_file import read_yaml
from .formats.yolo import read_yolo_labels
from .patterns import first_groups
from .record import LoadedSplit
from .report import DataReport, Faults

logger = logging.getLogger(__name__)


def is_custom_file(path: Path) -> bool:
    """Tell the description of a custom dataset from a config by its keys.

    Raises:
        UserError: the file cannot be read.
    """
    if path.suffix == DARKNET_SUFFIX:
        return True
    keys = set(re.findall(r"^([a-z]+)[ \t]*:", read_text(str(path)), re.MULTILINE))
    return bool(keys & {"splits", "format"}) or is_ultralytics(dict.fromkeys(keys))


def read_description(path: Path) -> CustomFile | YoloDescription:
    """Read the description of a custom dataset; its content tells whose format it has.

    Args:
        path: a YAML file of this project, an Ultralytics data.yaml, or Darknet's obj.data.

    Raises:
        UserError: the file is missing, or something in it is wrong.
    """
    if path.suffix == DARKNET_SUFFIX:
        own = read_darknet(path)
    else:
        content = read_yaml(path)
        if not is_ultralytics(content):
            return parse_custom_file(path, content)
        own = parse_ultralytics(path, content)
    # The name comes from a file or folder, which may well be called like a built-in dataset.
    return replace(own, name=f"{own.name}_custom") if own.name in LOADERS else own


def custom_splits(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the name of a custom dataset and the names of its splits.

    Raises:
        UserError: the description is missing, or something in it is wrong.
    """
    own = read_description(path)
    return own.name, tuple(own.splits)


def custom_class_names(path: Path, split: str) -> tuple[str, ...]:
    """Return the class names that `load_custom` gives a split; no image is opened.

    Raises:
        UserError: something in the description or in the annotations is wrong.
    """
    own = read_description(path)
    _check_split(own, split)
    if isinstance(own, YoloDescription):
        return own.class_names
    return _class_names(own, own.splits[split])


def load_custom(path: Path, split: str) -> LoadedSplit:
    """Read one split of a custom dataset in place.

    Class names that the file does not give are those of all its splits, sorted (COCO: in the order
    of their ids). Images in the split's folder that it does not use are listed, unless another
    split uses the folder too.

    Args:
        path: the description; see `read_description`.
        split: one of its splits.

    Raises:
        UserError: something in the description or the data is wrong, or a file's name does not say
            whose image it is.
    """
    own = read_description(path)
    _check_split(own, split)
    if isinstance(own, YoloDescription):
        loaded, images = read_described_yolo(own, split), own.root
    else:
        paths = own.splits[split]
        if "images" not in paths:
            paths = {"images": _stated_folder(own, paths["annotations"]), **paths}
        loaded, images = _READERS[own.format](own, paths), paths["images"]
        if "images" not in own.splits[split]:
            pass  # there is no folder whose other files would be the dataset's
        elif own.format != "yolo" or "list" in paths:  # else its reader walks the folder itself
            _note_unread(own, paths, loaded.report)
    if own.patient is None:
        return loaded
    return replace(loaded, records=_with_patients(loaded.records, images, own.patient, path))


def _stated_folder(own: CustomFile, annotations: Path) -> Path:
    """Return the folder below which all images lie whose absolute names the annotations give.

    Raises:
        UserError: a name is not absolute.
    """
    names = image_names(own.format, annotations, own.columns)
    relative = [name for name in names if not os.path.isabs(name)]
    if relative or not names:
        what = f"names {relative[0]}, which is no absolute path" if relative else "names no image"
        raise UserError(
            f"{own.path}: {annotations} {what}; write under `splits` the folder of its images, "
            "such as `images: images`"
        )
    return Path(os.path.commonpath([os.path.dirname(name) for name in names]))


def image_names(
    kind: str, annotations: Path, columns: Mapping[str, str] | None = None
) -> list[str]:
    """Return the image names in a file of a whole split, as it gives them.

    Args:
        kind: "coco", "csv" or "via".
        annotations: the file.
        columns: see `read_csv`.

    Raises:
        UserError: it is no such file.
    """
    if kind == "csv":
        return csv_image_names(annotations, columns)
    if kind == "via":
        return [entry["filename"] for entry in via_entries(read_json(annotations)) or ()]
    return [image["file_name"] for image in parse_coco(annotations).images.values()]


def _read_coco(own: CustomFile, paths: dict[str, Path]) -> LoadedSplit:
    return read_coco(
        paths["annotations"],
        paths["images"],
        [split["annotations"] for split in own.splits.values()],
        keeps_emptied=own.keeps_emptied,
    )


def _read_yolo(own: CustomFile, paths: dict[str, Path]) -> LoadedSplit:
    return read_yolo_labels(
        paths["images"],
        paths["labels"],
        own.class_names,
        paths.get("list"),
        keeps_emptied=own.keeps_emptied,
    )


def _read_voc(own: CustomFile, paths: dict[str, Path]) -> LoadedSplit:
    listed = read_image_set(paths["list"]) if "list" in paths else None
    return read_voc(
        paths["annotations"],
        paths["images"],
        listed,
        own.class_names,
        base=own.voc_base,
        annotation_dirs=[split["annotations"] for split in own.splits.values()],
        keeps_emptied=own.keeps_emptied,
    )


def _read_csv(own: CustomFile, paths: dict[str, Path]) -> LoadedSplit:
    names = _class_names(own, paths)
    return read_csv(
        paths["annotations"],
        paths["images"],
        names,
        own.columns,
        keeps_emptied=own.keeps_emptied,
    )


def _read_via(own: CustomFile, paths: dict[str, Path]) -> LoadedSplit:
    names = _class_names(own, paths)
    return read_via(
        paths["annotations"],
        paths["images"],
        names,
        own.class_attribute,
        keeps_emptied=own.keeps_emptied,
    )


_READERS: dict[str, Callable[[CustomFile, dict[str, Path]], LoadedSplit]] = {
    "coco": _read_coco,
    "yolo": _read_yolo,
    "voc": _read_voc,
    "csv": _read_csv,
    "via": _read_via,
}


def _check_split(own: CustomFile | YoloDescription, split: str) -> None:
    if split not in own.splits:
        raise UserError(f"{own.path} has no split {split}; it has {', '.join(own.splits)}")


def _class_names(own: CustomFile, paths: dict[str, Path]) -> tuple[str, ...]:
    """Return the names that the description gives, else those that the annotations have."""
    if own.class_names is not None:  # always so with yolo
        return own.class_names
    if own.format == "coco":
        files = [split["annotations"] for split in own.splits.values()]
        return coco_class_names(paths["annotations"], files)
    read = {
        "voc": voc_class_names,
        "csv": lambda file: csv_class_names(file, own.columns),
        "via": lambda file: via_class_names(file, own.class_attribute),
    }[own.format]
    files = dict.fromkeys(split["annotations"] for split in own.splits.values())
    names = tuple(sorted({name for file in files for name in read(file)}))
    if own.format == "csv":
        logger.info(
            "%s: classes in alphabetical order, %s; `class_names` sets another",
            own.path,
            ", ".join(names),
        )
    if not names:
        raise UserError(f"{own.path}: no region says its class; give `class_names: [its name]`")
    return names


def _note_unread(own: CustomFile, paths: dict[str, Path], report: DataReport) -> None:
    """Note what the folders of a split hold besides its images and annotations."""
    images = paths["images"]
    described = [path for split in own.splits.values() for path in split.values()]
    # Annotations often lie beside their images.
    key, suffix = {"yolo": ("labels", ".txt"), "voc": ("annotations", ".xml")}.get(
        own.format, ("images", "")
    )
    for folder in dict.fromkeys([images, paths[key]]):
        walk = walk_folder(folder)
        beside = [path for path in walk.files if path.suffix.lower() == suffix]
        walk.note_unread([*walk.images(), *described, *(beside if suffix else [])], report)
    if sum(split.get("images") == images for split in own.splits.values()) > 1:
        return
    for path in walk_folder(images).images():
        if os.path.abspath(path) not in report.named_files:
            report.note("images in the folder that the split does not use", str(path))


def _with_patients(records: list[dict], images: Path, pattern: str, yaml_file: Path) -> list[dict]:
    """Return the records with the patient that the pattern finds in each image's path."""
    names = [Path(os.path.relpath(record["file_name"], images)).as_posix() for record in records]
    faults = Faults()
    found: list[dict[str, Any]] = []
    patients = first_groups(pattern, names, str(yaml_file))
    for record, name, patient in zip(records, names, patients, strict=True):
        if patient is None:
            fault = f"`patient` {pattern} finds nobody in {name}; extend the pattern"
            faults.add(str(yaml_file), fault)
        else:
            found.append({**record, "patient_id": patient})
    faults.stop_if_any()
    return found
