"""The same picture is found again, whatever was done to its file; other pictures are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ulga_d2.data.check import scan as scanning
from ulga_d2.data.check.duplicates import exact_duplicates, near_duplicates
from ulga_d2.data.check.scan import Scan, scan_images
from ulga_d2.data.intensity import FULL_RANGE


def picture(seed: int, side: int = 96) -> np.ndarray:
    """A smooth random picture of full contrast."""
    noise = np.random.default_rng(seed).standard_normal((side, side)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 8), None, 0, 255, cv2.NORM_MINMAX)


def scan_of(folder: Path, images: dict[str, np.ndarray]) -> list[Scan]:
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        cv2.imwrite(str(folder / name), np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return scan_images(
        [{"file_name": str(folder / name)} for name in images], FULL_RANGE, decode=True
    )


def test_a_file_in_another_format_has_the_same_pixels(tmp_path):
    scans = scan_of(tmp_path, {"a.png": picture(0), "b.png": picture(1), "a.bmp": picture(0)})
    assert exact_duplicates(scans) == [[0, 2]]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a.jpg", lambda image: image),
        ("a.png", lambda image: 0.7 * image + 30),
        ("a.png", lambda image: cv2.resize(image, (150, 120), interpolation=cv2.INTER_CUBIC)),
        ("a.png", lambda image: image + np.random.default_rng(0).normal(0, 6, image.shape)),
    ],
    ids=["coded as JPEG", "dimmed", "scaled", "noisy"],
)
def test_a_changed_copy_is_nearly_the_same(tmp_path, name, change):
    first = scan_of(tmp_path / "one", {f"{seed}.png": picture(seed) for seed in range(20)})
    second = scan_of(tmp_path / "two", {"other.png": picture(99), name: change(picture(7))})
    assert near_duplicates(first, second) == [(7, 1)]


def test_other_pictures_and_flat_ones_are_not_nearly_the_same(tmp_path):
    flat = {"flat.png": np.full((64, 64), 90.0)}
    first = scan_of(tmp_path / "one", {f"{seed}.png": picture(seed) for seed in range(20)} | flat)
    second = scan_of(tmp_path / "two", {f"{s}.png": picture(s) for s in range(50, 70)} | flat)
    assert near_duplicates(first, second) == []


def test_equal_pixels_are_left_to_the_exact_search(tmp_path):
    first = scan_of(tmp_path / "one", {"a.png": picture(0)})
    second = scan_of(tmp_path / "two", {"b.png": picture(0)})
    assert near_duplicates(first, second) == []


def test_blocks_give_what_all_pairs_give(monkeypatch):
    generator = np.random.default_rng(0)

    def scans(count: int) -> list[Scan]:
        return [
            Scan(
                digest=generator.bytes(8),
                fingerprint=int(generator.integers(0, 64)),
                thumbnail=bytes([0, 255] * 512),
            )
            for _ in range(count)
        ]

    first, second = scans(23), scans(17)
    expected = [
        (i, j)
        for i, a in enumerate(first)
        for j in [
            next(
                (j for j, b in enumerate(second) if (a.fingerprint ^ b.fingerprint).bit_count() < 5)
            )
        ]
    ]
    monkeypatch.setattr("ulga_d2.data.check.duplicates.BLOCK", 40)
    monkeypatch.setattr("ulga_d2.data.check.duplicates.PAIRS", 3)
    assert near_duplicates(first, second) == expected


def test_two_processes_find_what_one_finds(tmp_path, monkeypatch):
    records = [{"file_name": str(tmp_path / f"{seed}.png")} for seed in range(6)]
    one = scan_of(tmp_path, {f"{seed}.png": picture(seed) for seed in range(5)})
    (tmp_path / "5.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    one += scan_images(records[5:], FULL_RANGE, decode=True)
    monkeypatch.setattr(scanning, "MIN_IMAGES", 1)
    assert scan_images(records, FULL_RANGE, decode=True) == one
    assert one[5].fault.startswith(f"image {records[5]['file_name']}")
