"""Read YOLO datasets as other tools describe them: Ultralytics' data.yaml and Darknet's obj.data.

Both name each split's images as a folder or as a list of paths. The labels of an image lie where
the last `images` folder of its path is called `labels`, or else beside it. Roboflow and CVAT write
these files, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import UserError
from ..patterns import check_patient
from ..record import LoadedSplit
from ..report import DataReport, Faults, shortened
from .files import ImageFolder, walk_folder
from .listed import TWICE, find_listed, read_list
from .text import read_text
from .yolo import YoloImage, class_names_of, note_orphans, read_yolo_images

# What the files call a split, and its name here.
SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
DARKNET_SUFFIX = ".data"
IGNORED = "keys of the description not used (nothing is downloaded or run)"
LISTS = (".txt",)
_USED = {*SPLITS, "path", "names", "nc", "kpt_shape", "patient"}
# Names of descriptions that say nothing; the folder's name then is the dataset's.
GENERIC_NAMES = {"data", "dataset", "obj"}
_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]+")
_MOST_KEYPOINTS = 1000
_MAX_NAMES_BYTES = 1_000_000  # of obj.names


@dataclass(frozen=True)
class YoloDescription:
    """What a description of a YOLO dataset says.

    Attributes:
        path: the file.
        name: of the dataset, from the name of the file or its folder.
        class_names: in order of their numbers.
        root: the folder that image ids are relative to.
        splits: the folders and lists of each split.
        keypoints: how many numbers of keypoints follow each box in a label file.
        ignored: keys of the file that are not used.
        patient: a pattern that finds whose image it is in the image's path below `root`. A key of
            ours; Ultralytics ignores it.
    """

    path: Path
    name: str
    class_names: tuple[str, ...]
    root: Path
    splits: dict[str, tuple[Path, ...]]
    keypoints: int = 0
    ignored: tuple[str, ...] = ()
    patient: str | None = None


def is_ultralytics(content: object) -> bool:
    """Tell Ultralytics' data.yaml by its content from this project's own description."""
    return (
        isinstance(content, dict)
        and not {"format", "splits"} & content.keys()
        and "names" in content
        and bool(SPLITS.keys() & content.keys())
    )


def parse_ultralytics(path: Path, content: Mapping[str, object]) -> YoloDescription:
    """Return what an Ultralytics data.yaml says; `download` and other code in it is never run.

    Args:
        path: the file.
        content: what `read_yaml` makes of it.

    Raises:
        UserError: the class names or a path are faulty, or lead nowhere.
    """
    sources: dict[str, list[str]] = {}
    for key in SPLITS.keys() & content.keys():
        paths = _texts(path, key, content[key])
        if paths and SPLITS[key] in sources:
            raise UserError(f"{path}: the split {SPLITS[key]} stands twice; remove {key}")
        if paths:
            sources[SPLITS[key]] = paths
    root, splits = _resolve(path, _texts(path, "path", content.get("path")), sources)
    missing = [f"{split} (its images are not there)" for split in sources if split not in splits]
    return YoloDescription(
        path=path,
        name=_name(path),
        class_names=class_names_of(path, content),
        root=root,
        splits=splits,
        keypoints=_keypoints(path, content.get("kpt_shape")),
        ignored=(*missing, *sorted(str(key)[:50] for key in content.keys() - _USED)),
        patient=check_patient(path, content.get("patient")),
    )


def read_darknet(path: Path) -> YoloDescription:
    """Read Darknet's obj.data, as CVAT's export "YOLO 1.1" has it.

    Raises:
        UserError: a line is no `key = value`, or a file that it names is missing.
    """
    content = {}
    for line in read_list(path):
        key, equals, value = map(str.strip, line.partition("="))
        if not equals:
            raise UserError(
                f"{path}: {line[:50]!r} is no `key = value`; correct or delete the line"
            )
        if key in content:
            raise UserError(f"{path}: the key {key[:50]} stands twice; delete one")
        content[key] = value
    sources = {
        SPLITS[key]: [_darknet_file(path, content[key])] for key in SPLITS.keys() & content.keys()
    }
    root, splits = _resolve(path, [], sources)
    return YoloDescription(
        path=path,
        name=_name(path),
        class_names=_darknet_names(path, content),
        root=root,
        splits=splits,
        ignored=tuple(sorted(content.keys() - {*SPLITS, "names", "classes", "backup"})),
    )


def read_described_yolo(own: YoloDescription, split: str) -> LoadedSplit:
    """Read one split in place.

    Args:
        own: the description.
        split: one of its splits.

    Raises:
        UserError: a fault in the structure, with file, line and fix.
    """
    report = DataReport.for_classes(own.class_names)
    for key in own.ignored:
        report.note(IGNORED, f"{own.path}: {key}")
    gather = _Gather(own.root, report)
    for source in own.splits[split]:
        if source.is_dir():
            gather.add_folder(source)
        else:
            gather.add_list(source)
    gather.faults.stop_if_any()
    images = sorted(gather.images.values(), key=lambda image: image.image_id)
    return read_yolo_images(images, own.root, own.class_names, report, own.keypoints)


class _Gather:
    """Gather the images of a split, each with its label file."""

    def __init__(self, root: Path, report: DataReport) -> None:
        self.root = root
        self.report = report
        self.faults = Faults()
        self.images: dict[str, YoloImage] = {}

    def add_folder(self, folder: Path) -> None:
        """Take all images below a folder; label files without an image are counted."""
        walk = walk_folder(folder)
        images = walk.images()
        for path in images:
            self._add(path, str(path))
        labels = _label_paths(folder / "x")[0].parent
        if os.path.abspath(labels) == os.path.abspath(folder) or not labels.is_dir():
            texts = [path for path in walk.files if path.suffix.lower() == ".txt"]
            walk.note_unread([*images, *texts], self.report)
        else:
            walk.note_unread(images, self.report)
            found = walk_folder(labels)
            texts = [path for path in found.files if path.suffix.lower() == ".txt"]
            found.note_unread([*texts, *found.images()], self.report)
        used = {os.path.realpath(image.labels) for image in self.images.values() if image.labels}
        orphans = [path for path in texts if os.path.realpath(path) not in used]
        note_orphans(orphans, len(images), folder, self.report)

    def add_list(self, list_file: Path) -> None:
        """Take the images of a list; those that are not there keep the path that it gives."""
        bases = list(dict.fromkeys([list_file.parent, self.root]))
        folder = ImageFolder(self.root, self.report, self.faults)
        for name in read_list(list_file):
            source = f"{list_file}: {name}"
            path = find_listed(name, bases, source, self.report)
            self._add(path or folder.find(name, str(list_file), is_listed=True), source)

    def _add(self, path: Path, source: str) -> None:
        stem = _stem(path, self.root)
        known = self.images.get(stem)
        if known is None:
            labels = next((label for label in _label_paths(path) if label.is_file()), None)
            self.images[stem] = YoloImage(stem, path, labels, source)
        elif os.path.abspath(known.path) == os.path.abspath(path):
            self.report.note(TWICE, source)
        else:
            fault = f"has the label file of {known.path}, too; rename one of the images"
            self.faults.add(source, fault)


def _stem(path: Path, root: Path) -> str:
    """Return the path below the root without suffix; of a path elsewhere, the whole path."""
    inside = os.path.relpath(path, root)
    whole = os.path.abspath(path) if inside.startswith("..") else inside
    return Path(whole).with_suffix("").as_posix()


def _label_paths(image: Path) -> list[Path]:
    """Return where the labels of an image can lie, the likeliest first."""
    paths = []
    for place in (os.path.abspath(image), os.path.realpath(image)):
        start, found, end = place.rpartition(f"{os.sep}images{os.sep}")
        if found:
            paths.append(Path(f"{start}{os.sep}labels{os.sep}{end}").with_suffix(".txt"))
    return [*paths, image.with_suffix(".txt")]


def _texts(path: Path, key: str, value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if value is None or value == "":
        return []
    if not all(isinstance(item, str) and item.strip() for item in values):
        raise UserError(f"{path}: {key} is {shortened(str(value))}, not a path or a list of paths")
    return [item.strip() for item in values]


def _resolve(
    path: Path, stated: Sequence[str], sources: Mapping[str, Sequence[str]]
) -> tuple[Path, dict[str, tuple[Path, ...]]]:
    """Return the first root below which all paths of train and val exist, and what is there.

    Raises:
        UserError: there is none, or no split; the message says where it was looked for.
    """
    if len(stated) > 1 or not sources:
        what = "`path` gives several folders" if stated else "no train, val or test is given"
        raise UserError(f"{path}: {what}; correct the file")
    tried: list[str] = []
    for root in _roots(path, stated):
        splits: dict[str, tuple[Path, ...]] = {}
        missing = []
        for split in dict.fromkeys(SPLITS.values()):
            found = [_existing(root, text) for text in sources.get(split, ())]
            if None not in found and found:
                splits[split] = tuple(found)
            elif found and (split != "test" or len(sources) == 1):
                missing += [str(root / text) for text in sources[split]]
        if not missing:
            return root, splits
        tried += missing
    shown = ", ".join(map(shortened, dict.fromkeys(tried)))
    raise UserError(
        f"{path}: the images are not there; looked for {shown}. Set `path` to the folder that "
        "train and val are relative to; a relative `path` starts at the file's own folder, and "
        "Ultralytics' setting datasets_dir is not read"
    )


def _roots(path: Path, stated: Sequence[str]) -> list[Path]:
    """Return where `path` of a description can lead: below its folder, beside it, below the cwd.

    Ultralytics starts a relative `path` at the working directory or at its datasets_dir; after the
    dataset was moved, its own folder is what remains.
    """
    own = path.parent
    roots = []
    if stated:
        below = os.path.expanduser(stated[0])
        roots = [own / below, own.absolute().parent / below, Path(below)]
    return list(dict.fromkeys([*roots, own]))


def _existing(root: Path, text: str) -> Path | None:
    """Return the folder or list of a split; Roboflow writes ../ where none is meant."""
    for name in (text, text.removeprefix("../")):
        found = root / os.path.expanduser(name)
        if os.path.isdir(found):
            return found
        if os.path.isfile(found) and found.suffix.lower() in LISTS:
            return found
    return None


def _name(path: Path) -> str:
    stem = path.stem if path.stem.lower() not in GENERIC_NAMES else path.absolute().parent.name
    return _FOREIGN.sub("_", stem).strip("_.") or "custom"


def _keypoints(path: Path, shape: object) -> int:
    if shape is None:
        return 0
    is_pair = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if not is_pair or not 1 <= shape[0] <= _MOST_KEYPOINTS or shape[1] not in (2, 3):
        raise UserError(
            f"{path}: kpt_shape is {shortened(str(shape))}, not [number of keypoints, 2 or 3]"
        )
    return shape[0] * shape[1]


def _darknet_names(path: Path, content: Mapping[str, str]) -> tuple[str, ...]:
    file = path.parent / _darknet_file(path, content.get("names", "obj.names"))
    if not os.path.isfile(file):
        raise UserError(f"{path}: names leads to {file}, which is no file; correct it")
    names = read_text(str(file), _MAX_NAMES_BYTES).rstrip().split("\n")
    return class_names_of(file, {"names": names, "nc": _count(path, content, len(names))})


def _darknet_file(path: Path, text: str) -> str:
    """Return the path of a file beside obj.data, which need not be in a folder data/ as it says."""
    return text if os.path.exists(path.parent / text) else PurePosixPath(text).name


def _count(path: Path, content: Mapping[str, str], number: int) -> int:
    text = content.get("classes", str(number))
    if not text.isdecimal():
        raise UserError(f"{path}: classes is {text[:20]!r}, not a number; correct it")
    return int(text[:20])
