"""What reading a data set found: counts, odd records, and faults that must stop it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..errors import UserError

SHOWN_FAULTS = 5
KEPT_PLACES = 20


@dataclass
class DataReport:
    """Counts of one load, and every record that was changed or dropped, under its reason."""

    images: int = 0
    empty_images: int = 0
    boxes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def for_classes(cls, class_names: tuple[str, ...]) -> DataReport:
        """Return an empty report that lists its classes in order, those without boxes too."""
        return cls(boxes=Counter(dict.fromkeys(class_names, 0)))

    def note(self, reason: str, place: str) -> None:
        """Count a record under `reason`; the first places of each reason are kept by name."""
        self.reasons[reason] += 1
        places = self.places.setdefault(reason, [])
        if len(places) < KEPT_PLACES:
            places.append(place)

    def summary(self) -> str:
        """Return the counts in one line."""
        classes = ", ".join(f"{name} {count:,}" for name, count in self.boxes.items())
        return (
            f"{self.images:,} images ({self.empty_images:,} without boxes), "
            f"{self.boxes.total():,} boxes ({classes})"
        )

    def oddities(self) -> str:
        """Return what was changed or dropped in one line, each reason with its first place."""
        return "; ".join(
            f"{count:,} {reason} (first: {self.places[reason][0]})"
            for reason, count in self.reasons.items()
        )

    def as_dict(self) -> dict:
        """Return the report as plain data, for `MetadataCatalog` and JSON."""
        return {
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
            self._messages.append(f"{place}: {fault}")

    def stop_if_any(self) -> None:
        """Raise the first faults and their number.

        Raises:
            UserError: at least one fault was recorded.
        """
        if self._count == 1:
            raise UserError(self._messages[0])
        if self._count:
            shown = "\n  ".join(self._messages)
            rest = self._count - len(self._messages)
            more = f"\n  and {rest:,} more" if rest else ""
            raise UserError(f"{self._count:,} faults in the annotations:\n  {shown}{more}")
