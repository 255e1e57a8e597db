"""Read the JSON of the VGG Image Annotator (VIA), versions 1 and 2: outlines drawn by hand.

Source: Dutta and Zisserman, "The VIA Annotation Software for Images, Audio and Video", 2019.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..record import LoadedSplit
from ..report import DataReport, Faults
from .classes import ClassNumbers, clean_class_names
from .files import ImageFolder
from .images import ImageEntry, OutlinedBox, make_records
from .json_file import read_json
from .via_shapes import FLAT_SHAPES, read_shape

_PROJECT_KEY = "_via_img_metadata"


@dataclass(frozen=True)
class _Region:
    """One drawn shape: VIA's two dictionaries, and where they stand."""

    shape: dict
    attributes: dict
    place: str


def read_via(
    json_file: Path,
    image_dir: Path,
    class_names: tuple[str, ...] | None = None,
    class_attribute: str | None = None,
    *,
    keeps_emptied: bool = False,
) -> LoadedSplit:
    """Read one split in place; polygons, ellipses and circles give a box and a mask.

    Args:
        json_file: annotations or a project of VIA.
        image_dir: what the names of the images are relative to.
        class_names: in order of their numbers; None for all names in the file, sorted. With one
            name, regions need not say their class.
        class_attribute: the region attribute that says the class; None for the only one there is.
        keeps_emptied: see `DataReport`.

    Raises:
        UserError: a fault in the structure, with the region and the cure.
    """
    faults = Faults()
    images = _images(json_file, faults)
    attribute = class_attribute or _only_attribute(json_file, images)
    only_class = class_names[0] if class_names and len(class_names) == 1 else None
    class_names = class_names or _class_names(json_file, images, attribute)
    report = DataReport.for_classes(class_names, keeps_emptied=keeps_emptied)
    numbers = ClassNumbers(class_names)
    folder = ImageFolder(image_dir, report, faults)
    entries = []
    for name, regions in images.items():
        solid = _without_flat(regions, report)
        boxes = [_box(region, attribute, only_class, numbers, faults) for region in solid]
        found = [box for box in boxes if box]
        place = f"{json_file}, {name}"
        path, flat = folder.find(name, place), len(regions) - len(solid)
        entries.append(ImageEntry(name, path, place, found, lost_boxes=flat))
    numbers.add_fault(str(json_file), faults)
    faults.stop_if_any()
    records = make_records(
        entries, source=json_file, image_dir=image_dir, class_names=class_names, report=report
    )
    return LoadedSplit(records, class_names, report)


def via_class_names(json_file: Path, class_attribute: str | None = None) -> tuple[str, ...]:
    """Return the classes of all regions, sorted; none where no region has attributes.

    Raises:
        UserError: the file is faulty, or several attributes could say the class.
    """
    faults = Faults()
    images = _images(json_file, faults)
    faults.stop_if_any()
    attribute = class_attribute or _only_attribute(json_file, images)
    return clean_class_names(sorted(_classes(images, attribute)), json_file)


def _images(path: Path, faults: Faults) -> dict[str, list[_Region]]:
    """Return the regions by name of the image."""
    entries = via_entries(read_json(path))
    if entries is None:
        raise UserError(
            f"{path}: no annotations of VIA 1 or 2, which would be one entry an image with "
            "`filename` and `regions`; export them as JSON"
        )
    images: dict[str, list[_Region]] = {}
    for entry in entries:
        name = entry["filename"]
        if name in images:
            faults.add(f"{path}, {name}", "stands twice; merge its two entries")
        images[name] = list(_regions(entry["regions"], f"{path}, {name}", faults))
    return images


def via_entries(content: object) -> list[dict] | None:
    """Return the entries of the images of VIA 1 or 2, or None for any other JSON."""
    if isinstance(content, dict) and isinstance(content.get(_PROJECT_KEY), dict):
        content = content[_PROJECT_KEY]
    if not isinstance(content, dict) or not all(map(_is_image, content.values())):
        return None
    return list(content.values())


def _is_image(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("filename"), str)
        and bool(entry["filename"])
        and isinstance(entry.get("regions"), dict | list)
    )


def _regions(regions: dict | list, place: str, faults: Faults) -> Iterator[_Region]:
    # Version 1 numbers the regions, version 2 lists them.
    entries = regions.values() if isinstance(regions, dict) else regions
    for number, entry in enumerate(entries):
        where = f"{place}, region {number}"
        parts = entry if isinstance(entry, dict) else {}
        shape, attributes = parts.get("shape_attributes"), parts.get("region_attributes", {})
        if isinstance(shape, dict) and isinstance(attributes, dict):
            yield _Region(shape, attributes, where)
        else:
            faults.add(where, "has no shape_attributes or wrong region_attributes; export again")


def _only_attribute(path: Path, images: dict[str, list[_Region]]) -> str | None:
    """Return the one attribute that regions have, or None where they have none."""
    counts = Counter(
        name for regions in images.values() for region in regions for name in region.attributes
    )
    if len(counts) > 1:
        raise UserError(
            f"{path}: the regions have the attributes {', '.join(map(str, counts))[:200]}; say "
            "under `class_attribute` which one is the class"
        )
    return next(iter(counts), None)


def _classes(images: dict[str, list[_Region]], attribute: str | None) -> set[str]:
    values = (region.attributes.get(attribute) for some in images.values() for region in some)
    return {value.strip() for value in values if isinstance(value, str) and value.strip()}


def _class_names(
    path: Path, images: dict[str, list[_Region]], attribute: str | None
) -> tuple[str, ...]:
    names = sorted(_classes(images, attribute))
    if not names:
        raise UserError(f"{path}: no region says its class; give `class_names` with one name")
    return clean_class_names(names, path)


def _without_flat(regions: list[_Region], report: DataReport) -> list[_Region]:
    """Return the regions that enclose something; the others are dropped, and counted."""
    solid = []
    for region in regions:
        if region.shape.get("name") not in FLAT_SHAPES:
            solid.append(region)
            continue
        report.found_boxes += 1
        report.drop_box("points and lines, which have no area, dropped", region.place)
    return solid


def _box(
    region: _Region,
    attribute: str | None,
    only_class: str | None,
    numbers: ClassNumbers,
    faults: Faults,
) -> OutlinedBox | None:
    name = region.attributes.get(attribute, "")
    if not isinstance(name, str):
        faults.add(region.place, f"its {attribute} is no text: {str(name)[:40]}; write one class")
        return None
    if not name.strip() and only_class is None:
        faults.add(region.place, "does not say its class; complete it or delete the region")
        return None
    try:
        xyxy, outline = read_shape(region.shape)
    except ValueError as error:
        faults.add(region.place, f"{error}; correct or delete the region")
        return None
    number = numbers.number(name.strip() or only_class)
    return None if number is None else OutlinedBox(xyxy, number, region.place, outline=outline)
