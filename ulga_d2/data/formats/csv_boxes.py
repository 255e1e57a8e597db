"""Read a CSV file of boxes: one row a box, or an image without boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import UserError
from ..record import LoadedSplit
from ..report import DataReport, Faults
from .classes import ClassNumbers, clean_class_names
from .csv_file import Row, read_header, read_rows
from .files import ImageFolder
from .images import ImageEntry, OutlinedBox, make_records
from .numbers import is_empty, number_fault, read_number, stated_size

CORNERS = ("x1", "y1", "x2", "y2")
SIDES = ("x", "y", "width", "height")
_IMAGE_SIDES = ("image_height", "image_width")
# What a column means, and how it is commonly called.
COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "filename", "file_name", "image_name", "image_path", "image_id", "path"),
    "class": ("class", "class_name", "label", "label_name", "category", "category_name"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "x": ("x", "bbox_x"),
    "y": ("y", "bbox_y"),
    "width": ("width", "w", "bbox_width", "bbox_w"),
    "height": ("height", "h", "bbox_height", "bbox_h"),
    "image_width": ("image_width", "img_width"),
    "image_height": ("image_height", "img_height"),
}


def read_csv(
    csv_file: Path,
    image_dir: Path,
    class_names: tuple[str, ...] | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    keeps_emptied: bool = False,
) -> LoadedSplit:
    """Read one split in place; a row whose four numbers are empty is an image without boxes.

    What table programs write for "no value" (nan, None, NA, null) counts as empty, and is no class.

    Coordinates are pixels from 0, half-open: x2 - x1 is the width. Where there are corners,
    columns called width and height are the image's.

    Args:
        csv_file: the rows under a header.
        image_dir: what the names of the images are relative to; the suffix may be missing.
        class_names: in order of their numbers; None for all names in the file, sorted. With one
            name the file needs no column of classes.
        columns: the file's name of a column by its meaning (a key of COLUMNS), where it is not one
            of the common ones.
        keeps_emptied: see `DataReport`.

    Raises:
        UserError: a fault in the structure, with file, line and cure.
    """
    places = _places(
        csv_file, columns or {}, needs_class=not (class_names and len(class_names) == 1)
    )
    rows = _rows(csv_file)
    class_names = class_names or csv_class_names(csv_file, columns)
    report = DataReport.for_classes(class_names, keeps_emptied=keeps_emptied)
    reader = _Reader(csv_file, places, image_dir, class_names, report)
    for row in rows:
        reader.add(row)
    entries = reader.finish()
    records = make_records(
        entries,
        source=csv_file,
        image_dir=image_dir,
        class_names=class_names,
        report=report,
        gives_sides="x1" not in places,
    )
    return LoadedSplit(records, class_names, report)


def csv_class_names(csv_file: Path, columns: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the class names of all rows with a box, sorted.

    Raises:
        UserError: there is no such row, or the header is not understood.
    """
    places = _places(csv_file, columns or {}, needs_class=True)
    names = {
        row.fields[places["class"]]
        for row in _rows(csv_file)
        if not all(is_empty(row.fields[places[key]]) for key in _box_keys(places))
    }
    names = {name for name in names if not is_empty(name)}
    if not names:
        raise UserError(f"{csv_file} has no row with a box and a class; check the file")
    return clean_class_names(sorted(names), csv_file)


def csv_image_names(csv_file: Path, columns: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of the images in the order of their first rows.

    Raises:
        UserError: the header has no columns of an image and a box, or the file is faulty.
    """
    place = _places(csv_file, columns or {}, needs_class=False)["image"]
    return list(dict.fromkeys(row.fields[place] for row in _rows(csv_file) if row.fields[place]))


def has_csv_classes(csv_file: Path) -> bool:
    """Tell whether a column says the class.

    Raises:
        UserError: see `csv_image_names`.
    """
    return "class" in _places(csv_file, {}, needs_class=False)


def _rows(csv_file: Path) -> list[Row]:
    return read_rows(csv_file, expected_headers=[read_header(csv_file)])


def _box_keys(places: Mapping[str, int]) -> Sequence[str]:
    return CORNERS if "x1" in places else SIDES


def _places(csv_file: Path, columns: Mapping[str, str], needs_class: bool) -> dict[str, int]:
    """Return the number of each column by its meaning.

    Raises:
        UserError: a column is missing, or two would do.
    """
    header = [name.casefold() for name in read_header(csv_file)]
    places = {}
    for key, known in COLUMNS.items():
        names = (columns[key].strip().casefold(),) if key in columns else known
        found = [place for place, name in enumerate(header) if name in names]
        if len(found) > 1:
            raise UserError(
                f"{csv_file}: the columns {', '.join(header[place] for place in found)} could all "
                f"be '{key}'; say which one it is under `columns`"
            )
        if found:
            places[key] = found[0]
    if set(CORNERS) <= places.keys():
        for key, side in zip(_IMAGE_SIDES, ("height", "width"), strict=True):
            if side in places:
                places.setdefault(key, places[side])
        places = {key: place for key, place in places.items() if key not in SIDES}
    else:
        places = {key: place for key, place in places.items() if key not in CORNERS}
    missing = [key for key in ("image", "class")[: 1 + needs_class] if key not in places]
    missing += [key for key in _box_keys(places) if key not in places]
    if missing:
        raise UserError(_unclear(csv_file, missing))
    return places


def _unclear(csv_file: Path, missing: Sequence[str]) -> str:
    return (
        f"{csv_file}: no column is '{', '.join(missing)}' in the first line "
        f"{','.join(read_header(csv_file))[:200]}. Needed are image, class, and x1, y1, x2, y2 or "
        f"x, y, width, height; say under `columns` how the file calls them, such as `columns: "
        f"{{{missing[0]}: its name}}`"
    )


class _Reader:
    """Gather the rows of each image."""

    def __init__(
        self,
        path: Path,
        places: Mapping[str, int],
        image_dir: Path,
        class_names: tuple[str, ...],
        report: DataReport,
    ) -> None:
        self.path = path
        self.places = places
        self.numbers = ClassNumbers(class_names)
        self.only_class = "" if "class" in places else class_names[0]
        self.report = report
        self.faults = Faults()
        self.images = ImageFolder(image_dir, self.report, self.faults)
        self.states_size = any(key in places for key in _IMAGE_SIDES)
        self.by_name: dict[str, ImageEntry] = {}
        self.entries: dict[Path, ImageEntry] = {}
        self.empty: dict[Path, str] = {}

    def add(self, row: Row) -> None:
        place = f"{self.path}, line {row.line_number}"
        fields = {key: row.fields[position] for key, position in self.places.items()}
        name = fields["image"]
        if not name:
            self.faults.add(place, "names no image; complete the row or delete it")
            return
        size = self._stated_size(fields, place) if self.states_size else None
        entry = self.by_name.get(name)
        if entry is None:
            path = self.images.find(name, place, is_stem=True)
            entry = self.entries.get(path) or ImageEntry(name, path, place, stated_size=size)
            self.by_name[name] = self.entries[path] = entry
        if entry.stated_size != size:
            self.faults.add(place, f"gives another image size than {entry.place}; correct one")
        texts = {key: fields[key] for key in _box_keys(self.places)}
        if all(map(is_empty, texts.values())):
            self.empty[entry.path] = place
        else:
            self._add_box(entry, fields.get("class", ""), texts, place)

    def finish(self) -> list[ImageEntry]:
        """Return the images, if no row has a fault."""
        self.numbers.add_fault(str(self.path), self.faults)
        self.faults.stop_if_any()
        for path, place in self.empty.items():
            if self.entries[path].boxes:
                self.report.note("rows without box of images that have boxes skipped", place)
        return list(self.entries.values())

    def _add_box(self, entry: ImageEntry, name: str, texts: dict[str, str], place: str) -> None:
        xyxy = tuple(map(read_number, texts.values()))
        if None in xyxy:
            self.faults.add(place, number_fault(texts))
            return
        if "x1" not in texts:
            x, y, width, height = xyxy
            xyxy = (x, y, x + width, y + height)
        elif xyxy[2] < xyxy[0] or xyxy[3] < xyxy[1]:
            fault = (
                f"x2, y2 ({xyxy[2]:g}, {xyxy[3]:g}) lie before x1, y1 ({xyxy[0]:g}, {xyxy[1]:g})"
            )
            self.faults.add(place, f"{fault}; correct them, or are they width and height?")
            return
        number = self.numbers.number(name or self.only_class)
        if number is not None:
            entry.boxes.append(OutlinedBox(xyxy, number, place))

    def _stated_size(self, fields: Mapping[str, str], place: str) -> tuple[int, int] | None:
        try:
            return stated_size(*(fields.get(key, "") for key in _IMAGE_SIDES))
        except ValueError as error:
            self.faults.add(place, f"the image's {error}")
            return None
