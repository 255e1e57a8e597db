"""Write Pascal VOC annotation files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree


def write_voc(
    annotation_dir: Path,
    list_file: Path,
    records: Sequence[dict],
    names: Mapping[str, str],
    class_names: Sequence[str],
) -> None:
    """Write one XML file an image, and the list of the split's images.

    Corners are 1-based and inclusive, as the VOC development kit has them: the box that covers the
    first pixel alone is (1, 1, 1, 1). They keep their fractions, which the kit reads too.

    Args:
        annotation_dir: the folder of the XML files, for all splits.
        list_file: the split's file under `ImageSets/Main`: names without suffix.
        records: the split's records.
        names: per `file_name` of a record, the image's path within the image folder.
        class_names: by category_id.
    """
    listed = []
    for record in records:
        name = PurePosixPath(names[record["file_name"]])
        listed.append(name.with_suffix("").as_posix())
        write_voc_file(
            annotation_dir / name.with_suffix(".xml"), record, name.as_posix(), class_names
        )
    list_file.parent.mkdir(parents=True, exist_ok=True)
    list_file.write_text("".join(f"{name}\n" for name in listed), encoding="utf-8")


def write_voc_file(
    annotation_file: Path, record: dict, name: str, class_names: Sequence[str]
) -> None:
    """Write the XML file of one image; see `write_voc`.

    Args:
        annotation_file: the file to write.
        record: of the image; where an annotation has a `score`, its object gets an element `score`.
        name: the image's path within the image folder.
        class_names: by category_id.
    """
    tree = ElementTree.ElementTree(_annotation(record, name, class_names))
    ElementTree.indent(tree)
    annotation_file.parent.mkdir(parents=True, exist_ok=True)
    tree.write(annotation_file, encoding="utf-8")


def _annotation(record: dict, name: str, class_names: Sequence[str]) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    _add(root, "filename", name)
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", record["width"]), ("height", record["height"]), ("depth", 3)):
        _add(size, key, value)
    for item in record["annotations"]:
        entry = ElementTree.SubElement(root, "object")
        _add(entry, "name", class_names[item["category_id"]])
        for key in ("truncated", "difficult"):
            _add(entry, key, 0)
        if "score" in item:
            _add(entry, "score", item["score"])
        x0, y0, x1, y1 = item["bbox"]
        box = ElementTree.SubElement(entry, "bndbox")
        corners = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
        for key, value in corners.items():
            _add(box, key, f"{value:.10g}")
    return root


def _add(parent: ElementTree.Element, key: str, value: object) -> None:
    ElementTree.SubElement(parent, key).text = str(value)
