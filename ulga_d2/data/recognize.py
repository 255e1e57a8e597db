"""Recognize a dataset by its content: format, splits, folders of images and classes.

The result is the content of a dataset YAML with absolute paths, which `custom.py` reads like one
that a user has written.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UserError
from .builtin import LOADERS
from .custom import image_names, is_custom_file, read_description
from .formats.csv_boxes import csv_class_names, csv_image_names, has_csv_classes
from .formats.csv_file import read_header
from .formats.files import is_image_file, plain_name, walk_folder
from .formats.json_file import read_json
from .formats.text import read_text
from .formats.ultralytics import (
    DARKNET_SUFFIX,
    GENERIC_NAMES,
    SPLITS,
    YoloDescription,
    is_ultralytics,
)
from .formats.via import via_entries
from .formats.yaml_file import read_yaml
from .formats.yolo import class_names_of, holds_labels
from .make_folds import grouping_of

YAML_SUFFIXES = (".yaml", ".yml")
# Words in a path that say the split.
_SPLIT_WORDS = {**SPLITS, "training": "train", "dev": "val", "testing": "test"}
# Names that say nothing about a dataset.
_GENERIC = frozenset(
    "data dataset datasets obj annotation annotations label labels images boxes instances json csv "
    "coco via default jpegimages imagesets main".split()
)
_SPLIT_COLUMNS = frozenset(["split", "subset", "set", "fold"])
_CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels")
# So many files of a kind are looked into, and so many of their image names are searched for.
_MOST_FILES = 200
_MOST_NAMES = 50
_MOST_IN_MESSAGE = 10
_ACCEPTED = (
    "a YOLO data.yaml or obj.data, label files with a classes.txt, a COCO or VIA JSON file, a CSV "
    "file of boxes, Pascal VOC XML files, or a dataset YAML"
)


@dataclass(frozen=True)
class Recognized:
    """What a path turned out to be.

    Attributes:
        name: of the dataset.
        label: its format in words.
        content: of a dataset YAML; all paths are absolute.
        notes: what a user should know about the choice.
    """

    name: str
    label: str
    content: dict[str, Any]
    notes: tuple[str, ...] = ()

    def image_folders(self) -> list[Path]:
        """Return the folders of images that are read."""
        root = Path(self.content.get("root", "/"))
        splits = _splits_of(self.content).values()
        texts = [split.get("images", []) if isinstance(split, dict) else split for split in splits]
        flat = [item for some in texts for item in ([some] if isinstance(some, str) else some)]
        return [root / item for item in flat if (root / item).is_dir()]


def recognize(path: Path) -> Recognized:
    """Recognize the dataset at a path.

    Args:
        path: a folder, a COCO or VIA JSON file, a CSV file, an Ultralytics data.yaml, Darknet's
            obj.data, or a dataset YAML of this project.

    Raises:
        UserError: nothing is recognized, or several datasets are; the message lists them.
    """
    path = Path(os.path.abspath(path.expanduser()))
    if not path.exists():
        raise UserError(f"--data {path} does not exist")
    try:
        found = _of_folder(path) if path.is_dir() else _of_file(path)
        return found if "val" in _splits_of(found.content) else _with_groups(found)
    except OSError as error:
        raise UserError(f"--data {path} cannot be read: {error.strerror or error}") from None


class _Tree:
    """The files below a folder, without those of runs.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        files = walk_folder(root).files
        runs = {path.parent for path in files if path.name == "last_checkpoint"}
        self.files = [path for path in files if not runs & {*path.parents}] if runs else files

    @cached_property
    def images(self) -> list[Path]:
        return list(filter(is_image_file, self.files))

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """The images by their name, and by their name without suffix."""
        index: dict[str, list[Path]] = defaultdict(list)
        for image in self.images:
            for name in dict.fromkeys([image.name, image.stem]):
                index[plain_name(name)].append(image)
        return dict(index)

    def with_suffix(self, *suffixes: str) -> list[Path]:
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def images_folder(self, names: Iterable[str], split: str) -> Path | None:
        """Return the folder that most of some image names are relative to, or None.

        Of equal folders the one whose path names the split is taken, then the innermost.
        """
        votes: Counter[Path] = Counter()
        for name in list(dict.fromkeys(names))[:_MOST_NAMES]:
            parts = PurePosixPath(name.replace("\\", "/")).parts
            for image in self.by_name.get(plain_name(parts[-1]), []) if parts else ():
                votes[_base_of(image, parts)] += 1
        if not votes:
            return None

        def rank(folder: Path) -> tuple[int, bool, int]:
            is_split = _split_of(folder, self.root) == split
            return votes[folder], is_split, len(folder.parts)

        return max(sorted(votes), key=rank)


def _base_of(image: Path, parts: Sequence[str]) -> Path:
    """Return the folder below which a file has the path that a name gives, as far as they agree."""
    folder = image.parent
    for part in reversed(parts[:-1]):
        if plain_name(folder.name) != plain_name(part):
            break
        folder = folder.parent
    return folder


def _split_of(path: Path, root: Path) -> str | None:
    """Return the split that the innermost telling part of a path below `root` names."""
    for part in reversed(path.relative_to(root).parts):
        for word in re.findall(r"[a-z]+", part.lower()):
            if word in _SPLIT_WORDS:
                return _SPLIT_WORDS[word]
    return None


def _name_of(path: Path) -> str:
    """Return the dataset's name: the innermost part of a path that says something.

    Words for splits are left out of a file's name.
    """
    stems = [path.stem] if path.is_file() else []
    folders = path.parts[1 : -1 if stems else None]
    for part in reversed([*folders, *stems]):
        words = [word for word in re.split(r"[^A-Za-z0-9]+", part) if word]
        telling = [word for word in words if re.sub(r"\d", "", word.lower()) not in _SPLIT_WORDS]
        if any(re.search("[A-Za-z]", w) and w.lower() not in _GENERIC for w in telling):
            name = "_".join(telling if [part] == stems else words)
            return f"{name}_custom" if name in LOADERS else name
    return "custom"


def _splits_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a dataset YAML says about each split: YOLO's folders and lists, or our paths."""
    yolo = {split: content[split] for split in dict.fromkeys(SPLITS.values()) if split in content}
    return content.get("splits", yolo)


def _with_groups(found: Recognized) -> Recognized:
    """Add a pattern that keeps images together which belong together, for a validation split."""
    if found.content.get("patient"):
        return found
    train = _splits_of(found.content).get("train")
    if not train:
        return found
    if "path" in found.content:
        root = Path(found.content["path"])
        folders = [Path(item) for item in train if os.path.isdir(item)]
        images = [image for folder in folders for image in walk_folder(folder).images()]
    elif "images" in train:
        root = Path(found.content["root"], train["images"])
        images = walk_folder(root).images()
    else:
        file = Path(found.content["root"], train["annotations"])
        columns = found.content.get("columns")
        images = [Path(name) for name in image_names(found.content["format"], file, columns)]
        root = Path(os.path.commonpath([path.parent for path in images]))
    grouping = grouping_of([Path(os.path.relpath(path, root)).as_posix() for path in images])
    if grouping is None:
        return replace(found, notes=(*found.notes, "each image may be in either split by itself"))
    note = f"{grouping[1]} stay together in one split"
    content = {**found.content, "patient": grouping[0]}
    return replace(found, content=content, notes=(*found.notes, note))


# A file


def _of_file(path: Path) -> Recognized:
    suffix = path.suffix.lower()
    if suffix in (*YAML_SUFFIXES, DARKNET_SUFFIX):
        return _described(path)
    splits = _with_siblings(path)
    root = _common_folder(list(splits.values()))
    if suffix == ".json":
        kinds = {_json_kind(file) for file in splits.values()}
        if kinds <= {"COCO", "VIA"} and len(kinds) == 1:
            return _of_annotations(kinds.pop(), path, splits, root)
        raise UserError(f"--data {path} is {_json_fault(path)}")
    if suffix in (".csv", ".tsv"):
        return _of_annotations("CSV", path, splits, root)
    raise UserError(f"--data {path} is no dataset; give its folder, or {_ACCEPTED}")


def _with_siblings(path: Path) -> dict[str, Path]:
    """Return the file as train, and those of other splits whose path differs in that word alone."""
    splits = {"train": path}
    parts = (path.parent.name, path.name)
    words = [word for word, split in _SPLIT_WORDS.items() if split == "train"]
    pattern = re.compile(rf"(?<![A-Za-z])({'|'.join(sorted(words, reverse=True))})(?![A-Za-z])")
    for word, split in _SPLIT_WORDS.items():
        folder, name = (pattern.sub(word, part) for part in parts)
        found = {path.with_name(name), path.parent.parent / folder / name} - {path}
        if split != "train" and split not in splits:
            splits.update((split, file) for file in sorted(found) if file.is_file())
    return splits


def _described(path: Path) -> Recognized:
    if not is_custom_file(path):
        content = read_yaml(path)
        if isinstance(content, dict) and "names" in content:
            return _of_folder(path.parent)
        raise UserError(f"--data {path} is no dataset; give a training config as --config-file")
    own = read_description(path)
    if isinstance(own, YoloDescription):
        content = {} if path.suffix == DARKNET_SUFFIX else dict(read_yaml(path))
        sources = {split: [str(item) for item in found] for split, found in own.splits.items()}
        for key in SPLITS:
            content.pop(key, None)
        root = os.path.abspath(own.root)
        sources = {split: list(map(os.path.abspath, found)) for split, found in sources.items()}
        content |= {"path": root, **sources, "names": list(own.class_names)}
        # The name is that of the file that is written, of which these would say nothing.
        name = _name_of(path) if own.name.lower() in GENERIC_NAMES else own.name
        return Recognized(name, "YOLO", content)
    content = read_yaml(path)
    content["root"] = os.path.abspath(path.parent / os.path.expanduser(content["root"]))
    return Recognized(own.name, f"{own.format.upper()} described by {path}", content)


def _json_kind(path: Path) -> str | None:
    """Return "COCO", "VIA" or "LabelMe", or None for any other JSON."""
    try:
        content = read_json(path)
    except UserError:
        return None
    if not isinstance(content, dict):
        return None
    if all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories")):
        return "COCO"
    if isinstance(content.get("shapes"), list) and "imagePath" in content:
        return "LabelMe"
    return "VIA" if via_entries(content) else None


def _json_fault(path: Path) -> str:
    if _json_kind(path) == "LabelMe":
        return "LabelMe's file of one image; export the dataset as COCO and give that file"
    read_json(path)  # says what is wrong, where it is no JSON at all
    return "neither a COCO file (lists images, annotations, categories) nor one of VIA"


# A folder


def _of_folder(folder: Path) -> Recognized:
    tree = _Tree(folder)
    near = [
        path
        for path in tree.with_suffix(*YAML_SUFFIXES, DARKNET_SUFFIX)
        if len(path.relative_to(folder).parts) <= 2 and is_custom_file(path)
    ]
    own = [path for path in near if path.suffix in YAML_SUFFIXES and not _is_yolo(path)]
    if own:
        return _only(folder, {str(path): partial(_described, path) for path in own})
    candidates: dict[str, Callable[[], Recognized]] = {}
    for path in near:
        candidates[f"{path} (YOLO)"] = partial(_described, path)
    for kind, files in _annotation_files(tree).items():
        candidates |= _candidates(kind, files, tree)
    if _voc_files(tree):
        candidates[f"{folder}: XML files (Pascal VOC)"] = partial(_voc, tree)
    if not near and _label_files(tree):
        candidates[f"{folder}: label files (YOLO)"] = partial(_yolo_labels, tree)
    if not candidates:
        raise _nothing_in(tree)
    return _only(folder, candidates)


def _is_yolo(path: Path) -> bool:
    return is_ultralytics(read_yaml(path))


def _only(folder: Path, candidates: Mapping[str, Callable[[], Recognized]]) -> Recognized:
    if len(candidates) > 1:
        names = list(candidates)
        left = len(names) - _MOST_IN_MESSAGE
        raise UserError(
            f"--data {folder} could mean {len(names)} datasets; give one of these files, or move "
            "the others away:",
            *(f"  {name}" for name in names[:_MOST_IN_MESSAGE]),
            *([f"  and {left} more"] if left > 0 else []),
        )
    return next(iter(candidates.values()))()


def _annotation_files(tree: _Tree) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {"COCO": [], "VIA": [], "CSV": []}
    for path in tree.with_suffix(".json")[:_MOST_FILES]:
        kind = _json_kind(path)
        if kind in found:
            found[kind].append(path)
    for path in tree.with_suffix(".csv", ".tsv")[:_MOST_FILES]:
        try:
            csv_image_names(path)
        except UserError:
            continue
        found["CSV"].append(path)
    return found


def _candidates(
    kind: str, files: Sequence[Path], tree: _Tree
) -> dict[str, Callable[[], Recognized]]:
    """Return one dataset where each file is a split of its own, else one candidate a file."""
    splits = {_split_of(path, tree.root): path for path in files}
    if len(files) == 1 and not {"train"} & splits.keys():
        splits = {"train": files[0]}
    if not files:
        return {}
    if len(splits) == len(files) and None not in splits:
        order = dict.fromkeys(SPLITS.values())
        ordered = {split: splits[split] for split in order if split in splits}
        shown = ", ".join(map(str, ordered.values()))
        return {f"{shown} ({kind})": partial(_of_annotations, kind, tree.root, ordered, tree.root)}
    return {
        f"{path} ({kind})": partial(_of_annotations, kind, path, {"train": path}, tree.root)
        for path in files
    }


def _of_annotations(kind: str, path: Path, splits: Mapping[str, Path], root: Path) -> Recognized:
    """Describe annotation files, one a split; their images are searched for by name."""
    tree, entries, notes = _Tree(root), {}, []
    for split, file in splits.items():
        names = image_names(kind.lower(), file)
        entries[split] = {"annotations": str(file)}
        if names and all(map(os.path.isabs, names)) and os.path.isfile(names[0]):
            continue
        folder = tree.images_folder(names, split)
        if folder is None and not tree.images:  # such as annotations/ beside images/
            tree = _Tree(root.parent)
            folder = tree.images_folder(names, split)
        if folder is None:
            first = f" (first: {names[0]})" if names else ""
            raise UserError(
                f"none of the images that {file} names{first} is in {tree.root}; put them there, "
                "or write a dataset YAML with their folder (docs/own_data.md)"
            )
        entries[split] = {"images": str(folder), **entries[split]}
    name = _name_of(path)
    content = {"name": name, "format": kind.lower(), "root": "/", "splits": entries}
    if kind == "CSV":
        names, note = _csv_classes(list(splits.values()), root)
        content["class_names"] = names
        notes += [note, *_unused_columns(splits.values())]
    return Recognized(name, kind, content, tuple(notes))


def _unused_columns(files: Iterable[Path]) -> list[str]:
    """Return a note on each column that seems to say the split."""
    return [
        f"{file}: the column {column} is not used; to state the splits, write one CSV file a split"
        for file in files
        for column in read_header(file)
        if column.casefold() in _SPLIT_COLUMNS
    ]


def _csv_classes(files: Sequence[Path], root: Path) -> tuple[list[str], str]:
    for folder in dict.fromkeys([files[0].parent, root]):
        if (folder / "classes.txt").is_file():
            file = folder / "classes.txt"
            return _names_in(file), f"classes in the order of {file}"
    if not all(map(has_csv_classes, files)):
        return ["object"], "no column says the class, so there is one class, object"
    names = sorted({name for file in files for name in csv_class_names(file)})
    return names, "classes in alphabetical order; a classes.txt beside the CSV file sets another"


def _names_in(file: Path) -> list[str]:
    lines = [line.strip() for line in read_text(str(file), 1_000_000).splitlines()]
    return list(class_names_of(file, {"names": [line for line in lines if line]}))


# Pascal VOC and YOLO folders


def _voc_files(tree: _Tree) -> list[Path]:
    files = tree.with_suffix(".xml")
    sample = files[:: max(1, len(files) // 20)]
    return files if any("<annotation" in read_text(str(path))[:1000] for path in sample) else []


def _voc(tree: _Tree) -> Recognized:
    files = _voc_files(tree)
    by_split = _by_split(files, tree)
    lists = {
        path.stem: path
        for path in tree.with_suffix(".txt")
        if path.parent.name == "Main" and path.stem in SPLITS.values()
    }
    entries = {}
    if None in by_split and lists:
        annotations = _common_folder(files)
        images = _voc_images(tree, files, "train")
        for split in dict.fromkeys(SPLITS.values()):
            if split in lists:
                paths = {"images": images, "annotations": annotations, "list": lists[split]}
                entries[split] = {key: str(path) for key, path in paths.items()}
    else:
        for split, some in by_split.items():
            split = split or "train"
            paths = {"images": _voc_images(tree, some, split), "annotations": _common_folder(some)}
            entries[split] = {key: str(path) for key, path in paths.items()}
    name = _name_of(tree.root)
    content = {"name": name, "format": "voc", "root": "/", "splits": entries}
    return Recognized(name, "Pascal VOC", content)


def _voc_images(tree: _Tree, files: Sequence[Path], split: str) -> Path:
    start = _common_folder(files)
    names = [path.relative_to(start).with_suffix("").as_posix() for path in files]
    folder = tree.images_folder(names, split)
    if folder is None:
        raise UserError(f"no image in {tree.root} has the name of an XML file of {start}")
    return folder


def _by_split(files: Sequence[Path], tree: _Tree) -> dict[str | None, list[Path]]:
    """Return the files by split; None alone where no folder says it.

    Raises:
        UserError: the folders of some files name a split, and those of others do not.
    """
    found: dict[str | None, list[Path]] = defaultdict(list)
    for path in files:
        found[_split_of(path.parent, tree.root)].append(path)
    if None in found and len(found) > 1:
        splits = ", ".join(split for split in found if split)
        raise UserError(
            f"{found[None][0]} is in none of the folders of {splits}, so its split is unclear; "
            "move it into one of them, or away"
        )
    order = [None, *dict.fromkeys(SPLITS.values())]
    return {split: found[split] for split in order if split in found}


def _common_folder(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in files]))


def _label_files(tree: _Tree) -> list[Path]:
    stems = {image.stem for image in tree.images}
    files = [
        path
        for path in tree.with_suffix(".txt")
        if path.stem in stems and path.name not in _CLASS_FILES
    ]
    sample = files[:: max(1, len(files) // 20)]
    return files if any(path.stat().st_size and holds_labels(path) for path in sample) else []


def _yolo_labels(tree: _Tree) -> Recognized:
    """Describe YOLO images and labels whose data.yaml is missing or names no split."""
    names = _yolo_names(tree)
    splits = {}
    for split, images in _by_split(tree.images, tree).items():
        splits[split or "train"] = [str(_common_folder(images))]
    name = _name_of(tree.root)
    return Recognized(name, "YOLO", {"path": str(tree.root), **splits, "names": names})


def _yolo_names(tree: _Tree) -> list[str]:
    files = [
        path
        for path in tree.files
        if path.name in _CLASS_FILES
        or (path.suffix in YAML_SUFFIXES and "names" in (_mapping(path) or {}))
    ]
    found = {
        path: list(class_names_of(path, read_yaml(path)))
        if path.suffix in YAML_SUFFIXES
        else _names_in(path)
        for path in files
    }
    if not found:
        raise UserError(
            f"--data {tree.root} has YOLO labels, and nothing says the names of their classes; "
            "write classes.txt there, one name a line in order of the numbers"
        )
    if len({tuple(names) for names in found.values()}) > 1:
        raise UserError(
            f"the class names differ between {' and '.join(map(str, found))}; correct or remove one"
        )
    return next(iter(found.values()))


def _mapping(path: Path) -> dict[str, Any] | None:
    try:
        content = read_yaml(path)
    except UserError:
        return None
    return content if isinstance(content, dict) else None


def _nothing_in(tree: _Tree) -> UserError:
    count = len(tree.images)
    for path in tree.with_suffix(".json")[:1]:
        if _json_kind(path) == "LabelMe":
            return UserError(f"--data {tree.root}: {path} is {_json_fault(path)}")
    csv_files = tree.with_suffix(".csv", ".tsv")
    if len(csv_files) == 1:
        csv_image_names(csv_files[0])  # says which column is missing
    return UserError(
        f"--data {tree.root} has {count:,} images and no annotations that are recognized; there "
        f"must be {_ACCEPTED}"
    )
