"""The brain tumour data set, read in place from the forms in which it is distributed.

Sources: Roboflow-100 `brain-tumor-m2pbp` (COCO JSON), Ultralytics `brain-tumor` (YOLO), Cheng et
al., figshare 1512427 (MATLAB), Br35H (VIA JSON), and any set in the same folder trees. The layout
is found with the standard library alone, so `ulga doctor` can name it where nothing else is
installed; the readers are imported when a split is read.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .root import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from .record import LoadedSplit

SPLITS = ("train", "val", "test")
COCO_FILE = "_annotations.coco.json"
VIA_FILES = ("via*.json", "annotations*.json")
# Roboflow says valid, Ultralytics val.
_FOLDERS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class Layout:
    """The folder tree found under a root.

    Attributes:
        root: the folder that holds the tree.
        tree: the tree in words, for example "images/train, labels/train".
        annotation_format: "YOLO", "COCO", "VIA" or "Cheng".
        splits: per split found, its folder of images and its folder or file of annotations. Which
            split a slice of Cheng's belongs to, only its reader can tell.
    """

    root: Path
    tree: str
    annotation_format: str
    splits: dict[str, tuple[Path, Path]]


def _yolo_images_first(root: Path, folder: str) -> tuple[Path, Path]:
    return root / "images" / folder, root / "labels" / folder


def _yolo_split_first(root: Path, folder: str) -> tuple[Path, Path]:
    return root / folder / "images", root / folder / "labels"


def _coco(root: Path, folder: str) -> tuple[Path, Path]:
    return root / folder, root / folder / COCO_FILE


def _via(root: Path, folder: str) -> tuple[Path, Path]:
    """Return Br35H's folder of a split, which it writes in capitals, and the JSON in it."""
    images = root / folder if (root / folder).is_dir() else root / folder.upper()
    files = sorted(path for pattern in VIA_FILES for path in images.glob(pattern))
    if len(files) > 1:
        raise UserError(
            f"{files[0]} and {files[1]} would both be the annotations of {folder}; move one away"
        )
    return images, files[0] if files else images / VIA_FILES[0]


# Per tree: its description, its annotation format, and where a split's images and annotations lie.
_TREES: tuple[tuple[str, str, Callable[[Path, str], tuple[Path, Path]]], ...] = (
    ("images/{train,val,test} and labels/{train,val,test}", "YOLO", _yolo_images_first),
    ("{train,valid,test}/images and {train,valid,test}/labels", "YOLO", _yolo_split_first),
    (f"{{train,valid,test}}/{COCO_FILE} beside the images", "COCO", _coco),
    (f"{{train,val,test}}/{' or '.join(VIA_FILES)} beside the images", "VIA", _via),
)
_CHENG_TREE = "1.mat, 2.mat, ... here or one folder below, and cvind.mat"


def find_layout(root: Path) -> Layout | None:
    """Find the data set's layout in `root`, or in its only subfolder that has one.

    Returns:
        The layout, or None where nothing is found.

    Raises:
        UserError: two layouts, or two folders for one split, stand side by side.
    """
    try:
        here = _layouts_in(root)
        if not here and root.is_dir():
            # An archive often unpacks into a folder of its own.
            children = sorted(child for child in root.iterdir() if child.is_dir())
            here = [layout for child in children for layout in _layouts_in(child)]
    except OSError as error:
        raise UserError(f"{root} cannot be read: {error.strerror or error}") from None
    if len(here) > 1:
        found = " and ".join(
            f"{item.annotation_format} in {item.root}: {item.tree}" for item in here
        )
        raise UserError(
            f"{root} holds {len(here)} layouts at once, {found}; which one is meant is unclear: "
            "move one away"
        )
    return here[0] if here else None


def _layouts_in(root: Path) -> list[Layout]:
    layouts = []
    for tree, annotation_format, place in _TREES:
        splits = {}
        for split, folders in _FOLDERS.items():
            pairs = [place(root, folder) for folder in folders]
            pairs = [pair for pair in pairs if pair[0].is_dir() and pair[1].exists()]
            if len(pairs) > 1:
                raise UserError(
                    f"{pairs[0][0]} and {pairs[1][0]} would both be the {split} split; "
                    "move one away"
                )
            if pairs:
                splits[split] = pairs[0]
        if splits:
            layouts.append(Layout(root, tree, annotation_format, splits))
    if _count_slices(root):
        # All slices lie together; the fold says which split one belongs to.
        splits = {split: (root, root) for split in ("train", "val")}
        layouts.append(Layout(root, _CHENG_TREE, "Cheng", splits))
    return layouts


def describe(layout: Layout) -> str:
    """Return one line about a layout, such as "YOLO, 2,850 train / 714 val images"."""
    if layout.annotation_format == "Cheng":
        return f"Cheng, {_count_slices(layout.root):,} slices in five folds"
    counts = [f"{_count_images(images):,} {split}" for split, (images, _) in layout.splits.items()]
    return f"{layout.annotation_format}, {' / '.join(counts)} images"


def _count_images(folder: Path) -> int:
    return sum(
        os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")
        for _, _, names in os.walk(folder)
        for name in names
    )


def _count_slices(root: Path) -> int:
    return sum(
        path.stem.isascii() and path.stem.isdigit()
        for pattern in ("*.mat", "*/*.mat")
        for path in root.glob(pattern)
    )


def load_brain_tumor(root: Path, split: str) -> LoadedSplit:
    """Read one split in place.

    Args:
        root: the data set's folder, usually `$DETECTRON2_DATASETS/brain_tumor`.
        split: "train", "val" or "test".

    Raises:
        UserError: the data or the split is missing, or a file is not what it should be.
    """
    from .formats.cheng import read_cheng
    from .formats.coco import read_coco
    from .formats.yolo import read_yolo

    layout = find_layout(root)
    if layout is None:
        raise UserError(_missing(root))
    if split not in layout.splits:
        raise UserError(
            f"the brain tumour data in {layout.root} have no {split} split ({describe(layout)}); "
            f"name another split in DATASETS, or add this one: {layout.tree}"
        )
    images, annotations = layout.splits[split]
    if layout.annotation_format == "COCO":
        return read_coco(annotations, images, [file for _, file in layout.splits.values()])
    if layout.annotation_format == "VIA":
        return _read_via(layout, split)
    if layout.annotation_format == "Cheng":
        return read_cheng(layout.root, split)
    return read_yolo(images, annotations, _class_file(layout.root))


def _read_via(layout: Layout, split: str) -> LoadedSplit:
    from .formats.via import read_via, via_class_names

    # Br35H's outlines need not say that they are tumours.
    names = {name for _, file in layout.splits.values() for name in via_class_names(file)}
    images, annotations = layout.splits[split]
    return read_via(annotations, images, tuple(sorted(names)) or ("tumor",))


def _missing(root: Path) -> str:
    known = [*((kind, tree) for tree, kind, _ in _TREES), ("Cheng", _CHENG_TREE)]
    trees = "\n".join(f"  {kind}: {tree}" for kind, tree in known)
    exists = root.is_dir()
    state = "holds none of these folder trees" if exists else "does not exist"
    move = "move that folder away and " if exists else ""
    return (
        f"no brain tumour data: {root} {state}. Looked for\n{trees}\n"
        "Get them as datasets/README.md says and unpack them there, or set DETECTRON2_DATASETS to "
        f"the folder that holds brain_tumor/. To try without them, {move}write a sample: "
        f"ulga sample brain_tumor {shlex.quote(str(root))}"
    )


def _class_file(root: Path) -> Path:
    """Return the YAML file with the class names: data.yaml, or else the only one in the folder."""
    files = sorted(path for path in root.iterdir() if path.suffix in (".yaml", ".yml"))
    named = [path for path in files if path.stem == "data"]
    if len(named or files) == 1:
        return (named or files)[0]
    fault = f"{len(files)} YAML files and no data.yaml" if files else "no data.yaml"
    raise UserError(
        f"{root} has {fault}, so the class names are unknown; write {root / 'data.yaml'} with the "
        "names in order of their numbers, such as `names: [negative, positive]`"
    )
