"""Faults in image files and masks: missing, cut off, of another kind, turned, the same twice."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pydicom
from PIL import Image

from ..cod10k import SHARES as COD10K_SHARES
from ..report import FRAMES
from ..rsna_pneumonia import SHARES as RSNA_SHARES
from ..rsna_pneumonia import UNLISTED
from ..split import split_of
from .layout import SampleImage, Written, write_image
from .outcome import (
    IN_BOTH,
    MIXED_BITS,
    MIXED_MODES,
    TURNED,
    UNDECODABLE,
    WRONG_SUFFIX,
    Defect,
    Fault,
    Outcome,
)
from .row_faults import YOLO

MASKS = frozenset(["v2", "kaggle"])
COD10K = MASKS | {"v3"}
GREY_PNG = YOLO | {"nih"}
JPEG = COD10K | {"roboflow", "via"}
PICTURES = GREY_PNG | JPEG | {"ours"}
MISSING = "images that do not exist dropped with their boxes"
TURNED_UNLIKE_SIZE = "images turned by EXIF though their size is given unturned"
# EXIF: the tag, and its value for a quarter turn clockwise.
_ORIENTATION, _TURN_CLOCKWISE = 0x0112, 6


def _missing(written: Written, image: SampleImage, layout: str) -> Outcome:
    image.path.unlink()
    if layout in YOLO:
        return Outcome("label files without image skipped", is_loss=True)
    reason = "masks without an image dropped" if layout in COD10K else MISSING
    return _lost(reason, image)


def _lost(reason: str, image: SampleImage) -> Outcome:
    return Outcome(reason, dropped_images=1, dropped_boxes=len(image.labels), is_loss=True)


def _orphan(written: Written, image: SampleImage, layout: str) -> Outcome:
    """Copy an image to a name that no annotation has, and that the reader puts into train."""
    stem, number = image.name, 90_000
    if layout in YOLO:
        shutil.copyfile(image.path, image.path.with_stem(f"{stem}_orphan"))
        return Outcome("images without label file taken as background")
    shares, cut = (RSNA_SHARES, 1) if layout == "rsna" else (COD10K_SHARES, 1)
    start = stem.rsplit("-", cut)[0]
    while split_of(f"{start}-{number}", shares) != "train":
        number += 1
    shutil.copyfile(image.path, image.path.with_stem(f"{start}-{number}"))
    if layout == "rsna":
        return Outcome(UNLISTED, dropped_images=1)
    return Outcome("images without a mask dropped", dropped_images=1, is_loss=True)


def _cut_off(written: Written, image: SampleImage, layout: str) -> Outcome:
    data = image.path.read_bytes()
    image.path.write_bytes(data[: len(data) * 3 // 5])
    if layout == "cheng":
        # Its annotation is in the same file, so nobody can tell that there was one.
        return replace(_lost("slices that cannot be read dropped", image), dropped_boxes=0)
    return Outcome(finding=UNDECODABLE)


def _sixteen_bits(written: Written, image: SampleImage, layout: str) -> Outcome:
    with Image.open(image.path) as opened:
        pixels = np.asarray(opened.convert("L")).astype(np.uint16)
    Image.fromarray(pixels * 257).save(image.path)
    return Outcome(finding=MIXED_BITS)


def _other_mode(written: Written, image: SampleImage, layout: str) -> Outcome:
    """Store a JPEG as CMYK and a PNG with a palette."""
    mode = "CMYK" if image.path.suffix == ".jpg" else "P"
    with Image.open(image.path) as opened:
        changed = opened.convert("RGB").convert(mode)
    changed.save(image.path)
    return Outcome(finding=MIXED_MODES)


def _other_format(written: Written, image: SampleImage, layout: str) -> Outcome:
    """Store a PNG under the name of a JPEG, and the other way round."""
    with Image.open(image.path) as opened:
        pixels = opened.copy()
    pixels.save(image.path, "PNG" if image.path.suffix == ".jpg" else "JPEG")
    return Outcome(finding=WRONG_SUFFIX)


def _turned(written: Written, image: SampleImage, layout: str) -> Outcome:
    """Store an image turned, with the EXIF mark that turns it back; JSON gives the stored size."""
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURN_CLOCKWISE
    with Image.open(image.path) as opened:
        turned = opened.transpose(Image.Transpose.ROTATE_90)
    turned.save(image.path, exif=exif)
    if image.size[0] == image.size[1]:
        return Outcome(finding=TURNED)
    path = written.text_of(image)
    content = json.loads(path.read_bytes())
    entry = next(e for e in content["images"] if e["file_name"] == image.path.name)
    entry["height"], entry["width"] = turned.height, turned.width
    path.write_text(json.dumps(content), encoding="utf-8")
    return Outcome(TURNED_UNLIKE_SIZE, finding=TURNED)


def _in_both_splits(written: Written, image: SampleImage, layout: str) -> Outcome:
    other = next(other for other in written.images if other.split == "val" and other.labels)
    shutil.copyfile(image.path, other.path)
    return Outcome(finding=IN_BOTH)


def _second_copy(written: Written, image: SampleImage, layout: str) -> Outcome:
    folder = image.path.parents[2] / "images_002" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.path, folder / image.path.name)
    return Outcome(stops="have one name")


def _dicom(change: Callable[[pydicom.Dataset], None], outcome: Outcome) -> Fault:
    """Return what changes elements of a DICOM file."""

    def put(written: Written, image: SampleImage, layout: str) -> Outcome:
        dataset = pydicom.dcmread(image.path)
        change(dataset)
        dataset.save_as(image.path, enforce_file_format=True)
        return outcome

    return put


def _drop_pixels(dataset: pydicom.Dataset) -> None:
    del dataset.PixelData


def _two_frames(dataset: pydicom.Dataset) -> None:
    dataset.NumberOfFrames = 2


def _invert(dataset: pydicom.Dataset) -> None:
    dataset.PhotometricInterpretation = "MONOCHROME1"


def _unknown_label(written: Written, image: SampleImage, layout: str) -> Outcome:
    with h5py.File(image.path, "r+") as file:
        file["cjdata/label"][...] = 9
    return Outcome(stops="label is 9, not 1, 2 or 3")


def _mask_path(image: SampleImage, kind: str) -> Path:
    parts = [part.replace("Image", kind) for part in image.path.parts]
    return Path(*parts).with_suffix(".png")


def _without_mask(written: Written, image: SampleImage, layout: str) -> Outcome:
    for kind in ("GT_Instance", "GT_Object"):
        _mask_path(image, kind).unlink()
    return replace(_lost("images without a mask dropped", image), dropped_boxes=0)


def _empty_mask(written: Written, image: SampleImage, layout: str) -> Outcome:
    write_image(_mask_path(image, "GT_Instance"), np.zeros((*image.size, 3), np.uint8))
    reason = "camouflaged images with an empty mask dropped"
    return replace(_lost(reason, image), dropped_boxes=0)


def _other_mask(written: Written, image: SampleImage, layout: str) -> Outcome:
    path = _mask_path(image, "GT_Instance")
    with Image.open(path) as opened:
        larger = opened.resize((2 * opened.width, 2 * opened.height), Image.Resampling.NEAREST)
    larger.save(path)
    return _lost("images with a mask of another size dropped", image)


def _lossy_mask(written: Written, image: SampleImage, layout: str) -> Outcome:
    """Send an instance mask through a JPEG, whose noise makes no objects."""
    path = _mask_path(image, "GT_Instance")
    buffer = io.BytesIO()
    with Image.open(path) as opened:
        opened.save(buffer, "JPEG", quality=90, subsampling=0)
    Image.open(buffer).save(path, "PNG")
    return Outcome()


FILE_DEFECTS = {
    "missing_mask": Defect(_without_mask, MASKS),
    "empty_mask": Defect(_empty_mask, MASKS),
    "other_mask_size": Defect(_other_mask, MASKS),
    "lossy_mask": Defect(_lossy_mask, MASKS),
    "unknown_label": Defect(_unknown_label, frozenset(["cheng"])),
    "sixteen_bits": Defect(_sixteen_bits, GREY_PNG),
    "other_mode": Defect(_other_mode, PICTURES),
    "other_format": Defect(_other_format, PICTURES),
    "turned": Defect(_turned, frozenset(["roboflow", "via", "ours"])),
    "in_both_splits": Defect(_in_both_splits, GREY_PNG | {"roboflow", "via", "ours", "rsna"}),
    "second_copy": Defect(_second_copy, frozenset(["nih"])),
    "monochrome1": Defect(_dicom(_invert, Outcome(finding=MIXED_MODES)), frozenset(["rsna"])),
    "no_pixels": Defect(_dicom(_drop_pixels, Outcome(finding=UNDECODABLE)), frozenset(["rsna"])),
    "two_frames": Defect(
        _dicom(_two_frames, Outcome(reason=FRAMES, finding=UNDECODABLE)), frozenset(["rsna"])
    ),
    "truncated_image": Defect(_cut_off, PICTURES | {"rsna", "cheng"}),
    "orphan_image": Defect(_orphan, YOLO | COD10K | {"rsna"}),
    "missing_image": Defect(_missing, PICTURES | {"rsna"}),
}
