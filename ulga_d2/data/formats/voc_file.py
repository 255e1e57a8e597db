"""Read one XML file of the Pascal VOC layout.

Beside VOC's `bndbox`, the rotated `robndbox` of roLabelImg and labelImg2 is read, and the rotation
that CVAT writes as an attribute: both become the box around the rotated one.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from ...errors import UserError
from ..report import Faults
from .classes import clean_class_name
from .numbers import number_fault, read_flag, stated_size
from .text import read_bytes, read_text

CORNERS = ("xmin", "ymin", "xmax", "ymax")
ROTATED = ("cx", "cy", "w", "h", "angle")
# What is read of one file; an object has some 300 characters and 20 tags.
MAX_BYTES = 8_000_000
MAX_TAGS = 600_000
MAX_OBJECTS = 30_000
# Python's names of encodings that no XML file has, and some of which take very long.
_NO_ENCODINGS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined")

ROTATED_BOXES = "rotated boxes (robndbox, or rotation) read as the box around them"
DIFFICULT = "difficult objects read like all others"
MISDECLARED = "XML files read as UTF-8, which is not the encoding that they declare"
FURTHER_BOXES = "further <bndbox> of one object dropped"
_DECLARED = re.compile(r"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]+)["'][^>]*\?>""")


@dataclass(frozen=True)
class VocObject:
    """One `object` of a file.

    Attributes:
        name: of its class.
        corners: as written: left, top, right, bottom.
        path: the file and the number of the object.
        is_written: the corners are those of the file; of a rotated box they are computed, and
            count from the image's edge.
    """

    name: str
    corners: tuple[float, float, float, float]
    path: str
    is_written: bool = True

    def starts_at(self, value: int) -> bool:
        """Whether the first corner has this number on one axis."""
        return self.is_written and value in self.corners[:2]

    def xyxy(self, base: int) -> tuple[float, float, float, float]:
        """Return the box in pixels from 0, half-open.

        Args:
            base: the number of the first pixel. From 1, the last corner is inclusive, as in Pascal
                VOC. From 0, corners are edges, as the tools have it that write them.
        """
        x0, y0, x1, y1 = self.corners
        if base == 0 or not self.is_written or (x0, y0) == (x1, y1):
            return self.corners
        return x0 - 1, y0 - 1, x1, y1


@dataclass(frozen=True)
class VocFile:
    """What one XML file says.

    Attributes:
        path: the file.
        image_name: `filename`, which many tools leave wrong.
        size: (height, width); None where they are missing or 0.
        objects: in their order.
        notes: (reason, path) of what is not read as it stands.
        further: paths of the second and further boxes of one object, which are not read.
    """

    path: Path
    image_name: str
    size: tuple[int, int] | None
    objects: list[VocObject] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    further: list[str] = field(default_factory=list)


def parse_voc_file(path: Path, faults: Faults) -> VocFile | None:
    """Return what one XML file says, without the objects that have a fault.

    A document type is refused, since by its entities a small file can stand for a huge one.

    Args:
        path: the file.
        faults: takes what is wrong, in place.
    """
    source = str(path)
    try:
        text, is_misdeclared = _read_xml(source)
    except UserError as error:
        faults.add(source, str(error).removeprefix(f"{source} "))
        return None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        faults.add(source, "document types and entities are not read; remove them")
        return None
    if text.count("<") > MAX_TAGS:
        faults.add(source, f"more than {MAX_TAGS:,} tags, which are not read; export it again")
        return None
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        faults.add(source, f"not valid XML ({error}); export the file again")
        return None
    if root.tag != "annotation":
        faults.add(source, "not a VOC file, which would start with <annotation>")
        return None
    elements = root.findall("object")
    if len(elements) > MAX_OBJECTS:
        faults.add(source, f"{len(elements):,} objects, more than {MAX_OBJECTS:,}; export it again")
        return None
    file = VocFile(path, _text(root, "filename"), _size(root, source, faults))
    if is_misdeclared:
        file.notes.append((MISDECLARED, source))
    for number, element in enumerate(elements, start=1):
        _add_object(element, f"{path}, object {number}", file, faults)
    return file


def _read_xml(path: str) -> tuple[str, bool]:
    """Return the text of an XML file, and whether its declared encoding is wrong.

    The declared encoding counts, unless the bytes contradict it and are UTF-8: some writers declare
    the encoding of the text in memory.
    """
    data = read_bytes(path, MAX_BYTES)
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        declared = encoding = "utf-32"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        declared = encoding = "utf-16"
    elif data.startswith((b"<\0", b"\0<")):
        declared = encoding = "utf-16-le" if data.startswith(b"<\0") else "utf-16-be"
    else:
        found = _DECLARED.search(data[:200].decode("latin-1").removeprefix("\xef\xbb\xbf"))
        declared = encoding = found[1].lower() if found else "utf-8"
        if declared.startswith(("utf-16", "utf-32")) and b"\0" not in data:
            encoding = "utf-8"
    if declared in ("utf-8", "utf8"):
        text = read_text(path)
    else:
        text, encoding = _decoded(data, encoding, declared, path)
    text = text.lstrip("\ufeff")
    return _DECLARED.sub("", text, count=1), encoding == "utf-8" and declared not in (
        "utf-8",
        "utf8",
    )


def _decoded(data: bytes, encoding: str, declared: str, path: str) -> tuple[str, str]:
    """Return the text and the encoding that it has: the given one, else UTF-8."""
    try:
        is_known = codecs.lookup(encoding).name not in _NO_ENCODINGS
        if is_known:
            return data.decode(encoding), encoding
    except LookupError:  # of a name that is none, or no encoding of text
        is_known = False
    except ValueError:
        pass
    if not is_known:
        raise UserError(f"{path} declares an unknown encoding {declared}; save it as UTF-8")
    try:
        return data.decode("utf-8"), "utf-8"
    except ValueError:
        raise UserError(
            f"{path} is not in the encoding {declared} that it declares; save it as UTF-8"
        ) from None


def _add_object(element: ElementTree.Element, path: str, file: VocFile, faults: Faults) -> None:
    name = _text(element, "name")
    rotated = element.find("robndbox")
    is_rotated = rotated is not None and element.find("bndbox") is None
    kind, keys = ("robndbox", ROTATED) if is_rotated else ("bndbox", CORNERS)
    texts = {key: _text(element, f"{kind}/{key}") for key in keys}
    difficult = read_flag(_text(element, "difficult"))
    fault = _fault(element, name, texts)
    if not fault and difficult is None:
        fault = f"difficult is {_text(element, 'difficult')[:20]!r}, not 0 or 1; correct it"
    if fault:
        faults.add(path, fault)
        return
    numbers = tuple(map(float, texts.values()))
    turned = _rotation(element)
    if is_rotated or turned:
        # Both tools count from the image's edge.
        x0, y0, x1, y1 = numbers[:4]
        given = numbers if is_rotated else ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, turned)
        file.objects.append(VocObject(name, _around(*given), path, is_written=False))
        file.notes.append((ROTATED_BOXES, path))
    else:
        file.objects.append(VocObject(name, numbers, path))
    if difficult:
        file.notes.append((DIFFICULT, path))
    file.further.extend([path] * (len(element.findall(kind)) - 1))


def _fault(element: ElementTree.Element, name: str, texts: Mapping[str, str]) -> str | None:
    if not name:
        return "has no name; write its class"
    try:
        clean_class_name(name)
    except ValueError as error:
        return str(error)
    if len(element.findall("name")) > 1:
        return "has two names; write one class"
    if not any(texts.values()):
        shapes = [child.tag for child in element if child.tag in ("polygon", "polyline", "points")]
        if shapes:
            return f"has a <{shapes[0]}> but no <bndbox>; export the annotations as boxes"
        if element.find("bndbox") is None and element.find("robndbox") is None:
            return "has no <bndbox>; write its box or delete the object"
    fault = number_fault(texts)
    if fault:
        return fault
    numbers = list(map(float, texts.values()))
    if "angle" in texts:
        return _rotated_fault(numbers)
    x0, y0, x1, y1 = numbers
    # Less than a pixel apart is a narrow box: the last pixel may also be the first.
    if x1 < x0 - 1 or y1 < y0 - 1:
        return (
            f"the last corner ({x1:g}, {y1:g}) lies before the first ({x0:g}, {y0:g}); correct it"
        )
    return None


def _rotated_fault(numbers: list[float]) -> str | None:
    width, height, angle = numbers[2:]
    if min(width, height) < 0:
        return f"the rotated box (robndbox) has the size {width:g} x {height:g}; correct it"
    if not abs(angle) <= 2 * math.pi + 0.01:
        return (
            f"the rotated box (robndbox) has an angle of {angle:g}, which seems to be in degrees; "
            "write radians"
        )
    return None


def _rotation(element: ElementTree.Element) -> float:
    """Return the angle in radians that CVAT gives a rotated rectangle, 0 for none."""
    for attribute in element.iterfind("attributes/attribute"):
        if _text(attribute, "name") == "rotation" and not number_fault(
            {"rotation": _text(attribute, "value")}
        ):
            return math.radians(float(_text(attribute, "value")) % 180)
    return 0.0


def _around(
    cx: float, cy: float, width: float, height: float, angle: float
) -> tuple[float, float, float, float]:
    """Return the box around a rotated one; the direction of the angle does not matter."""
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    half_x, half_y = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return cx - half_x, cy - half_y, cx + half_x, cy + half_y


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _size(root: ElementTree.Element, source: str, faults: Faults) -> tuple[int, int] | None:
    try:
        return stated_size(_text(root, "size/height"), _text(root, "size/width"))
    except ValueError as error:
        faults.add(source, str(error))
        return None
