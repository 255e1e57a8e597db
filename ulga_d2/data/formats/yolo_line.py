"""One line of a YOLO label file: a box, or an outline of points, as fractions of the image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..image_header import image_size
from ..report import Faults
from .images import OutlinedBox

# Numbers above 1 by no more than this are rounding, not another unit.
ROUNDING = 0.01
# Numbers above 1 but not above this are those of boxes that reach out of the image, unless so many
# lines have them, and at least the share MIN_SHARE.
MAX_FRACTION, MIN_LINES = 2, 3
# Of so many boxes or more, if at least this share reaches out of the image by more than OVERHANG,
# the numbers are not centers and sizes.
MIN_BOXES = 5
MIN_SHARE = 0.3
OVERHANG = 0.02
# The sizes of so many images are compared with the numbers of a wrong unit.
SIZES = 100


@dataclass(frozen=True)
class YoloLine:
    """A line whose structure is sound.

    Attributes:
        category_id: number of the class.
        numbers: center x, center y, width, height; or the points x1, y1, x2, y2, ... of an outline.
        path: the file, and the number of the line in it.
    """

    category_id: int
    numbers: tuple[float, ...]
    path: str

    @property
    def is_outline(self) -> bool:
        """Whether the line gives points, not a box."""
        return len(self.numbers) != 4

    def box(self) -> OutlinedBox:
        """Return the box, or the box around the outline, in fractions of the image."""
        if self.is_outline:
            xs, ys = self.numbers[::2], self.numbers[1::2]
            xyxy = (min(xs), min(ys), max(xs), max(ys))
            return OutlinedBox(xyxy, self.category_id, self.path, outline=[list(self.numbers)])
        cx, cy, w, h = self.numbers
        xyxy = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        return OutlinedBox(xyxy, self.category_id, self.path)


def parse_line(
    fields: Sequence[str], class_names: Sequence[str], keypoints: int, path: str
) -> YoloLine | str:
    """Return one line, or what is wrong with its structure and how to fix it.

    Args:
        fields: of the line, separated by blanks; at least one.
        class_names: by number.
        keypoints: how many numbers of keypoints follow each box; 0 for none.
        path: the file and the number of the line.
    """
    count = len(fields) - keypoints
    if count != 5 and (keypoints or len(fields) < 7 or len(fields) % 2 == 0):
        return _wrong_number_of_fields(fields, keypoints)
    for number, text in enumerate(fields):
        fault = _number_fault(text, is_class=number == 0)
        if fault:
            return fault
    category = float(fields[0])
    if not category.is_integer() or not 0 <= category < len(class_names):
        return (
            f"class {fields[0][:20]} is not among the {len(class_names)} names "
            f"(0 to {len(class_names) - 1}: {_some(class_names)}); correct it or the names"
        )
    numbers = tuple(map(float, fields[1 : len(fields) - keypoints]))
    return YoloLine(int(category), numbers, path)


def _some(class_names: Sequence[str]) -> str:
    return ", ".join([*class_names[:20], *(["..."] if len(class_names) > 20 else [])])


def _number_fault(text: str, *, is_class: bool) -> str | None:
    shown = repr(text[:20])
    try:
        number = float(text)
    except ValueError:
        if is_class and any(map(str.isalpha, text)):
            return f"{shown} is not a number; write the number of the class, not its name"
        hint = "write a decimal point, not a comma" if "," in text else "write a plain number"
        return f"{shown} is not a number; {hint}"
    if not math.isfinite(number):
        return f"{shown} is not a finite number; delete the line or annotate the box again"
    return None


def _wrong_number_of_fields(fields: Sequence[str], keypoints: int) -> str:
    count = len(fields)
    expected = f"{count} {'field' if count == 1 else 'fields'} instead of 5 (class cx cy w h)"
    if keypoints:
        return (
            f"{count} fields instead of {5 + keypoints} (class cx cy w h, and the {keypoints} "
            "numbers that `kpt_shape` announces); correct the line or `kpt_shape`"
        )
    if count == 1 and "," in fields[0]:
        return f"{expected}; separate the numbers by blanks, not commas"
    if count == 6:
        return f"{expected}; is this a prediction with a score? Remove the last field"
    if count == 10 and any(map(str.isalpha, fields[8])):
        return (
            f"{expected}; these are DOTA's oriented boxes (four corners in pixels, class, "
            "difficult): convert them to YOLO's (class, four corners as fractions of the image)"
        )
    if count >= 8:
        return (
            f"{expected} or an odd number (class x1 y1 x2 y2 ...); keypoints are read with "
            "`kpt_shape` in an Ultralytics data.yaml, and a score at the end has to be removed"
        )
    return f"{expected}; correct or delete the line"


class Units:
    """Check that the numbers of a split are fractions of the image, and centers and sizes."""

    def __init__(self) -> None:
        self._lines = 0
        self._other: list[tuple[YoloLine, Path]] = []
        self._boxes = 0
        self._overhanging = 0
        self._may_be_corners = True
        self._may_be_top_left = True

    def add(self, lines: Iterable[YoloLine], image: Path) -> None:
        """Take the lines of one image into account."""
        for line in lines:
            self._lines += 1
            if max(line.numbers) > 1 + ROUNDING:
                self._other.append((line, image))
            if max(line.numbers) <= MAX_FRACTION and not line.is_outline:
                self._add_box(*line.numbers)

    def _add_box(self, cx: float, cy: float, w: float, h: float) -> None:
        self._boxes += 1
        inside = min(cx - w / 2, cy - h / 2, 1 - cx - w / 2, 1 - cy - h / 2)
        self._overhanging += inside < -OVERHANG
        self._may_be_corners &= w > cx and h > cy
        self._may_be_top_left &= max(cx + w, cy + h) <= 1 + ROUNDING

    def add_faults(self, source: str, faults: Faults) -> None:
        """Record what proves another unit.

        Args:
            source: of the labels, for messages.
            faults: takes the faults, in place.
        """
        proof = self._other
        if len(proof) < max(MIN_LINES, MIN_SHARE * self._lines):
            proof = [pair for pair in proof if max(pair[0].numbers) > MAX_FRACTION]
        unit = _unit(proof)
        for line, _ in proof:
            number = max(line.numbers)
            faults.add(
                line.path,
                f"{number:g} is above 1, so the numbers are not fractions of the image; {unit}. "
                "Write class cx cy w h with fractions from 0 to 1",
            )
        if proof or self._boxes < MIN_BOXES or self._overhanging < MIN_SHARE * self._boxes:
            return
        if self._may_be_corners or self._may_be_top_left:
            seem = "x1 y1 x2 y2" if self._may_be_corners else "left, top, width, height"
            faults.add(
                source,
                f"{self._overhanging:,} of {self._boxes:,} boxes reach out of their image when "
                f"read as class cx cy w h (center and size); they seem to be {seem}. Convert them",
            )


def _unit(lines: Sequence[tuple[YoloLine, Path]]) -> str:
    """Return the unit that numbers above 1 seem to have, in words."""
    if not lines:
        return ""
    values = [value for line, _ in lines for value in line.numbers]
    highest = max(values)
    sizes = [_size(image) for _, image in lines[:SIZES]]
    fits = all(_fits(line.numbers, size) for (line, _), size in zip(lines, sizes, strict=False))
    is_small = all(max(size) <= 100 for size in sizes)
    is_whole = all((2 * value).is_integer() for value in values)
    if fits and (is_whole or (is_small and highest > MAX_FRACTION) or highest > 100.5):
        return "they seem to be pixels"
    if highest <= MAX_FRACTION:
        return "they seem to be fractions of another side, or of an image of another size"
    if highest <= 100.5:
        return "they seem to be percent"
    if highest <= 1000.5:
        return "they seem to be thousandths, or pixels of an image of another size"
    return "they seem to be pixels of an image of another size"


def _size(image: Path) -> tuple[float, float]:
    try:
        return image_size(str(image))
    except UserError:
        return math.inf, math.inf


def _fits(numbers: Sequence[float], size: tuple[float, float]) -> bool:
    height, width = size
    return max(numbers[::2]) <= width + 1 and max(numbers[1::2]) <= height + 1
