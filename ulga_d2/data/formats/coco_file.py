"""The structure of a COCO JSON file, checked entry by entry; no image is opened here."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UserError
from ..report import Faults
from .classes import clean_class_name
from .json_file import read_json
from .numbers import number_fault, read_flag, read_id, read_number, stated_size

logger = logging.getLogger(__name__)

# An id to compare: 17, 17.0 and "17" are one.
Id = int | str


@dataclass(frozen=True)
class CocoFile:
    """The entries of a COCO file by their ids.

    Attributes:
        path: the file, for messages.
        images: with `file_name`; `id` is as the file gives it, whole floats apart.
        annotations: with `image_id` and `category_id` that exist, `iscrowd` 0 or 1, `area` a
            positive number or None, and `bbox` of four numbers, or None where the object has a
            `segmentation` alone.
        categories: with `name`, which has no blanks around it.
        renamed: the names that had blanks around them, by id.
        odd_areas: the annotations whose area was no positive number.
    """

    path: Path
    images: dict[Id, dict]
    annotations: dict[Id, dict]
    categories: dict[Id, dict]
    renamed: dict[Id, str] = field(default_factory=dict)
    odd_areas: list[Id] = field(default_factory=list)

    def classes(self, others: Sequence[Path] = ()) -> tuple[tuple[str, ...], dict[Id, int]]:
        """Return the class names, and the class number by category id, both by ascending id.

        Roboflow writes a placeholder as the parent of all classes. A category is dropped only if
        it is another's supercategory and owns no box in any split. Categories whose names differ in
        blanks around them alone are one class.

        Args:
            others: the COCO files of the dataset's other splits.

        Raises:
            UserError: no class is left, two have one name, or another file is faulty.
        """
        dropped = self._placeholders(others)
        if dropped:
            shown = ", ".join(self.categories[key]["name"] for key in dropped)
            logger.info("%s: placeholder category without boxes dropped: %s", self.path, shown)
        kept = sorted(
            (key for key in self.categories if key not in dropped),
            key=lambda key: (isinstance(key, str), key),
        )
        names: dict[str, int] = {}
        numbers: dict[Id, int] = {}
        stated: Counter[str] = Counter()
        for key in kept:
            name = self.categories[key]["name"]
            stated[self.renamed.get(key, name)] += 1
            numbers[key] = names.setdefault(name, len(names))
        twice = [name for name, count in stated.items() if count > 1]
        if not names or twice:
            what = f"{twice[0]!r} stands twice" if twice else "there is none"
            raise UserError(
                f"{self.path}: there must be at least one category and no name twice, but {what}; "
                "correct 'categories'"
            )
        return tuple(names), numbers

    def _placeholders(self, others: Sequence[Path]) -> set[Id]:
        entries = self.categories.values()
        parents = Counter(str(entry.get("supercategory")).strip() for entry in entries)
        owners = {annotation["category_id"] for annotation in self.annotations.values()}
        found = set()
        for key, entry in self.categories.items():
            name = entry["name"]
            own = str(entry.get("supercategory")).strip() == name
            if key not in owners and parents[name] > own:
                found.add(key)
        for path in others if found else ():
            if path != self.path:
                used = parse_coco(path).used_names()
                found = {key for key in found if self.categories[key]["name"] not in used}
        return found

    def used_names(self) -> set[str]:
        """Return the names of the categories that own a box."""
        owners = {annotation["category_id"] for annotation in self.annotations.values()}
        return {self.categories[key]["name"] for key in owners}


def parse_coco(path: Path) -> CocoFile:
    """Read and check a COCO file.

    Raises:
        UserError: not JSON, not COCO, or faulty entries: the first few, with place and fix.
    """
    content = _load(path)
    faults = Faults()
    found = CocoFile(path, {}, {}, {})
    for kind, key, target, check in (
        ("image", "images", found.images, _image_fault),
        ("annotation", "annotations", found.annotations, _annotation_fault),
        ("category", "categories", found.categories, _category_fault),
    ):
        _add_by_id(content[key], f"{path}, {kind}", target, check, faults)
    faults.stop_if_any()  # what refers to a faulty entry is no fault of its own
    for key, annotation in found.annotations.items():
        if annotation["image_id"] not in found.images:
            faults.add(
                f"{path}, annotation {key}",
                f"image_id {annotation['image_id']} is no image of the file; correct or remove it",
            )
        area = read_number(annotation.get("area"))
        if annotation.get("area") is not None and not (area and area > 0):
            found.odd_areas.append(key)
        annotation["area"] = area if area and area > 0 else None
    for key, category in found.categories.items():
        name = category["name"].strip()
        if name != category["name"]:
            found.renamed[key] = category["name"]
            category["name"] = name
    _check_categories(path, found, faults)
    faults.stop_if_any()
    return found


def _load(path: Path) -> dict:
    content = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path}: no list '{key}', so this is no COCO file of boxes")
    return content


def _add_by_id(
    entries: list,
    place: str,
    found: dict[Id, dict],
    check: Callable[[dict], str | None],
    faults: Faults,
) -> None:
    """Add the sound entries by their id, and record the faults of the others."""
    for position, entry in enumerate(entries):
        key = read_id(entry.get("id")) if isinstance(entry, dict) else None
        if key is None:
            faults.add(f"{place} number {position}", "has no id, a whole number or text; add one")
            continue
        fault = check(entry)
        if fault:
            faults.add(f"{place} {key}", f"{fault}; export the file again")
        elif key in found:
            faults.add(f"{place} {key}", "this id stands twice; renumber the ids")
        else:
            if isinstance(entry["id"], float):
                entry["id"] = key
            found[key] = entry


def _image_fault(entry: dict) -> str | None:
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        return "has no file_name"
    try:
        stated_size(entry.get("height"), entry.get("width"))
    except ValueError as error:
        return str(error)
    return None


def _category_fault(entry: dict) -> str | None:
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        return "has no name"
    try:
        clean_class_name(name)
    except ValueError as error:
        return str(error)
    return None


def _annotation_fault(entry: dict) -> str | None:
    """Return what is wrong with an annotation, and bring its sound values into one form."""
    for key in ("image_id", "category_id"):
        number = read_id(entry.get(key))
        if number is None:
            return f"{key} {str(entry.get(key))[:40]!r} is neither a whole number nor text"
        entry[key] = number
    flag = read_flag(entry.get("iscrowd"))
    if flag is None:
        return f"iscrowd {str(entry['iscrowd'])[:40]!r} is neither 0 nor 1"
    entry["iscrowd"] = flag
    bbox = entry.get("bbox")
    if not bbox and bbox != 0 and entry.get("segmentation"):
        entry["bbox"] = None
        return None
    if not isinstance(bbox, list) or len(bbox) != 4:
        return f"bbox {str(bbox)[:40]} is not a list of four numbers [x, y, width, height]"
    entry["bbox"] = [read_number(value) for value in bbox]
    if None in entry["bbox"]:
        fault = number_fault(dict(zip(("x", "y", "width", "height"), bbox, strict=True)))
        return f"bbox {str(bbox)[:80]} is not a list of four numbers: {fault}"
    return None


def _check_categories(path: Path, found: CocoFile, faults: Faults) -> None:
    used = Counter(annotation["category_id"] for annotation in found.annotations.values())
    unknown = [f"{key} ({n:,} boxes)" for key, n in used.items() if key not in found.categories]
    if unknown:
        faults.add(
            str(path),
            f"category ids without an entry in 'categories': {', '.join(unknown[:10])}; add the "
            "categories or remove the annotations",
        )
