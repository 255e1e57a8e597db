"""What reading a data set found: counts, odd records, and faults that must stop it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..errors import UserError, printable

FRAMES = "files with several frames or pages"
SHOWN_FAULTS = 5
KEPT_PLACES = 20
# What quotes a damaged file keeps its beginning and its end, where the cure stands.
_LONGEST = 600


@dataclass
class DataReport:
    """Counts of one load, and every record that was changed or dropped, under its reason.

    What comes in is counted by the reader, before anything is looked at; what becomes of it, where
    it is kept or dropped. `imbalance` compares the two.

    Attributes:
        found_images, found_boxes: what the files of the data set name.
        images, boxes: what is kept; boxes by class name.
        empty_images: how many of the images have no box.
        dropped_images, dropped_boxes: what is not.
        reasons: how often each thing was mended, dropped or listed.
        places: the first places of each reason by name.
        drop_reasons: which of the reasons stand for something that is left out.
        frames: number of frames or pages of each image file that has several, by its path.
        named_files: absolute paths of the image files that the annotations name, kept or not.
        unread_files: absolute paths of what walks have counted, so that two walks count it once.
        keeps_emptied: an image that lost all its boxes is kept as one without boxes.
    """

    found_images: int = 0
    found_boxes: int = 0
    images: int = 0
    empty_images: int = 0
    boxes: Counter[str] = field(default_factory=Counter)
    dropped_images: int = 0
    dropped_boxes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    drop_reasons: set[str] = field(default_factory=set)
    frames: dict[str, int] = field(default_factory=dict)
    named_files: set[str] = field(default_factory=set)
    unread_files: set[str] = field(default_factory=set)
    keeps_emptied: bool = False

    @classmethod
    def for_classes(
        cls, class_names: tuple[str, ...], *, keeps_emptied: bool = False
    ) -> DataReport:
        """Return an empty report that lists its classes in order, those without boxes too."""
        return cls(boxes=Counter(dict.fromkeys(class_names, 0)), keeps_emptied=keeps_emptied)

    def drop_image(self, reason: str, place: str, boxes: int) -> None:
        """Count an image that is left out, and its boxes with it."""
        self.dropped_images += 1
        self.dropped_boxes += boxes
        self.drop_reasons.add(reason)
        self.note(reason, place)

    def drop_box(self, reason: str, place: str) -> None:
        """Count a box that is left out of an image that stays."""
        self.dropped_boxes += 1
        self.drop_reasons.add(reason)
        self.note(reason, place)

    def imbalance(self) -> str | None:
        """Return what was neither kept nor dropped, in words; None where all is accounted for."""
        images = self.found_images - self.images - self.dropped_images
        boxes = self.found_boxes - self.boxes.total() - self.dropped_boxes
        return f"{images} images and {boxes} boxes unaccounted for" if images or boxes else None

    def note_frames(self, path: str, frames: int) -> None:
        """Count an image file if it has several frames or pages."""
        if frames > 1 and path not in self.frames:
            self.frames[path] = frames
            self.note(FRAMES, f"{path}, which has {frames:,}")

    def note(self, reason: str, place: str, count: int = 1) -> None:
        """Count what was mended or merely seen; the first places of each reason keep their name."""
        self.reasons[reason] += count
        places = self.places.setdefault(reason, [])
        if len(places) < KEPT_PLACES:
            places.append(shortened(printable(place)))

    def summary(self) -> str:
        """Return the counts in one line."""
        classes = ", ".join(f"{printable(name)} {count:,}" for name, count in self.boxes.items())
        return (
            f"{self.images:,} images ({self.empty_images:,} without boxes), "
            f"{self.boxes.total():,} boxes ({classes})"
        )

    def oddities(self) -> str:
        """Return what was changed or dropped in one line, each reason with its first place."""
        return "; ".join(
            f"{count:,} {printable(reason)} (first: {self.places[reason][0]})"
            for reason, count in self.reasons.items()
        )

    def as_dict(self) -> dict:
        """Return the report as plain data, for `MetadataCatalog` and JSON."""
        return {
            "found": {"images": self.found_images, "boxes": self.found_boxes},
            "dropped": {"images": self.dropped_images, "boxes": self.dropped_boxes},
            "images": self.images,
            "images_without_boxes": self.empty_images,
            "boxes": dict(self.boxes),
            "reasons": dict(self.reasons),
            "first_places": {reason: list(places) for reason, places in self.places.items()},
        }


class Faults:
    """Errors in the structure of annotation files, gathered so that several show at once."""

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._count = 0

    def add(self, place: str, fault: str) -> None:
        """Record that `place` (file and line or record) has `fault` (with its cure)."""
        self._count += 1
        if len(self._messages) < SHOWN_FAULTS:
            self._messages.append(shortened(f"{place}: {fault}"))

    def stop_if_any(self) -> None:
        """Raise the first faults and their number.

        Raises:
            UserError: at least one fault was recorded.
        """
        if self._count == 1:
            raise UserError(self._messages[0])
        if self._count:
            rest = self._count - len(self._messages)
            more = [f"and {rest:,} more"] if rest else []
            shown = (f"  {line}" for line in [*self._messages, *more])
            raise UserError(f"{self._count:,} faults in the annotations:", *shown)


def shortened(text: str) -> str:
    """Return a message or a place; of one that quotes far too much, the beginning and the end."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}"
