"""Read Pascal VOC annotations: one XML file an image.

Source: the VOC development kit (Everingham et al., IJCV 2010). Its corners are numbers of pixels,
from 1 and inclusive, and so are those of the common tools that write this format: the box of the
first pixel alone is (1, 1, 1, 1). Both corners on one pixel are a click, though, not a box.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from ...errors import UserError
from ..record import LoadedSplit
from ..report import DataReport, Faults
from .classes import ClassNumbers
from .files import ImageFolder, files_by_stem
from .images import ImageEntry, OutlinedBox, make_records
from .numbers import number_fault, stated_size
from .policy import check_missing
from .text import read_text

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    """One `object` of a file: its class, its corners as written, and where it stands."""

    name: str
    corners: tuple[float, float, float, float]
    place: str


@dataclass(frozen=True)
class VocFile:
    """What one XML file says.

    Attributes:
        path: the file.
        image_name: `filename`, which many tools leave wrong.
        size: (height, width); None where they are missing or 0.
        objects: in their order.
    """

    path: Path
    image_name: str
    size: tuple[int, int] | None
    objects: list[VocObject]


def read_voc(
    annotation_dir: Path,
    image_dir: Path,
    names: Sequence[str] | None = None,
    class_names: tuple[str, ...] | None = None,
    *,
    keeps_emptied: bool = False,
) -> LoadedSplit:
    """Read one split in place. "difficult" objects count like all others.

    The image of `a.xml` is the one named `a`, and only where there is none, the one that `filename`
    names.

    Args:
        annotation_dir: holds the XML files, also in subfolders.
        image_dir: the same tree with images.
        names: the split's images without suffix, as in `ImageSets/Main`; None for all files.
        class_names: in order of their numbers; None for all names in the folder, sorted, so that
            the splits of one folder agree.
        keeps_emptied: see `DataReport`.

    Raises:
        UserError: a fault in the structure, with file and cure.
    """
    paths = files_by_stem(annotation_dir, [".xml"])
    if not paths:
        raise UserError(f"{annotation_dir} holds no XML files; name the folder of the annotations")
    class_names = class_names or voc_class_names(annotation_dir)
    report = DataReport.for_classes(class_names, keeps_emptied=keeps_emptied)
    wanted = sorted(paths) if names is None else _once(names, report)
    missing = [name for name in wanted if name not in paths]
    _drop_unannotated(missing, len(wanted), annotation_dir, report)
    faults = Faults()
    files = _parse({name: paths[name] for name in wanted if name in paths}, faults)
    numbers = ClassNumbers(class_names)
    images = ImageFolder(image_dir, report, faults)
    entries = [_entry(name, file, images, numbers, faults) for name, file in files.items()]
    numbers.add_fault(str(annotation_dir), faults)
    faults.stop_if_any()
    records = make_records(
        entries, source=annotation_dir, image_dir=image_dir, class_names=class_names, report=report
    )
    return LoadedSplit(records, class_names, report)


def read_image_set(path: Path) -> list[str]:
    """Return the names that a file of `ImageSets/Main` lists, one a line.

    Raises:
        UserError: the file cannot be read, lists nothing, or is one class's list of flags.
    """
    names = [line.strip() for line in read_text(str(path)).splitlines() if line.strip()]
    if not names:
        raise UserError(f"{path} lists no image; write one name a line, without suffix")
    if all(name.endswith((" 1", " -1", " 0")) for name in names):
        raise UserError(
            f"{path} lists the images of one class with a flag (1, 0, -1); name the list of all "
            "classes, such as train.txt"
        )
    return names


def voc_class_names(annotation_dir: Path) -> tuple[str, ...]:
    """Return the names of all objects in a folder's XML files, sorted.

    Raises:
        UserError: there is none, or a file is faulty.
    """
    faults = Faults()
    files = _parse(files_by_stem(annotation_dir, [".xml"]), faults).values()
    faults.stop_if_any()
    names = {item.name for file in files for item in file.objects}
    if not names:
        raise UserError(f"no XML file in {annotation_dir} has an object; check the folder")
    return tuple(sorted(names))


def _once(names: Sequence[str], report: DataReport) -> list[str]:
    unique = list(dict.fromkeys(names))
    for name, count in Counter(names).items():
        if count > 1:
            report.note("images listed twice read once", name)
    return unique


def _drop_unannotated(missing: list[str], listed: int, folder: Path, report: DataReport) -> None:
    check_missing(missing, listed, f"listed images have no annotation file in {folder}")
    for name in missing:
        report.found_images += 1
        report.drop_image("listed images without annotation file dropped", name, boxes=0)


def _parse(paths: dict[str, Path], faults: Faults) -> dict[str, VocFile]:
    files = {name: _parse_file(path, faults) for name, path in paths.items()}
    return {name: file for name, file in files.items() if file}


def _parse_file(path: Path, faults: Faults) -> VocFile | None:
    """Return what one XML file says, without the objects that have a fault.

    A document type is refused, since by its entities a small file can stand for a huge one.
    """
    place = str(path)
    text = read_text(place)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        faults.add(place, "document types and entities are not read; remove them")
        return None
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        faults.add(place, f"not valid XML ({error}); export the file again")
        return None
    if root.tag != "annotation":
        faults.add(place, "not a VOC file, which would start with <annotation>")
        return None
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        place = f"{path}, object {number}"
        name = _text(element, "name")
        texts = {key: _text(element, f"bndbox/{key}") for key in _CORNERS}
        fault = _fault(name, texts)
        if fault:
            faults.add(place, fault)
        else:
            objects.append(VocObject(name, tuple(map(float, texts.values())), place))
    return VocFile(path, _text(root, "filename"), _size(root, str(path), faults), objects)


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _size(root: ElementTree.Element, place: str, faults: Faults) -> tuple[int, int] | None:
    try:
        return stated_size(_text(root, "size/height"), _text(root, "size/width"))
    except ValueError as error:
        faults.add(place, str(error))
        return None


def _fault(name: str, corners: dict[str, str]) -> str | None:
    if not name:
        return "has no name; write its class"
    fault = number_fault(corners)
    if fault:
        return fault
    x0, y0, x1, y1 = map(float, corners.values())
    # Less than a pixel apart is a narrow box: the last pixel may also be the first.
    if x1 < x0 - 1 or y1 < y0 - 1:
        return (
            f"the last corner ({x1:g}, {y1:g}) lies before the first ({x0:g}, {y0:g}); correct it"
        )
    return None


def _entry(
    name: str, file: VocFile, images: ImageFolder, numbers: ClassNumbers, faults: Faults
) -> ImageEntry:
    path = images.find(name, str(file.path), is_stem=True)
    if file.image_name and not os.path.isfile(path):
        other = PurePosixPath(file.image_name.replace("\\", "/")).name
        path = images.find(other, str(file.path))
    boxes = []
    for item in file.objects:
        number = numbers.number(item.name)
        if number is not None:
            boxes.append(OutlinedBox(_xyxy(item.corners), number, item.place))
    return ImageEntry(name, path, str(file.path), boxes, file.size)


def _xyxy(corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = corners
    return corners if (x0, y0) == (x1, y1) else (x0 - 1, y0 - 1, x1, y1)
