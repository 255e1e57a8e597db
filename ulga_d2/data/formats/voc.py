"""Read Pascal VOC annotations: one XML file an image.

Source: the VOC development kit (Everingham et al., IJCV 2010). Its corners are numbers of pixels,
from 1 and inclusive, and so are those of the common tools that write this format: the box of the
first pixel alone is (1, 1, 1, 1). Both corners on one pixel are a click, though, not a box. A
corner of 0 proves that a tool counts from 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...errors import UserError
from ..record import LoadedSplit
from ..report import DataReport, Faults
from .classes import ClassNumbers
from .files import READABLE_SUFFIXES, ImageFolder, files_by_stem, is_end_of
from .images import ImageEntry, OutlinedBox, make_records
from .listed import CUT, TWICE, possible_names, read_list
from .policy import check_missing
from .units import wrong_unit
from .voc_file import FURTHER_BOXES, VocFile, parse_voc_file

FROM_ZERO = "corners of 0 prove that pixels are counted from 0; all boxes are read so (voc_base)"
FEW_ZEROS = "corners of 0 though more are 1; pixels are counted from 1 (voc_base 0 changes it)"
BY_FILENAME = "images found by `filename`, for want of one named like the XML file"
# Of an image whose file does not state one; nothing is proven by it.
_ANY_SIZE = (299, 299)
_SUFFIXES = READABLE_SUFFIXES | {".xml"}
# VOC2007's "image annotation" pairs, as some tools list them.
_PAIR = re.compile(r"(\S.*?)\s+(\S.*\.xml)", re.IGNORECASE)


def read_voc(
    annotation_dir: Path,
    image_dir: Path,
    names: Sequence[str] | None = None,
    class_names: tuple[str, ...] | None = None,
    *,
    base: int | None = None,
    annotation_dirs: Collection[Path] = (),
    keeps_emptied: bool = False,
) -> LoadedSplit:
    """Read one split in place. "difficult" objects count like all others.

    The image of `a.xml` is the one named `a`, with the suffix that `filename` gives if it names `a`
    too; only where there is none, it is the image that `filename` names.

    Args:
        annotation_dir: holds the XML files, also in subfolders.
        image_dir: the same tree with images.
        names: the split's images, as in `ImageSets/Main`, or with suffixes or paths; None for all
            files.
        class_names: in order of their numbers; None for all names in the folders, sorted, so that
            all splits agree.
        base: number of the first pixel, 0 or 1; None for 1, unless corners of 0 prove 0 and are
            not outnumbered by corners of 1.
        annotation_dirs: of all splits of the dataset, whose class names and corners count, too.
        keeps_emptied: see `DataReport`.

    Raises:
        UserError: a fault in the structure, with file and fix.
    """
    paths = files_by_stem(annotation_dir, [".xml"])
    if not paths:
        raise UserError(f"{annotation_dir} holds no XML files; name the folder of the annotations")
    report = DataReport(keeps_emptied=keeps_emptied)
    wanted = sorted(paths)
    if names is not None:
        wanted = _listed(names, paths, [annotation_dir, image_dir], report)
    missing = [name for name in wanted if name not in paths]
    _drop_unannotated(missing, len(wanted), annotation_dir, report)
    faults, unused = Faults(), Faults()
    files = _parse({name: paths[name] for name in wanted if name in paths}, faults)
    # What the other splits have counts for the classes and the first pixel.
    others = {str(path): path for stem, path in paths.items() if stem not in files}
    for folder in annotation_dirs:
        if folder != annotation_dir:
            others |= {str(path): path for path in files_by_stem(folder, [".xml"]).values()}
    all_files = [*files.values(), *_parse(others, unused).values()]
    if class_names is None:
        faults.stop_if_any()
        unused.stop_if_any()
        class_names = _names_in(all_files, dict.fromkeys([annotation_dir, *annotation_dirs]))
    report.boxes = DataReport.for_classes(class_names).boxes
    base = _base(all_files, report) if base is None else base
    numbers = ClassNumbers(class_names)
    images = ImageFolder(image_dir, report, faults)
    entries = [_entry(name, file, images, numbers, base, report) for name, file in files.items()]
    numbers.add_fault(str(annotation_dir), faults)
    _check_unit(files.values(), faults)
    faults.stop_if_any()
    for file in files.values():
        _note(file, report)
    records = make_records(
        entries, source=annotation_dir, image_dir=image_dir, class_names=class_names, report=report
    )
    return LoadedSplit(records, class_names, report)


def read_image_set(path: Path) -> list[str]:
    """Return the names that a file of `ImageSets/Main` lists, one a line.

    Raises:
        UserError: the file cannot be read, lists nothing, or is one class's list of flags.
    """
    names = read_list(path)
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
    return _names_in(files, [annotation_dir])


def _names_in(files: Iterable[VocFile], folders: Iterable[Path]) -> tuple[str, ...]:
    names = {item.name for file in files for item in file.objects}
    if not names:
        shown = " or ".join(map(str, folders))
        raise UserError(f"no XML file in {shown} has an object; check the folder")
    return tuple(sorted(names))


def _base(files: Iterable[VocFile], report: DataReport) -> int:
    """Return the number of the first pixel. Where files count from 0, 0 is far commoner than 1."""
    objects = [item for file in files for item in file.objects]
    zeros = [item.path for item in objects if item.starts_at(0)]
    ones = sum(item.starts_at(1) for item in objects)
    reason = FROM_ZERO if len(zeros) >= ones else FEW_ZEROS
    for path in zeros:
        report.note(reason, path)
    return 0 if zeros and reason is FROM_ZERO else 1


def _check_unit(files: Iterable[VocFile], faults: Faults) -> None:
    """Refuse corners as written that prove to be no pixels; from 1, they are another box."""
    objects = [
        (item, file.size or _ANY_SIZE) for file in files for item in file.objects if item.is_written
    ]
    wrong = wrong_unit([item.corners for item, _ in objects], [size for _, size in objects])
    if wrong:
        number, fault = wrong
        faults.add(objects[number][0].path, fault)


def _listed(
    lines: Sequence[str], paths: Mapping[str, Path], folders: Sequence[Path], report: DataReport
) -> list[str]:
    """Return the stem that each line of a list means, once; an unknown one as the list has it."""
    names: dict[str, str] = {}
    for line in lines:
        stem, is_cut = next(
            ((name, is_cut) for name, is_cut in _possible_stems(line, folders) if name in paths),
            (line, False),
        )
        if is_cut:
            report.note(CUT, f"{line} is {paths[stem]}")
        if stem in names:
            report.note(TWICE, line)
        names[stem] = line
    return list(names)


def _possible_stems(line: str, folders: Sequence[Path]) -> Iterator[tuple[str, bool]]:
    """Yield what a line can mean, and whether foreign folders were cut off, the likeliest first."""
    yield line, False
    own = [os.path.basename(os.path.abspath(folder)) for folder in folders]
    pair = _PAIR.fullmatch(line)
    for text in (pair[2], pair[1]) if pair else (line,):
        for number, name in enumerate(possible_names(text, own)):
            path = PurePosixPath(name)
            is_own = any(is_end_of(text, folder / name) for folder in folders)
            is_cut = number > 0 and not is_own
            yield name, is_cut
            if path.suffix.lower() in _SUFFIXES:
                yield path.with_suffix("").as_posix(), is_cut


def _drop_unannotated(missing: list[str], listed: int, folder: Path, report: DataReport) -> None:
    check_missing(missing, listed, f"listed images have no annotation file in {folder}")
    for name in missing:
        report.found_images += 1
        report.drop_image("listed images without annotation file dropped", name, boxes=0)


def _parse(paths: dict[str, Path], faults: Faults) -> dict[str, VocFile]:
    files = {name: parse_voc_file(path, faults) for name, path in paths.items()}
    return {name: file for name, file in files.items() if file}


def _note(file: VocFile, report: DataReport) -> None:
    for reason, path in file.notes:
        report.note(reason, path)
    report.found_boxes += len(file.further)
    for path in file.further:
        report.drop_box(FURTHER_BOXES, path)


def _entry(
    name: str,
    file: VocFile,
    images: ImageFolder,
    numbers: ClassNumbers,
    base: int,
    report: DataReport,
) -> ImageEntry:
    path = _image_of(name, file, images, report)
    boxes = []
    for item in file.objects:
        number = numbers.number(item.name)
        if number is not None:
            boxes.append(OutlinedBox(item.xyxy(base), number, item.path))
    return ImageEntry(name, path, str(file.path), boxes, file.size)


def _image_of(name: str, file: VocFile, images: ImageFolder, report: DataReport) -> Path:
    """Return the image of an XML file: by its own name, else by `filename`, which is noted."""
    source, own = str(file.path), PurePosixPath(name)
    given = PurePosixPath(file.image_name.replace("\\", "/"))
    names_own = given.stem.lower() == own.name.lower()
    if names_own and given.suffix.lower() in READABLE_SUFFIXES:
        path = images.find(f"{name}{given.suffix}", source)
    else:
        path = images.find(name, source, is_stem=True)
    if not given.name or os.path.isfile(path):
        return path
    for other in dict.fromkeys(map(str, (own.parent / given.name, given, given.name))):
        found = images.find(other, source)
        if os.path.isfile(found):
            report.note(BY_FILENAME, f"{source}: {file.image_name} is {found}")
            return found
    return path
