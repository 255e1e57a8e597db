"""Images per second of the mapper: `python -m benchmarks.loader [--images N] [--rounds N]`.

1024-pixel files become training inputs of 512 pixels with a random flip; detectron2's own mapper
does the same to the same PNG and JPEG files, and reads no DICOM.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetMapper, MapDataset
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid
from torch.utils.data import DataLoader

from ulga_d2.data.mapper import DetectionMapper, training_augmentations

from .timing import take_turns

SIDE, INPUT_SIDE = 1024, 512
BOXES = [[100.0, 120.0, 400.0, 380.0], [500.0, 300.0, 900.0, 950.0]]


def picture(number: int) -> np.ndarray:
    """Return a grey image with the spectrum of a radiograph: mostly smooth, some grain."""
    rng = np.random.default_rng(number)
    pixels = sum(
        cv2.resize(rng.normal(0, 12, (side, side)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        for side in (4, 16, 64, 256)
    )
    return np.clip(pixels + rng.normal(110, 3, (SIDE, SIDE)), 0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG, a JPEG, or a DICOM file with a baseline JPEG inside, by the suffix."""
    if path.suffix != ".dcm":
        Image.fromarray(pixels).save(path)
        return
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.stem])
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


def records_of(folder: Path, suffix: str, count: int) -> list[dict]:
    """Write `count` images and return their records."""
    records = []
    for number in range(count):
        path = folder / f"{number}.{suffix}"
        write(path, picture(number))
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
            for box in BOXES
        ]
        record = {"file_name": str(path), "image_id": number, "height": SIDE, "width": SIDE}
        records.append(record | {"annotations": annotations})
    return records


def mappers() -> dict[str, Callable[[dict], dict]]:
    """Return our mapper and detectron2's, with equal work to do."""
    ours = training_augmentations(INPUT_SIDE, (1.0, 1.0), "horizontal")
    theirs = [T.ResizeShortestEdge(INPUT_SIDE, INPUT_SIDE), T.RandomFlip()]
    return {
        "ours": DetectionMapper(ours),
        "detectron2": DatasetMapper(is_train=True, augmentations=theirs, image_format="RGB"),
    }


def reader(records: list[dict], mapper: Callable[[dict], dict], workers: int) -> Callable[[], int]:
    """Return a call that maps all records once; workers live from the first call on."""
    loader = DataLoader(
        MapDataset(records, mapper),
        batch_size=4,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=list,
    )
    return lambda: sum(len(batch) for batch in loader)


def rows(count: int, rounds: int) -> Iterator[str]:
    """Yield a row for each kind of file and number of workers."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("png", "jpg", "dcm"):
            records = records_of(Path(folder), suffix, count)
            known = {name: m for name, m in mappers().items() if suffix != "dcm" or name == "ours"}
            for workers in (0, 2):
                readers = {name: reader(records, m, workers) for name, m in known.items()}
                times = take_turns(readers, rounds)
                rates = {name: f"{count / times.median(name):.0f}" for name in known}
                ratio = times.ratio("ours", "detectron2") if "detectron2" in known else "-"
                theirs = rates.get("detectron2", "-")
                yield f"| {suffix} | {workers} | {rates['ours']} | {theirs} | {ratio} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Images per second of the mapper.")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print("| 1024 px | workers | images/s | detectron2's mapper | ratio of times, goal <= 1.00 |")
    print("|---|---|---|---|---|")
    for row in rows(args.images, args.rounds):
        print(row, flush=True)


if __name__ == "__main__":
    main()
