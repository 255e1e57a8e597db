"""VOC and VIA annotations for tests, by parts that can be replaced."""

from __future__ import annotations

from pathlib import Path

from data_files import HEIGHT, WIDTH, write_image

VOC_CORNERS = (5, 3, 12, 12)


def voc_object(name: str = "ring", corners: tuple[object, ...] = VOC_CORNERS) -> str:
    keys = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, corners, strict=True))
    return f"<object><name> {name} </name><bndbox>{box}</bndbox></object>"


def voc_file(
    *objects: str, size: tuple[object, object] = (HEIGHT, WIDTH), file: str = "a.png"
) -> str:
    size_text = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>"
    return f"<annotation><filename>{file}</filename>{size_text}{''.join(objects)}</annotation>"


def write_voc_set(root: Path, **files: str | bytes) -> Path:
    for name, text in files.items():
        path = root / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        write_image(root / "JPEGImages" / f"{name}.png")
    return root


POLYGON = {"name": "polygon", "all_points_x": [10, 30, 30, 10], "all_points_y": [20, 20, 50, 50]}
RECT = {"name": "rect", "x": 4, "y": 2, "width": 8, "height": 10}


def via_region(shape: object, **attributes: object) -> dict:
    return {"shape_attributes": shape, "region_attributes": attributes}


def via_file(*regions: object, name: str = "a.png") -> dict:
    return {f"{name}123": {"filename": name, "size": 123, "regions": list(regions)}}
