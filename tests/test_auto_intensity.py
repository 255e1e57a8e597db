"""INPUT.INTENSITY auto: decided once from the training images, the same ever after."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import CONFIGS, tiny_args, tiny_options
from tests.dicom_files import shipped_files, write_dicom
from ulga_d2 import Predictor, get_cfg
from ulga_d2.cli.main import main as ulga
from ulga_d2.config import merge_config
from ulga_d2.data import image, mapper, used_range
from ulga_d2.data.image import read_image, read_stored, stored_limits
from ulga_d2.data.intensity import FULL_RANGE, Intensity
from ulga_d2.data.mapper import DetectionMapper
from ulga_d2.data.mapper import test_augmentations as evaluation_augmentations
from ulga_d2.data.used_range import SAMPLE, choose_intensity, measure_used_range
from ulga_d2.engine import datasets, loader
from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.trained import open_trained
from ulga_d2.errors import UserError
from ulga_d2.inference.preprocess import InferenceMapper, Preprocessing, build_intensity

SIDE = 64
FRAMES = (32978, 36863)  # of a camera whose zero lies at half its range
BOX = [{"category_id": 0, "iscrowd": 0, "bbox": [20, 20, 44, 44], "bbox_mode": 0}]


def frame(seed: int, low: float = FRAMES[0], high: float = FRAMES[1]) -> np.ndarray:
    """Return float pixels of noise near `low` around a square that goes up to `high`."""
    pixels = np.random.default_rng(seed).uniform(0, 0.2, (SIDE, SIDE))
    pixels[20:44, 20:44] += np.linspace(0.2, 0.8, 24)
    pixels[0, 0], pixels[30, 43] = 0, 1
    return low + pixels * (high - low)


def records_of(*paths: Path, annotations: list[dict] = BOX) -> list[dict]:
    size = {"height": SIDE, "width": SIDE}
    return [{"file_name": str(path), "annotations": annotations, **size} for path in paths]


def chosen(*paths: Path) -> Intensity:
    return choose_intensity(measure_used_range(records_of(*paths)))


def write(path: Path, pixels: np.ndarray, dtype: type = np.uint16) -> Path:
    """Write a picture, or with the suffix .dcm a DICOM file without a window."""
    pixels = np.rint(pixels).astype(dtype) if np.dtype(dtype).kind in "iu" else pixels.astype(dtype)
    if path.suffix == ".dcm":
        return write_dicom(path, pixels)
    assert cv2.imwrite(str(path), pixels)
    return path


def frames_in(folder: Path, count: int = 4, low: float = FRAMES[0], high: float = FRAMES[1]):
    return [write(folder / f"{high}_{n}.png", frame(n, low, high)) for n in range(count)]


def dataset_of(folder: Path, low: float = FRAMES[0], high: float = FRAMES[1]) -> list[str]:
    """Write a YOLO dataset of uint16 images; return the options that name it."""
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True, exist_ok=True)
        for number in range(4):
            stem, seed = f"{split}_{number}", number + 10 * len(split)
            pixels = frame(seed, low, high)[:, :: 1 - 2 * (number % 2)]  # no two nearly the same
            write(folder / "images" / split / f"{stem}.png", pixels)
            (folder / "labels" / split / f"{stem}.txt").write_text("0 0.5 0.5 0.375 0.375\n")
    lines = ["name: own", "format: yolo", "root: .", "class_names: [nucleus]", "splits:"]
    lines += [f"  {s}: {{images: images/{s}, labels: labels/{s}}}" for s in ("train", "val")]
    (folder / "own.yaml").write_text("\n".join(lines) + "\n")
    names = {"TRAIN": "('own_train',)", "TEST": "('own_val',)", "CUSTOM": str(folder / "own.yaml")}
    return [word for key, value in names.items() for word in (f"DATASETS.{key}", value)]


def args_of(folder: Path, options: list[str], **changes: object) -> argparse.Namespace:
    args = tiny_args(folder, **changes)
    args.opts += options
    return args


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Train on uint16 frames; return the run folder and the options that name the dataset."""
    folder = tmp_path_factory.mktemp("frames")
    options = dataset_of(folder / "data")
    main(args_of(folder / "run", options))
    return folder / "run", options


def stated(config: str) -> tuple[str, list]:
    keys = yaml.safe_load(config)["INPUT"]
    return keys["INTENSITY"], keys["INTENSITY_RANGE"]


# --- the choice -------------------------------------------------------------------------------


def test_frames_of_a_narrow_range_reach_the_network_over_most_of_it(tmp_path):
    cfg, data, _ = setup(args_of(tmp_path / "run", dataset_of(tmp_path / "data")))
    assert cfg.INPUT.INTENSITY == "window" and cfg.INPUT.INTENSITY_RANGE == list(FRAMES)
    training = torch.cat(
        [item["image"].flatten() for item in next(loader.build_train_loader(cfg, data, 0))]
    )
    assert training.max() - training.min() > 200
    (batch, *_) = loader.TestLoader(cfg, data.test["own_val"])
    image = batch[0]["views"][0].image
    assert image.min() < 1 and image.max() > 254


def test_pictures_of_8_bits_keep_their_range_and_only_their_headers_are_read(tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / f"{number}.png", frame(number, 0, 20), np.uint8)
    paths = sorted(tmp_path.glob("*.png"))
    Image.open(paths[0]).convert("P").save(paths[0])
    Image.open(paths[1]).save(paths[1].with_suffix(".jpg"))
    monkeypatch.setattr(used_range, "read_stored", None)
    assert chosen(*paths, paths[1].with_suffix(".jpg")) == FULL_RANGE


def test_dicom_with_a_window_keeps_it_and_without_one_gets_one_in_hounsfield_units(tmp_path):
    of_scanner = {"RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 16}
    stored = np.rint(frame(0, 24, 2024)).astype(np.uint16)
    window = {"WindowCenter": 40, "WindowWidth": 400}
    with_window = write_dicom(tmp_path / "a.dcm", stored, **of_scanner, **window)
    without = write_dicom(tmp_path / "b.dcm", stored, **of_scanner)
    assert chosen(with_window) == FULL_RANGE
    assert chosen(without) == Intensity("window", -1000, 1000)
    pixels = read_image(str(without), chosen(without))[..., 0]
    np.testing.assert_allclose(pixels, (stored - 24.0) / 2000 * 255, atol=1e-3)


def test_monochrome1_is_inverted_within_the_chosen_window(tmp_path):
    stored = np.rint(frame(0, 100, 900)).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation="MONOCHROME1")
    assert chosen(path) == Intensity("window", 100, 900)
    pixels = read_image(str(path), chosen(path))[..., 0]
    assert pixels[stored == 100].min() == 255 and pixels[stored == 900].max() == 0


def test_padding_is_no_part_of_the_range(tmp_path):
    stored = np.rint(frame(0, 100, 900)).astype(np.int16)
    stored[:, :10] = -2000
    path = write_dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=-2000)
    intensity = chosen(path)
    assert intensity.kind == "window" and intensity.low >= 100 and intensity.high == 900


def test_padding_on_the_whole_grid_leaves_the_other_pixels_to_be_measured(tmp_path):
    stored = np.zeros((2000, 2000), np.uint16)  # a grid of every fourth pixel is measured
    stored[1::4, 1::4] = np.linspace(100, 900, 500).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=0)
    assert chosen(path).kind == "window" and chosen(path).low >= 100


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_pictures_without_a_declared_range_get_one(tmp_path, dtype):
    ends = (-70000, 90000) if dtype == np.int32 else (-1.5, 3.25)
    paths = [tmp_path / f"{number}.tif" for number in range(3)]
    for number, path in enumerate(paths):
        assert cv2.imwrite(str(path), frame(number, *ends).astype(dtype))
    assert chosen(*paths) == Intensity("window", *ends)
    pixels = read_image(str(paths[0]), chosen(*paths))
    assert pixels.min() == 0 and pixels.max() == 255


def test_files_that_use_their_whole_range_keep_it(tmp_path):
    deep = [write(tmp_path / f"{n}.png", frame(n, 0, 65535)) for n in range(2)]
    shallow = write(tmp_path / "8.png", frame(0, 0, 255), np.uint8)
    assert chosen(*deep) == chosen(*deep, shallow) == FULL_RANGE


def test_one_window_serves_8_and_16_bits_of_the_same_values(tmp_path):
    deep = [write(tmp_path / f"{n}.png", frame(n, 0, 235)) for n in range(2)]
    shallow = write(tmp_path / "8.png", frame(0, 0, 255), np.uint8)
    assert chosen(*deep) == Intensity("window", 0, 235)
    assert chosen(*deep, shallow) == Intensity("window", 0, 255)


def test_images_of_different_scales_are_each_spread_by_their_percentiles(tmp_path):
    narrow, wide = frames_in(tmp_path, 2, 0, 300), frames_in(tmp_path, 2, 0, 60000)
    intensity = chosen(*narrow, *wide)
    assert intensity.kind == "percentile"
    for path in (*narrow, *wide):
        pixels = read_image(str(path), intensity)
        assert pixels.min() < 1 and pixels.max() > 254


def test_a_window_of_some_files_is_not_replaced_by_another_for_all(tmp_path):
    stored = np.rint(frame(0, 100, 900)).astype(np.uint16)
    window = {"WindowCenter": 500, "WindowWidth": 800}
    paths = [
        write_dicom(tmp_path / "a.dcm", stored, **window),
        write_dicom(tmp_path / "b.dcm", stored),
    ]
    assert chosen(*paths).kind == "percentile"


def test_windows_of_most_files_stay_and_the_others_are_named(tmp_path, caplog, capsys):
    stored = np.rint(frame(0, 100, 900)).astype(np.uint16)
    window = {"WindowCenter": 500, "WindowWidth": 800}
    folder = tmp_path / "train"
    folder.mkdir()
    paths = [write_dicom(folder / f"{n}.dcm", stored + n, **window) for n in range(9)]
    paths.append(write_dicom(folder / "9.dcm", stored))
    assert chosen(*paths) == FULL_RANGE
    cfg = get_cfg()
    datasets.resolve_intensity(cfg, records_of(*paths))
    assert cfg.INPUT.INTENSITY == "full"
    assert "1 of the 10 sampled images" in caplog.text and "9.dcm" in caplog.text
    (tmp_path / "train.csv").write_text(
        "image,class,x,y,width,height\n" + "".join(f"{path.name},a,20,20,24,24\n" for path in paths)
    )
    (tmp_path / "own.yaml").write_text(
        "name: own\nformat: csv\nroot: .\nsplits:\n"
        "  train: {images: train, annotations: train.csv}\n"
    )
    report, _ = checked(tmp_path / "report", str(tmp_path / "own.yaml"))
    (found,) = (item for item in report["findings"] if "without a window" in item["what"])
    assert found["level"] == "problem" and found["first_places"] == [str(paths[-1])]
    capsys.readouterr()
    ulga(["data", "check", str(tmp_path / "own.yaml"), "--anonymize", "--headers"])
    text = capsys.readouterr().out
    assert "train/10.dcm" in text and str(paths[-1]) not in text


def test_a_few_outlying_images_and_hot_pixels_do_not_decide(tmp_path):
    usual, hot = frames_in(tmp_path, 38), frames_in(tmp_path, 2, 0, 65535)
    assert chosen(*usual, *hot) == Intensity("window", *FRAMES)
    pixels = np.tile(frame(0), (8, 8))
    pixels[5, 5] = 65535
    assert chosen(write(tmp_path / "hot.png", pixels)) == Intensity("window", *FRAMES)


def test_an_image_that_has_no_value_within_the_window_is_refused_and_never_chosen(tmp_path):
    frames = frames_in(tmp_path, 39)
    shallow = write(tmp_path / "8.png", frame(0, 0, 255), np.uint8)
    assert chosen(*frames, shallow).kind == "percentile"
    with pytest.raises(UserError, match=r"8\.png declares values from 0 to 255, all outside"):
        read_image(str(shallow), Intensity("window", *FRAMES))


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_outside_the_window_stops_a_run_before_it_begins(tmp_path, split, monkeypatch):
    options = dataset_of(tmp_path / "data")
    path = tmp_path / "data" / "images" / split / f"{split}_2.png"
    write(path, frame(0, 0, 255), np.uint8)
    monkeypatch.setattr(used_range, "SAMPLE", 2)  # which leaves out the file in the middle
    fault = rf"1 of 8 images, such as .*{split}_2\.png, declare values from 0 to 255, all outside"
    for _ in range(2):  # from the files, and from what is remembered of them
        with pytest.raises(UserError, match=fault):
            setup(args_of(tmp_path / "run", options))
    setup(args_of(tmp_path / "full", [*options, "INPUT.INTENSITY", "full"]))


def test_headers_tell_the_limits_that_reading_the_pixels_finds(tmp_path, monkeypatch):
    pixels = frame(0, 0, 200)
    signed = np.rint(pixels - 100).astype(np.int16)
    Image.fromarray(np.rint(pixels).astype(np.uint8)).convert("1").save(tmp_path / "bits.png")
    rescaled = {"RescaleSlope": -2, "RescaleIntercept": 100}
    told = [
        tmp_path / "bits.png",
        write(tmp_path / "8.png", pixels, np.uint8),
        write(tmp_path / "16.png", pixels),
        write(tmp_path / "16.tif", pixels),
        write(tmp_path / "8.jpg", pixels, np.uint8),
        write_dicom(tmp_path / "12.dcm", pixels.astype(np.uint16), BitsStored=12, HighBit=11),
        write_dicom(tmp_path / "signed.dcm", signed),
        write_dicom(tmp_path / "rescaled.dcm", signed, **rescaled),
        write_dicom(tmp_path / "window.dcm", signed, WindowCenter=50, WindowWidth=20),
    ]
    others = [
        write(tmp_path / "signed.tif", pixels - 100, np.int16),
        write(tmp_path / "float.tif", pixels, np.float32),
        write(tmp_path / "rgb.tif", np.dstack([pixels] * 3)),
    ]
    found = {path: read_stored(str(path), own_window=False).limits for path in [*told, *others]}
    assert {path: stored_limits(str(path)) for path in others} == {p: found[p] for p in others}
    monkeypatch.setattr(image, "read_stored", None)  # the headers tell
    assert {path: stored_limits(str(path)) for path in told} == {p: found[p] for p in told}
    assert len(set(found.values())) > 5


def test_the_limits_of_pydicoms_own_files_are_those_that_reading_their_pixels_finds():
    compared = 0
    for path in shipped_files().values():
        with contextlib.suppress(UserError):
            stored = read_stored(str(path), own_window=False, frame=0)
            assert stored_limits(str(path), frame=0) == stored.limits, path
            compared += 1
    assert compared > 50


def test_blank_images_without_objects_do_not_decide(tmp_path):
    full, blank = frames_in(tmp_path, 3), frames_in(tmp_path, 3, 33000, 33020)
    records = records_of(*full) + records_of(*blank, annotations=[])
    assert choose_intensity(measure_used_range(records)) == Intensity("window", *FRAMES)


def test_images_of_one_value_get_percentiles_which_show_them_black(tmp_path):
    path = write(tmp_path / "a.png", np.full((SIDE, SIDE), 500.0))
    assert (read_image(str(path), chosen(path)) == 0).all()


def test_at_most_200_images_are_read_evenly_and_always_the_same_ones(tmp_path, monkeypatch):
    path = frames_in(tmp_path, 1)[0]
    paths = [tmp_path / f"{number:04d}.png" for number in range(1000)]
    for link in paths:
        link.symlink_to(path)
    read = []
    monkeypatch.setattr(
        used_range,
        "_measure",
        lambda record, facts: read.append(Path(record["file_name"]).stem),
    )
    for _ in range(2):
        measure_used_range(records_of(*paths))
    first, second = read[:SAMPLE], read[SAMPLE:]
    assert first == second and len(set(first)) == SAMPLE
    assert set(np.diff([int(stem) for stem in first])) == {5, 6}


def test_the_main_process_decides_for_all_ranks(tmp_path, monkeypatch):
    cfg = get_cfg()
    of_main = Intensity("window", 3, 9), "40 images"
    monkeypatch.setattr(datasets.comm, "is_main_process", lambda: False)
    monkeypatch.setattr(datasets.comm, "all_gather", lambda own: [of_main, own])
    monkeypatch.setattr(datasets, "measure_used_range", None)
    datasets.resolve_intensity(cfg, [])
    assert build_intensity(cfg) == Intensity("window", 3, 9)
    cfg = get_cfg()
    monkeypatch.setattr(
        datasets.comm, "all_gather", lambda own: [UserError("a.png is damaged"), own]
    )
    with pytest.raises(UserError, match="a.png is damaged"):
        datasets.resolve_intensity(cfg, [])


def test_a_damaged_image_of_the_sample_stops_a_training_before_it_begins(tmp_path):
    options = dataset_of(tmp_path / "data")
    path = tmp_path / "data" / "images" / "train" / "train_2.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"train_2\.png cannot be decoded"):
        setup(args_of(tmp_path / "run", options))


# --- the numbers ever after -------------------------------------------------------------------


def test_log_config_and_checkpoints_state_plain_numbers(run):
    folder, _ = run
    line = (
        r"INTENSITY auto becomes window with INPUT\.INTENSITY_RANGE \[32978, 36863\]: 4 of 4.*5\.9%"
    )
    assert len(re.findall(line, (folder / "log.txt").read_text())) == 1
    expected = ("window", list(FRAMES))
    assert stated((folder / "config.yaml").read_text()) == expected
    for name in ("model_final.pth", "inference/model_inference.pth"):
        state = torch.load(folder / name, weights_only=True)
        assert stated(state["config"]) == expected


def test_inference_reads_images_as_the_training_did(run):
    folder, options = run
    expected = Intensity("window", *map(float, FRAMES))
    for source in (folder, folder / "model_final.pth", folder / "config.yaml"):
        assert Predictor(source, device="cpu").preprocessing.intensity == expected
    leaf = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")
    image = str(folder.parent / "data" / "images" / "val" / "val_0.png")
    words = [*tiny_options(folder), *options]
    (seen,) = open_trained(leaf, str(folder / "model_final.pth"), words, [image]).inputs
    np.testing.assert_array_equal(seen[0].numpy(), read_image(image, expected)[..., 0])


def test_evaluation_and_resume_take_the_numbers_of_the_checkpoint(run, tmp_path):
    folder, _ = run
    others = dataset_of(tmp_path / "other", 100, 900)
    weights = str(folder / "model_final.pth")
    for changes in (
        {"eval_only": True, "MODEL__WEIGHTS": weights},
        {"resume": True, "SOLVER__MAX_ITER": 6},
    ):
        place = folder if "resume" in changes else tmp_path / "run"
        cfg, *_ = setup(args_of(place, others, **changes))
        assert build_intensity(cfg) == Intensity("window", *map(float, FRAMES))


def changed_checkpoint(folder: Path, out: Path, pattern: str, text: str) -> Path:
    state = torch.load(folder / "model_final.pth", weights_only=True)
    state["config"], changes = re.subn(pattern, text, state["config"])
    assert changes == 1
    out.mkdir()
    return save_checkpoint(out, "model_final.pth", state)


KEYS = r"  INTENSITY: window\n  INTENSITY_RANGE:\n  - 32978\n  - 36863\n"


@pytest.mark.parametrize("keys", ["  INTENSITY: full\n  INTENSITY_RANGE: []\n", ""])
def test_a_checkpoint_of_an_older_version_keeps_the_full_range(run, tmp_path, keys):
    folder, options = run
    path = changed_checkpoint(folder, tmp_path / "old", KEYS, keys)
    assert Predictor(path, device="cpu").preprocessing.intensity == FULL_RANGE
    cfg, *_ = setup(args_of(path.parent, options, resume=True))
    assert build_intensity(cfg) == FULL_RANGE


def test_auto_that_no_training_has_resolved_is_refused_at_inference(run, tmp_path):
    folder, options = run
    keys = "  INTENSITY: auto\n  INTENSITY_RANGE: []\n"
    path = changed_checkpoint(folder, tmp_path / "odd", KEYS, keys)
    with pytest.raises(UserError, match=r"INTENSITY is auto.*model_final\.pth does not state what"):
        Predictor(path, device="cpu")
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml"), options)
    with pytest.raises(UserError, match="must be resolved before images are read"):
        build_intensity(cfg)


def test_report_and_overfit_read_images_by_the_resolved_intensity(run, tmp_path, monkeypatch):
    folder, options = run
    seen = []

    def spy(path: str, intensity: Intensity, frame: int | None = None) -> np.ndarray:
        seen.append(intensity)
        return read_image(path, intensity, frame)

    monkeypatch.setattr(image, "read_image", spy)
    monkeypatch.setattr(mapper, "read_image", spy)
    assert ulga(["report", str(folder), "--out", str(tmp_path / "report.html")]) == 0
    words = [*tiny_options(folder, INPUT__INTENSITY="auto"), *options]
    pairs = [
        word for pair in zip(words[::2], words[1::2], strict=True) for word in ("--set", *pair)
    ]
    leaf = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")
    assert ulga(["overfit", leaf, "--iterations", "1", *pairs]) in (0, 1)
    assert len(seen) > 2 and set(seen) == {Intensity("window", *map(float, FRAMES))}


def test_a_stated_intensity_wins_over_the_checkpoint(run):
    settings = {"INPUT.INTENSITY": "percentile", "INPUT.INTENSITY_RANGE": [1, 99]}
    predictor = Predictor(run[0], device="cpu", overrides=settings)
    assert predictor.preprocessing.intensity == Intensity("percentile", 1, 99)


# --- what is not finite -----------------------------------------------------------------------


def test_pixels_that_are_not_finite_after_their_mapping_are_refused_by_name(tmp_path):
    stored = np.rint(frame(0, 100, 900)).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, RescaleSlope="1e-320", RescaleIntercept="0")
    message = r"a\.dcm cannot be decoded \(its RescaleSlope is too small to tell"
    with pytest.raises(UserError, match=message):
        read_image(str(path))
    with pytest.raises(UserError, match=message):
        chosen(path)
    (record,) = records_of(path)
    record["image_id"] = 1
    with pytest.raises(UserError, match=message):
        DetectionMapper(evaluation_augmentations(SIDE))(record)
    assert re.search(message, str(InferenceMapper(Preprocessing(SIDE))(record)))


def test_a_range_too_narrow_for_numbers_is_refused(run):
    with pytest.raises(UserError, match="pixels that are not finite"):
        Predictor(run[0], device="cpu")(np.ones((8, 8), np.float32), value_range=(0.0, 1e-320))
    with pytest.raises(ValueError, match="two finite numbers"):
        Intensity("window", -1.7e308, 1.7e308)


# --- the data check ---------------------------------------------------------------------------


def checked(folder: Path, what: str) -> tuple[dict, np.ndarray]:
    assert ulga(["data", "check", what, "--out", str(folder)]) == 0
    report = json.loads((folder / "data_report.json").read_text())
    return report, cv2.imread(str(folder / "data_sheet.png"))


def test_data_check_reports_the_used_range_and_draws_what_the_network_sees(tmp_path, capsys):
    dataset_of(tmp_path / "data")
    report, sheet = checked(tmp_path / "auto", str(tmp_path / "data" / "own.yaml"))
    text = capsys.readouterr().out
    assert "intensity of train: 4 of 4 images sampled; values 32,978 to 36,863 used of 0" in text
    assert "the network is given: window, stored values 32978 to 36863" in text
    assert report["intensity"] == {"kind": "window", "low": FRAMES[0], "high": FRAMES[1]}
    used = report["splits"]["train"]["intensity"]
    assert used["used"] == list(FRAMES) and used["declared"] == [0, 65535]
    assert used["used_share"] == round((FRAMES[1] - FRAMES[0]) / 65535, 4)
    assert report["verdict"] == "clean"
    config = config_of(tmp_path, dataset_of(tmp_path / "data"))
    flat_report, flat_sheet = checked(tmp_path / "full", str(config))
    faults = [item for item in flat_report["findings"] if "little contrast" in item["what"]]
    assert [item["split"] for item in faults] == ["own_train", "own_val"]
    assert contrast(sheet) > 5 * contrast(flat_sheet)


def test_data_check_names_a_split_whose_values_lie_outside_the_window(tmp_path, capsys):
    dataset_of(tmp_path / "data")
    for path in (tmp_path / "data" / "images" / "val").iterdir():
        write(path, frame(len(path.name), 0, 4095))
    report, _ = checked(tmp_path / "auto", str(tmp_path / "data" / "own.yaml"))
    faults = [item for item in report["findings"] if "little contrast" in item["what"]]
    assert [item["split"] for item in faults] == ["val"]
    assert faults[0]["first_places"][0].startswith("window, stored values 32978 to 36863; 4 of 4")


def config_of(folder: Path, options: list[str]) -> Path:
    """Write a config that asks for the full range."""
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml"), options)
    cfg.INPUT.INTENSITY = "full"
    (folder / "flat.yaml").write_text(cfg.dump())
    return folder / "flat.yaml"


def contrast(sheet: np.ndarray) -> float:
    """Return the contrast within the object in the sheet's first image."""
    top = sheet.shape[0] - 330  # a row of images, of 320 pixels each and a margin
    return float(sheet[top + 110 : top + 210, 120:220].astype(float).std())
