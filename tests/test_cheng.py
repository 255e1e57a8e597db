"""Cheng's MATLAB slices: written here as MATLAB 7.3 lays them out, and read back."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from data_files import boxes_of
from pycocotools import mask as run_lengths

from ulga_d2.data.brain_tumor import describe, find_layout, load_brain_tumor
from ulga_d2.data.formats.cheng import mat_size, read_mat_pixels
from ulga_d2.data.image import image_size, read_image
from ulga_d2.data.intensity import Intensity
from ulga_d2.data.split import SEED, fold_of
from ulga_d2.errors import UserError

HEIGHT, WIDTH = 20, 30
IMAGE = np.arange(HEIGHT * WIDTH, dtype=np.int16).reshape(HEIGHT, WIDTH) * 7
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[3:9, 5:20] = 1


def write_slice(
    path: Path,
    *,
    label: float = 2,
    patient: str = "100360",
    mask: np.ndarray | None = MASK,
    image: np.ndarray = IMAGE,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        struct = file.create_group("cjdata")
        struct["label"] = np.array([[float(label)]])
        struct["PID"] = np.array([[ord(letter)] for letter in patient], np.uint16)
        struct["image"] = image.T
        struct["tumorBorder"] = np.array([[5.0, 3.0, 20.0, 9.0]])
        if mask is not None:
            struct["tumorMask"] = mask.T
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def write_folds(path: Path, folds: list[int]) -> None:
    with h5py.File(path, "w") as file:
        file["cvind"] = np.array([folds], np.float64)


def write_set(root: Path, count: int = 6) -> Path:
    for number in range(1, count + 1):
        folder = root / ("first" if number < 4 else "second")
        write_slice(folder / f"{number}.mat", label=1 + number % 3, patient=f"P{number // 2}")
    return root


def test_a_slice_gives_box_mask_patient_and_class(tmp_path):
    write_folds(write_set(tmp_path) / "cvind.mat", [1, 2, 3, 4, 5, 5])
    train, val = (load_brain_tumor(tmp_path, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("meningioma", "glioma", "pituitary")
    assert [record["image_id"] for record in train.records] == [1, 2, 3, 4]
    assert [record["image_id"] for record in val.records] == [5, 6]
    assert [record["patient_id"] for record in val.records] == ["P2", "P3"]
    record = train.records[0]
    assert (record["height"], record["width"]) == (HEIGHT, WIDTH)
    assert boxes_of(record) == [[5, 3, 20, 9]]
    assert record["annotations"][0]["category_id"] == 1
    np.testing.assert_array_equal(
        run_lengths.decode(record["annotations"][0]["segmentation"]), MASK
    )
    assert describe(find_layout(tmp_path)) == "Cheng, 6 slices in five folds"


def test_without_folds_a_hash_of_the_patient_decides(tmp_path):
    write_set(tmp_path, 20)
    train, val = (load_brain_tumor(tmp_path, split).records for split in ("train", "val"))
    patients = [{record["patient_id"] for record in records} for records in (train, val)]
    assert not patients[0] & patients[1] and len(train) + len(val) == 20
    assert patients[1] == {f"P{n}" for n in range(11) if fold_of(SEED, f"P{n}", 5) == 4}


def test_a_second_reading_says_the_same_from_the_cache(tmp_path):
    write_set(tmp_path)
    first, second = (load_brain_tumor(tmp_path, "train").records for _ in range(2))
    assert first == second


def test_pixels_are_upright_and_of_full_depth(tmp_path):
    path = str(tmp_path / "1.mat")
    write_slice(Path(path))
    assert mat_size(path) == image_size(path) == (HEIGHT, WIDTH)
    pixels = read_mat_pixels(path)
    assert pixels.dtype == np.int16
    np.testing.assert_array_equal(pixels, IMAGE)
    image = read_image(path, Intensity("window", 0, 7 * HEIGHT * WIDTH))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert len(np.unique(image)) == HEIGHT * WIDTH


def test_a_slice_with_an_empty_mask_is_no_negative_but_left_out(tmp_path):
    write_slice(tmp_path / "1.mat", mask=0 * MASK)
    write_folds(tmp_path / "cvind.mat", [1])
    loaded = load_brain_tumor(tmp_path, "train")
    assert loaded.records == []
    assert loaded.report.reasons == {"slices with an empty mask left out": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": 4}, r"1\.mat: label is 4, not 1, 2 or 3"),
        ({"mask": None}, r"1\.mat cannot be decoded \(it has no cjdata/tumorMask\)"),
        ({"mask": MASK.T}, r"its mask, label or PID is not what it should be"),
        ({"label": float("nan")}, r"cannot be decoded"),
        ({"image": IMAGE[0]}, r"its cjdata/image is no matrix of numbers"),
    ],
)
def test_faulty_slices_stop_with_the_file(tmp_path, changes, message):
    write_slice(tmp_path / "1.mat", **changes)
    write_folds(tmp_path / "cvind.mat", [1])
    with pytest.raises(UserError, match=message):
        load_brain_tumor(tmp_path, "train")


def test_a_file_that_is_cut_off_or_no_hdf5_is_named(tmp_path):
    path = tmp_path / "1.mat"
    write_slice(path)
    path.write_bytes(path.read_bytes()[:1500])
    for content in (path.read_bytes(), b"MATLAB 5.0 MAT-file"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"1\.mat cannot be decoded \(not a MATLAB file of"):
            read_mat_pixels(str(path))


def test_a_link_out_of_the_file_is_not_followed(tmp_path):
    write_slice(tmp_path / "other.mat")
    path = tmp_path / "1.mat"
    with h5py.File(path, "w") as file:
        file["cjdata"] = h5py.ExternalLink(str(tmp_path / "other.mat"), "/cjdata")
    with pytest.raises(UserError, match="it has no cjdata/image"):
        read_mat_pixels(str(path))


def test_folds_that_do_not_fit_are_refused(tmp_path):
    write_set(tmp_path)
    for folds in ([1, 2], [1, 2, 3, 4, 5, 6]):
        write_folds(tmp_path / "cvind.mat", folds)
        with pytest.raises(UserError, match=r"a fold from 1 to 5 for each of 6 slices"):
            load_brain_tumor(tmp_path, "train")


def test_a_huge_array_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "1.mat"
    with h5py.File(path, "w") as file:
        group = file.create_group("cjdata")
        group.create_dataset("image", (1 << 20, 1 << 20), "i2", chunks=(64, 64))
    for read in (mat_size, read_mat_pixels):
        with pytest.raises(UserError, match="more than the"):
            read(str(path))
