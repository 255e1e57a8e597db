"""The structure of a COCO JSON file, checked entry by entry; no image is opened here."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..report import Faults
from .json_file import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoFile:
    """The entries of a COCO file by their ids.

    Attributes:
        path: the file, for messages.
        images: with `file_name`.
        annotations: with `image_id` and `category_id` that exist, and `bbox` of four numbers.
        categories: with `name`.
    """

    path: Path
    images: dict[int, dict]
    annotations: dict[int, dict]
    categories: dict[int, dict]

    def classes(self) -> tuple[tuple[str, ...], dict[int, int]]:
        """Return the class names, and the class number by category id, both by ascending id.

        Roboflow writes a placeholder as the parent of all classes. A category is dropped only if
        it is another's supercategory and owns no box.

        Raises:
            UserError: no class is left, or two have one name.
        """
        owners = {annotation["category_id"] for annotation in self.annotations.values()}
        placeholders = [
            key for key in self.categories if key not in owners and self._is_parent(key)
        ]
        kept = sorted(key for key in self.categories if key not in placeholders)
        if placeholders:
            dropped = ", ".join(self.categories[key]["name"] for key in placeholders)
            logger.info("%s: placeholder category without boxes dropped: %s", self.path, dropped)
        names = tuple(self.categories[key]["name"] for key in kept)
        if not names or len(set(names)) != len(names):
            raise UserError(
                f"{self.path}: there must be at least one category and no name twice, but the "
                f"names are {list(names)}; correct 'categories'"
            )
        return names, {key: number for number, key in enumerate(kept)}

    def _is_parent(self, key: int) -> bool:
        name = self.categories[key]["name"]
        return any(
            other.get("supercategory") == name
            for other_key, other in self.categories.items()
            if other_key != key
        )


def parse_coco(path: Path) -> CocoFile:
    """Read and check a COCO file.

    Raises:
        UserError: not JSON, not COCO, or faulty entries: the first few, with place and cure.
    """
    content = _load(path)
    faults = Faults()
    images, annotations, categories = (
        _by_id(content[key], path, kind, check, faults)
        for key, kind, check in (
            ("images", "image", _image_fault),
            ("annotations", "annotation", _annotation_fault),
            ("categories", "category", _category_fault),
        )
    )
    for key, annotation in annotations.items():
        if annotation["image_id"] not in images:
            faults.add(
                f"{path}, annotation {key}",
                f"image_id {annotation['image_id']} is no image of the file; correct or remove it",
            )
    _check_categories(path, annotations, categories, faults)
    faults.stop_if_any()
    return CocoFile(path, images, annotations, categories)


def _load(path: Path) -> dict:
    content = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path}: no list '{key}', so this is no COCO file of boxes")
    return content


def _by_id(
    entries: list,
    path: Path,
    kind: str,
    check: Callable[[dict], str | None],
    faults: Faults,
) -> dict[int, dict]:
    """Return the sound entries by their id, and record the faults of the others."""
    found: dict[int, dict] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_whole(entry.get("id")):
            faults.add(
                f"{path}, {kind} number {position}", "has no whole number as its id; add one"
            )
            continue
        key = entry["id"]
        fault = check(entry)
        if fault:
            faults.add(f"{path}, {kind} {key}", f"{fault}; export the file again")
        elif key in found:
            faults.add(f"{path}, {kind} {key}", f"this id stands twice; renumber the {kind} ids")
        else:
            found[key] = entry
    return found


def _image_fault(entry: dict) -> str | None:
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        return "has no file_name"
    return None


def _category_fault(entry: dict) -> str | None:
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        return "has no name"
    return None


def _annotation_fault(entry: dict) -> str | None:
    for key in ("image_id", "category_id"):
        if not _is_whole(entry.get(key)):
            return f"{key} {entry.get(key)!r} is not a whole number"
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        return f"bbox {bbox!r} is not a list of four numbers [x, y, width, height]"
    return None


def usable_area(value: object) -> bool:
    """Tell whether an annotation's `area` is a size in pixels: a finite number above 0."""
    return _is_number(value) and 0 < value < math.inf


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    # A whole number too long for a float is none; NaN and infinity are, and are dropped later.
    return isinstance(value, float) or (_is_whole(value) and abs(value) < 10**15)


def _check_categories(
    path: Path, annotations: dict[int, dict], categories: dict[int, dict], faults: Faults
) -> None:
    used = Counter(annotation["category_id"] for annotation in annotations.values())
    unknown = [f"{key} ({count:,} boxes)" for key, count in used.items() if key not in categories]
    if unknown:
        faults.add(
            str(path),
            f"category ids without an entry in 'categories': {', '.join(unknown[:10])}; add the "
            "categories or remove the annotations",
        )
