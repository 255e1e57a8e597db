"""The YAML file of a user's own data set, checked key by key."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean
from .builtin import LOADERS
from .formats.classes import clean_class_names
from .formats.csv_boxes import COLUMNS
from .patterns import check_patient

# Per format: the paths of a split (those in brackets may be left out), and keys of its own. Without
# `images` the annotations must give absolute names of the images.
_PATHS = {
    "coco": ("[images]", "annotations"),
    "yolo": ("images", "labels", "[list]"),
    "voc": ("images", "annotations", "[list]"),
    "csv": ("[images]", "annotations"),
    "via": ("[images]", "annotations"),
}
_OPTIONS = {
    "coco": (),
    "yolo": ("class_names",),
    "voc": ("class_names", "voc_base"),
    "csv": ("class_names", "columns"),
    "via": ("class_names", "class_attribute"),
}
_NEEDED = ("name", "format", "root", "splits")
# These are folders whatever the format; annotations are a folder in VOC alone.
_FOLDERS = ("images", "labels")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class CustomFile:
    """What the file says.

    Attributes:
        path: the file.
        name: of the data set.
        format: "coco", "yolo", "voc", "csv" or "via".
        splits: the paths of each split, by what they are ("images", "annotations", ...).
        class_names: in order of their numbers; None where the annotations tell.
        columns: names of a CSV file's columns by their meaning.
        class_attribute: the region attribute of VIA that says the class.
        keeps_emptied: keep an image that lost all its boxes as one without boxes.
        voc_base: number of the first pixel in VOC files, 0 or 1; None where the files tell.
        patient: the pattern that finds whose image it is in the image's path.
    """

    path: Path
    name: str
    format: str
    splits: dict[str, dict[str, Path]]
    class_names: tuple[str, ...] | None
    columns: dict[str, str]
    class_attribute: str | None
    keeps_emptied: bool
    voc_base: int | None
    patient: str | None


def parse_custom_file(path: Path, content: object) -> CustomFile:
    """Check the description of a custom dataset.

    Args:
        path: the file.
        content: what `read_yaml` makes of it.

    Raises:
        UserError: a key is unknown, missing or of the wrong kind, or a path leads nowhere.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: no data set; write {', '.join(_NEEDED)} as `key: value` lines")
    kind = _one_of(path, "format", content.get("format"), _PATHS)
    _check_keys(path, "", content, _NEEDED, ("patient", "keep_emptied_images", *_OPTIONS[kind]))
    class_names = _class_names(path, content)
    if kind == "yolo" and class_names is None:
        raise UserError(
            f"{path}: YOLO numbers its classes; write `class_names: [first class, second class]`"
        )
    root = path.parent / os.path.expanduser(_text(path, "root", content["root"]))
    attribute = content.get("class_attribute")
    return CustomFile(
        path=path,
        name=_name(path, content["name"]),
        format=kind,
        splits=_splits(path, root, kind, content["splits"]),
        class_names=class_names,
        columns=_columns(path, content),
        class_attribute=attribute and _text(path, "class_attribute", attribute),
        keeps_emptied=_switch(path, content, "keep_emptied_images"),
        voc_base=_voc_base(path, content.get("voc_base")),
        patient=check_patient(path, content.get("patient")),
    )


def _check_keys(
    path: Path, where: str, content: dict, needed: Collection[str], optional: Collection[str]
) -> None:
    known = [*needed, *optional]
    for key in content:
        if key not in known:
            hint = did_you_mean(str(key)[:50], known, f"there are {', '.join(known)}")
            raise UserError(f"{path}: unknown key {where}{str(key)[:50]}; {hint}")
    for key in needed:
        if key not in content:
            raise UserError(f"{path}: the key {where}{key} is missing")


def _one_of(path: Path, key: str, value: object, known: Collection[str]) -> str:
    if isinstance(value, str) and value in known:
        return value
    hint = did_you_mean(str(value)[:50], known, f"it must be one of {', '.join(known)}")
    raise UserError(f"{path}: {key} is {str(value)[:50]!r}; {hint}")


def _text(path: Path, key: str, value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise UserError(f"{path}: {key} is {str(value)[:50]!r}, not text; put it in quotes")


def _name(path: Path, value: object) -> str:
    name = _text(path, "name", value)
    if not _NAME.fullmatch(name):
        raise UserError(f"{path}: name {name[:50]!r} may hold letters, digits, _, - and . only")
    if name in LOADERS:
        raise UserError(f"{path}: {name} is a data set of ours; choose another name")
    return name


def _splits(path: Path, root: Path, kind: str, value: object) -> dict[str, dict[str, Path]]:
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path}: splits must hold one entry a split, such as train and val")
    splits = {}
    for name, entry in value.items():
        split = _text(path, "the name of a split", name)
        if not _NAME.fullmatch(split):
            raise UserError(f"{path}: split {split[:50]!r} may hold letters, digits, _, -, . only")
        if not isinstance(entry, dict):
            known = ", ".join(key.strip("[]") for key in _PATHS[kind])
            raise UserError(f"{path}: splits.{split} must hold {known}")
        needed = [key for key in _PATHS[kind] if not key.startswith("[")]
        optional = [key.strip("[]") for key in _PATHS[kind] if key.startswith("[")]
        _check_keys(path, f"splits.{split}.", entry, needed, optional)
        splits[split] = {
            key: _existing(path, f"splits.{split}.{key}", root, text, _is_folder(key, kind))
            for key, text in entry.items()
        }
    return splits


def _is_folder(key: str, kind: str) -> bool:
    return key in _FOLDERS or (key == "annotations" and kind == "voc")


def _existing(path: Path, key: str, root: Path, value: object, is_folder: bool) -> Path:
    place = root / os.path.expanduser(_text(path, key, value))
    if not (os.path.isdir(place) if is_folder else os.path.isfile(place)):
        kind = "folder" if is_folder else "file"
        raise UserError(f"{path}: {key} leads to {place}, which is no {kind}; correct it or root")
    return place


def _class_names(path: Path, content: dict) -> tuple[str, ...] | None:
    names = content.get("class_names")
    if names is None:
        return None
    # Numbers are usual names; YAML's true and false are words that were not quoted.
    is_list = isinstance(names, list) and names
    if not is_list or not all(type(name) in (str, int) and str(name).strip() for name in names):
        raise UserError(f"{path}: class_names must be a list of names, in quotes if need be")
    texts = clean_class_names(map(str, names), path)
    if len(set(texts)) < len(texts):
        raise UserError(f"{path}: a class name stands twice in {str(list(texts))[:200]}")
    return texts


def _switch(path: Path, content: dict[str, Any], key: str) -> bool:
    value = content.get(key, False)
    if not isinstance(value, bool):
        raise UserError(f"{path}: {key} is {str(value)[:50]!r}; write true or false")
    return value


def _voc_base(path: Path, value: object) -> int | None:
    if value is None or (type(value) is int and value in (0, 1)):
        return value
    raise UserError(
        f"{path}: voc_base is {str(value)[:50]!r}; write 1 where the first pixel is 1, as in "
        "Pascal VOC, or 0 where it is 0"
    )


def _columns(path: Path, content: dict) -> dict[str, str]:
    columns = content.get("columns", {})
    if not isinstance(columns, dict):
        raise UserError(f"{path}: columns must hold `meaning: name in the file` lines")
    _check_keys(path, "columns.", columns, (), COLUMNS)
    return {key: _text(path, f"columns.{key}", name) for key, name in columns.items()}
