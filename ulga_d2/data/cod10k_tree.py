"""Where COD10K's files lie: the second and third release, and the nested copy on Kaggle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .find import check_root
from .root import IMAGE_SUFFIXES

PARTS = ("Train", "Test")
TREE = (
    "{Train,Test}/Image, and {Train,Test}/GT_Instance or GT_Object, or "
    "{Train,Test}/CAM_Instance_{Train,Test}.json"
)


@dataclass(frozen=True)
class Part:
    """One of the two official parts.

    Attributes:
        name: "Train" or "Test".
        images: path by name without suffix.
        instances: instance masks, likewise.
        objects: masks of everything camouflaged in an image, likewise.
        annotations: the third release's JSON, or None.
    """

    name: str
    images: dict[str, Path]
    instances: dict[str, Path]
    objects: dict[str, Path]
    annotations: Path | None


def find_part(root: Path, name: str) -> Part:
    """Find one part of the data set in `root`, or in its only subfolder that holds it.

    Raises:
        UserError: the part is missing, or stands twice, or two files have one name.
    """
    folder = _folder(root, name)
    annotations = folder / f"CAM_Instance_{name}.json"
    part = Part(
        name,
        images=_files(folder, "Image"),
        instances=_files(folder, "GT_Instance"),
        objects=_files(folder, "GT_Object"),
        annotations=annotations if annotations.is_file() else None,
    )
    if not part.images:
        raise UserError(f"{folder} holds no images; the tree must be {TREE}")
    if not (part.annotations or part.instances or part.objects):
        raise UserError(
            f"{folder} holds neither masks nor a JSON, so nothing tells where the objects are; the "
            f"tree must be {TREE}"
        )
    return part


def _folder(root: Path, name: str) -> Path:
    check_root(root, "COD10K")
    places = [root, *sorted(child for child in root.iterdir() if child.is_dir())]
    found = [place / name for place in places if (place / name).is_dir()]
    if len(found) != 1:
        where = " and ".join(map(str, found)) or f"nowhere in {root}"
        raise UserError(f"COD10K's folder {name} must stand once, but is {where}; expected: {TREE}")
    return found[0]


def _files(folder: Path, kind: str) -> dict[str, Path]:
    """Return the image files of `Image`, or of the nested `Images/Image`, by stem."""
    places = (folder / kind, folder / f"{kind}s" / kind)
    files: dict[str, Path] = {}
    for place in places:
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
                continue
            if path.stem in files:
                raise UserError(
                    f"{files[path.stem]} and {path} have one name, so which one is meant is "
                    "unclear; move one away"
                )
            files[path.stem] = path
    return files
