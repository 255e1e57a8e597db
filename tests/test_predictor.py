"""`Predictor`: the detections of --eval-only, lazily, from threads, with its options and frames."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from tests.conftest import CONFIGS, tiny_args
from tests.dicom_files import dicom_of, write_dicom
from tests.predict_files import (
    CLASSES,
    colored,
    pixels,
    write_checkpoint,
    write_kinds,
    write_png,
)
from tests.tiny_detectors import options
from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.inference.detections import Detections
from ulga_d2.inference.predictor import Predictor
from ulga_d2.model_zoo.publish import publish
from ulga_d2.weights.checkpoint import load_checkpoint
from ulga_d2.weights.share import SharedInfo, write_shared

EDGE = 1e-4  # detections so near the threshold may be there or not
PIXEL = 1e-3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_kinds(tmp_path_factory.mktemp("kinds") / "images")


def assert_same(found: Detections, expected: Detections, threshold: float = 0.05) -> None:
    """Compare two sets of detections, whatever their order; there must be some."""
    assert found.image_size == expected.image_size and len(expected)
    (mine, theirs) = (_rows(item, threshold) for item in (found, expected))
    assert len(mine) == len(theirs) > 0
    left = list(theirs)
    for row in mine:
        gaps = [np.abs(np.subtract(row, other)) for other in left]
        fits = [gap[0] == 0 and gap[1] <= EDGE and gap[2:].max() <= PIXEL for gap in gaps]
        assert any(fits), (row, left)
        left.pop(fits.index(True))


def _rows(item: Detections, threshold: float) -> list[tuple[float, ...]]:
    rows = zip(item.class_ids, item.scores, item.boxes, strict=True)
    return [(n, score, *box) for n, score, box in rows if score > threshold + EDGE]


def coco_of(paths: list[Path], folder: Path) -> Path:
    """Describe images as a custom dataset; return the YAML file."""
    images, annotations = [], []
    for number, path in enumerate(paths, 1):
        height, width = size_of(path)
        images.append({"id": number, "file_name": path.name, "height": height, "width": width})
        box = {"bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": 1, **box})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(content))
    split = {"images": str(paths[0].parent), "annotations": "boxes.json"}
    description = {"name": "own", "format": "coco", "root": ".", "splits": {"val": split}}
    (folder / "own.yaml").write_text(yaml.safe_dump(description))
    return folder / "own.yaml"


def size_of(path: Path) -> tuple[int, int]:
    from ulga_d2.data.image import image_size

    return image_size(str(path))


@pytest.mark.parametrize("kind", ["swin_ulga", "vit_ulga", "dat_ulga"])
def test_the_boxes_are_those_of_eval_only_whatever_the_file_and_the_batch(kind, kinds, tmp_path):
    checkpoint = write_checkpoint(tmp_path, kind)
    own = str(coco_of(kinds, tmp_path))
    keys = dict(zip(options()[::2], options()[1::2], strict=True))
    keys.pop("OUTPUT_DIR")
    changes = {key.replace(".", "__"): value for key, value in keys.items()}
    args = tiny_args(
        tmp_path / "run",
        leaf=f"brain_tumor_{kind}_nano",
        eval_only=True,
        **changes,
        MODEL__WEIGHTS=checkpoint,
        DATASETS__CUSTOM=own,
        DATASETS__TRAIN="()",
        DATASETS__TEST="('own_val',)",
    )
    main(args)
    results = json.loads((tmp_path / "run" / "inference" / "predictions.json").read_text())
    by_image = defaultdict(list)
    for item in results:
        by_image[item["image_id"]].append(item)
    for source, batch in ((tmp_path / "run", 1), (checkpoint, 8)):
        predictor = Predictor(source, device="cpu", batch_size=batch)
        for number, found in enumerate(predictor(kinds), 1):
            assert_same(found, as_detections(by_image[number], found))
    metrics = json.loads((tmp_path / "run" / "inference" / "metrics.json").read_text())
    best = Predictor(tmp_path / "run", device="cpu", score="best_f1")
    assert best.score_threshold == metrics["threshold/score"]


def as_detections(items: list[dict], like: Detections) -> Detections:
    boxes = np.array([item["bbox"] for item in items], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(
        boxes=boxes,
        scores=np.array([item["score"] for item in items], np.float32),
        class_ids=np.array([item["category_id"] for item in items]),
        categories=like.categories,
        image_size=like.image_size,
    )


def as_pillow(mode: str) -> tuple[Image.Image, str]:
    """Return a picture of a mode, and the suffix of a file that keeps its pixels."""
    color = Image.fromarray(colored(1, 48, 64))
    if mode == "I;16":
        return Image.fromarray(pixels(1, 48, 64, np.uint16)), ".png"
    if mode == "RGBA":
        color.putalpha(Image.fromarray(pixels(2, 48, 64)))
        return color, ".png"
    return (color.quantize(16) if mode == "P" else color.convert(mode)), ".png"


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
def test_a_pillow_image_gives_the_boxes_of_its_file(predictor, tmp_path, mode):
    image, suffix = as_pillow(mode)
    assert image.mode == mode
    path = tmp_path / f"a{suffix}"
    image.save(path)
    expected = predictor(path)
    assert_same(predictor(image), expected)
    with Image.open(path) as opened:
        assert_same(predictor(opened), expected)


def test_a_pillow_image_is_turned_as_its_exif_data_say(predictor, kinds):
    (path,) = (path for path in kinds if path.name == "turned6.jpg")
    with Image.open(path) as image:
        found = predictor(image)
    assert found.image_size == (72, 44)
    assert_same(found, predictor(path))


def test_arrays_and_tensors_give_the_boxes_of_their_file(predictor, tmp_path):
    # Not resized: 8 bits would be rounded there, and floating-point numbers would not.
    grey, color, deep = pixels(3, 40, 64), colored(4, 40, 64), pixels(5, 40, 64, np.uint16)
    for name, stored in (("grey", grey), ("color", color), ("deep", deep)):
        Image.fromarray(stored).save(tmp_path / f"{name}.png")
    of_file = {name: predictor(tmp_path / f"{name}.png") for name in ("grey", "color", "deep")}
    tensor = torch.from_numpy(color).permute(2, 0, 1)
    cases = [
        (grey, None, "grey"),
        (color, None, "color"),
        (color[:, ::-1][:, ::-1], None, "color"),
        (deep, None, "deep"),
        (deep.astype(">u2"), None, "deep"),
        (grey / 255.0, (0, 1), "grey"),
        ((color / 255.0).astype(np.float32), (0.0, 1.0), "color"),
        (deep.astype(np.float64) - 1000, (-1000, 64535), "deep"),
        (deep.astype(np.int32), (0, 65535), "deep"),
        (tensor, None, "color"),
        (tensor.double() / 255, (0, 1), "color"),
        (torch.from_numpy(grey), None, "grey"),
        (torch.from_numpy(grey)[None], None, "grey"),
    ]
    for item, value_range, name in cases:
        assert_same(predictor(item, value_range=value_range), of_file[name])
    assert_same(predictor(str(tmp_path / "grey.png")), of_file["grey"])


def test_a_value_range_counts_where_the_model_has_a_window(tmp_path):
    window = ("INPUT.INTENSITY", "window", "INPUT.INTENSITY_RANGE", "[0, 4095]")
    predictor = Predictor(write_checkpoint(tmp_path, "swin_ulga", *window), device="cpu")
    assert predictor.preprocessing.intensity.kind == "window"
    values = pixels(3, 48, 48, np.uint16) // 16
    assert_same(
        predictor(values.astype(np.float32)), predictor(values / 4095.0, value_range=(0, 1))
    )


def test_a_dicom_dataset_gives_the_boxes_of_its_file(predictor, tmp_path):
    window = {"WindowCenter": 1800, "WindowWidth": 2000, "RescaleSlope": 1, "RescaleIntercept": 0}
    dataset = dicom_of(pixels(5, 48, 56, np.uint16) // 16, BitsStored=12, HighBit=11, **window)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert_same(predictor(dataset), predictor(tmp_path / "a.dcm"))


def test_an_array_that_the_caller_fills_again_is_seen_as_it_was(predictor):
    images = [colored(seed, 48, 48) for seed in range(20)]

    def camera() -> Iterable[np.ndarray]:
        buffer = np.empty((48, 48, 3), np.uint8)
        for image in images:
            buffer[:] = image
            yield buffer

    for found, image in zip(predictor(camera()), images, strict=True):
        assert np.array_equal(found.read_image(), image)
        assert_same(found, predictor(image))


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (np.zeros((8, 8), bool), "type bool is no image; give"),
        (np.zeros((8, 8)), r"float64 declares no range; give value_range=\(black, white\)"),
        (np.zeros((8, 8), np.int64), "int64 declares no range; give value_range"),
        (np.zeros((8, 8, 2), np.uint8), r"shape \(8, 8, 2\).* is no image; give \(H, W\)"),
        (np.zeros((0, 8), np.uint8), r"shape \(0, 8\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "is no image"),
        (np.zeros((8, 8), np.complex64), "complex64 is no image"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "shape .* is no image"),
        ({"image": 1}, "images cannot be a dict; give a path"),
        (None, "images cannot be a NoneType; give a path"),
        (b"a.png", "images cannot be a bytes; give a path"),
        (7, "images cannot be a int; give a path"),
        (np.uint8(7), "images cannot be a uint8; give a path"),
        ("no_such.png", "no_such.png does not exist"),
        (".", r"\. is no file"),
    ],
)
def test_what_is_no_image_is_refused_with_the_fix(predictor, item, told):
    with pytest.raises(UserError, match=told):
        predictor(item)


def test_a_wrong_element_of_a_list_is_refused_when_its_turn_comes(predictor):
    results = predictor([colored(0, 48, 48), None])
    assert len(next(results))
    with pytest.raises(UserError, match="an image cannot be a NoneType; give a path"):
        next(results)


@pytest.mark.parametrize("value_range", [(1.0, 0.0), (0, float("nan")), 1.0, (0, 1, 2), "ab"])
def test_a_value_range_that_is_none_is_refused(predictor, value_range):
    with pytest.raises(UserError, match=r"value_range is .*; give \(black, white\)"):
        predictor(np.zeros((8, 8)), value_range=value_range)


def test_weights_alone_suffice(checkpoint, tmp_path, monkeypatch):
    state = load_checkpoint(checkpoint)
    info = SharedInfo(state["config"], CLASSES, 0, {}, {})
    write_shared(tmp_path / "shared.safetensors", state["model"], info)
    image = colored(1, 48, 64)
    expected = Predictor(checkpoint, device="cpu")(image)
    shared = Predictor(tmp_path / "shared.safetensors", device="cpu")
    assert shared.class_names == CLASSES
    assert_same(shared(image), expected)
    (tmp_path / "config.yaml").write_text(state["config"])
    both = Predictor(tmp_path / "config.yaml", checkpoint, device="cpu")
    assert_same(both(image), expected)
    with pytest.raises(UserError, match="names no MODEL.WEIGHTS"):
        Predictor(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="holds no trained model"):
        Predictor(tmp_path)


@pytest.fixture(scope="module")
def averaged(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder with averaged weights."""
    folder = tmp_path_factory.mktemp("run") / "averaged"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        main(tiny_args(folder, SOLVER__EMA__ENABLED=True, SOLVER__EMA__DECAY=0.5))
    return folder


def test_a_run_its_checkpoint_and_its_zoo_entry_have_the_averaged_weights(
    averaged, sample_data, tmp_path, monkeypatch
):
    state = load_checkpoint(averaged / "model_final.pth")
    some = "head.cls_score.weight"
    assert not torch.equal(state["ema"][some], state["model"][some])
    publish(averaged, tmp_path / "zoo", "tiny", data="a sample, CC0", licence="CC0")
    from ulga_d2.cli.main import main as ulga

    assert ulga(["zoo", "index", str(tmp_path / "zoo")]) == 0
    monkeypatch.setenv("ULGA_ZOO", str(tmp_path / "zoo"))
    for source in (averaged, averaged / "model_final.pth", "zoo://tiny"):
        predictor = Predictor(source, device="cpu")
        weights = predictor.loaded.model.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in state["ema"].items())
        assert predictor.class_names == ("solid", "ring", "mottled")


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (2, 4), (3, 8)])
def test_a_generator_is_consumed_lazily_and_left_early(checkpoint, workers, batch):
    predictor = Predictor(checkpoint, device="cpu", workers=workers, batch_size=batch)
    taken = 0

    def endless() -> Iterable[np.ndarray]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield colored(number % 3, 32, 32)

    before = set(threading.enumerate())
    results = predictor(endless())
    next(results)
    assert batch <= taken <= workers + 3 * batch
    for _ in range(20):
        next(results)
    assert taken <= 21 + workers + 3 * batch
    assert set(threading.enumerate()) - before
    results.close()
    assert set(threading.enumerate()) == before


def test_an_exception_of_the_callers_generator_reaches_the_caller(predictor):
    def broken() -> Iterable[np.ndarray]:
        yield colored(0, 48, 48)
        raise ZeroDivisionError("the caller's own")

    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError, match="the caller's own"):
        list(predictor(broken()))
    assert set(threading.enumerate()) == before


def test_an_empty_iterable_gives_nothing(predictor):
    assert list(predictor([])) == []


def test_threads_that_share_a_predictor_get_the_boxes_of_one(predictor, kinds):
    expected = list(predictor(kinds))

    def call(seed: int) -> list[Detections]:
        order = np.random.default_rng(seed).permutation(len(kinds))
        found = dict(zip(order, predictor([kinds[n] for n in order]), strict=True))
        return [found[number] for number in range(len(kinds))]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(call, range(12)):
            for found, one in zip(results, expected, strict=True):
                assert_same(found, one)


def test_a_score_keeps_what_reaches_it(tmp_path):
    checkpoint = write_checkpoint(tmp_path, "swin_ulga", "MODEL.RETINANET.SCORE_THRESH_TEST", "0.1")
    image = colored(1, 64, 64)
    own = Predictor(checkpoint, device="cpu")(image)
    middle = float(np.median(own.scores))
    high = Predictor(checkpoint, device="cpu", score=middle)(image)
    assert len(high) == (own.scores >= np.float32(middle)).sum() < len(own)
    low = Predictor(checkpoint, device="cpu", score=0.05)(image)
    assert len(low) > len(own) and low.scores.min() < 0.1 <= own.scores.min()
    few = Predictor(checkpoint, device="cpu", max_detections=3)(image)
    assert 0 < len(few) <= 3 < len(own) and few.scores[0] == own.scores[0]


def test_best_f1_is_the_threshold_that_the_run_has_stored(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"swin_ulga.pth has no stored threshold for best_f1"):
        Predictor(checkpoint, device="cpu", score="best_f1")
    stored = write_checkpoint(tmp_path, metrics={"threshold/score": 0.25})
    predictor = Predictor(stored, device="cpu", score="best_f1")
    assert predictor.score_threshold == 0.25
    assert predictor(colored(1, 64, 64)).scores.min() >= 0.25


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scores": 0.5}, r"unknown options \['scores'\]; there are"),
        ({"score": 1.5}, "score is 1.5; give 0 to 1"),
        ({"score": "high"}, "score is 'high'; give 0 to 1, 'best_f1' or None"),
        ({"score": True}, "score is True"),
        ({"max_detections": 0}, "max_detections is 0; give 1 or more"),
        ({"max_detections": "5"}, "max_detections is '5'"),
        ({"batch_size": 2.5}, "batch_size is 2.5; give 1 or more"),
        ({"workers": 0}, "workers is 0"),
        ({"tile": 8}, "tile is 8; give 32 or more"),
        ({"overlap": 0.95}, "overlap is 0.95; give 0 to 0.9"),
        ({"device": "gpu"}, "MODEL.DEVICE is 'gpu'; give auto, cpu, cuda, cuda:N or mps"),
        ({"device": "cuda:99"}, "MODEL.DEVICE is cuda:99, but this machine has"),
        ({"device": torch.device("cuda", 99)}, "MODEL.DEVICE is cuda:99, but this machine has"),
    ],
)
def test_an_option_that_cannot_be_is_refused(checkpoint, given, told):
    with pytest.raises(UserError, match=told):
        Predictor(checkpoint, **given)


def test_numbers_of_numpy_are_numbers(checkpoint):
    chosen = {"batch_size": np.int64(2), "score": np.float32(0.5)}
    assert Predictor(checkpoint, device="cpu", **chosen).score_threshold == 0.5


def test_half_precision_is_refused_where_it_would_be_slower(checkpoint, monkeypatch):
    monkeypatch.setattr("ulga_d2.inference.device.cpu_computes_in_bf16", lambda: False)
    with pytest.raises(UserError, match="half precision: cpu has no bfloat16 instructions"):
        Predictor(checkpoint, device="cpu", half_precision=True)
    monkeypatch.setattr("ulga_d2.inference.device.cpu_computes_in_bf16", lambda: True)
    found = Predictor(checkpoint, device="cpu", half_precision=True)(colored(1, 64, 64))
    assert found.boxes.dtype == found.scores.dtype == np.float32 and len(found)


def frames_of(predictor: Predictor, path: Path) -> dict[str, Detections]:
    return {found.source.removeprefix(str(path)): found for found in predictor([path])}


def test_a_dicom_file_of_several_frames_gives_a_result_a_frame(predictor, tmp_path):
    frames = [pixels(seed, 40, 56, np.uint16) for seed in range(3)]
    dataset = dicom_of(frames[0], NumberOfFrames=3, PatientName="CANARY")
    dataset.PixelData = b"".join(frame.tobytes() for frame in frames)
    dataset.save_as(tmp_path / "many.dcm", enforce_file_format=True)
    found = frames_of(predictor, tmp_path / "many.dcm")
    assert list(found) == ["#0000", "#0001", "#0002"]
    for one, frame in zip(found.values(), frames, strict=True):
        assert_same(one, predictor(write_dicom(tmp_path / "one.dcm", frame)))
        assert np.array_equal(one.read_image(), predictor(tmp_path / "one.dcm").read_image())
    in_memory = list(predictor([dataset]))
    assert [item.source for item in in_memory] == [f"FileDataset{name}" for name in found]
    for one, other in zip(in_memory, found.values(), strict=True):
        assert_same(one, other)
    for item in (tmp_path / "many.dcm", dataset):
        with pytest.raises(UserError, match="has several frames; put it into a list") as refused:
            predictor(item)
        assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize("kind", ["grey", "deep", "color"])
def test_a_tiff_of_several_pages_gives_a_result_a_page_even_of_another_size(
    predictor, tmp_path, kind
):
    sizes = [(40, 56), (64, 48), (40, 56)]
    make = {"grey": pixels, "deep": lambda *at: pixels(*at, np.uint16), "color": colored}[kind]
    pages = [Image.fromarray(make(seed, *size)) for seed, size in enumerate(sizes)]
    pages[0].save(tmp_path / "many.tif", save_all=True, append_images=pages[1:])
    found = frames_of(predictor, tmp_path / "many.tif")
    assert list(found) == ["#0000", "#0001", "#0002"]
    for one, page in zip(found.values(), pages, strict=True):
        page.save(tmp_path / "one.png")
        assert_same(one, predictor(tmp_path / "one.png"))


def test_a_file_none_of_whose_frames_can_be_decoded_gives_one_fault(predictor, tmp_path):
    dataset = dicom_of(pixels(0, 40, 56), NumberOfFrames=500)
    dataset.PixelData = encapsulate([b"no frame"] * 500)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.save_as(tmp_path / "many.dcm", enforce_file_format=True)
    (found,) = predictor.stream([tmp_path / "many.dcm"])
    assert found.detections is None
    assert "its pixel data are damaged, or need another codec" in found.fault


def write_video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for seed in range(frames):
        writer.write(colored(seed, 48, 64))
    writer.release()
    return path


def test_a_truncated_video_gives_its_frames_and_then_the_fault(predictor, tmp_path):
    path = write_video(tmp_path / "film.avi", 20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *frames, last = predictor.stream([path])
    assert 5 < len(frames) < 15 and all(item.detections is not None for item in frames)
    assert last.detections is None and f"is truncated: {len(frames)} of 20 frames" in last.fault


def test_a_video_gives_a_result_a_frame_or_every_nth(predictor, tmp_path):
    path = write_video(tmp_path / "film.avi", 7)
    video, shown = cv2.VideoCapture(str(path)), []
    for _ in range(7):
        shown.append(cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB))
    video.release()
    found = frames_of(predictor, path)
    assert list(found) == [f"#{number:04d}" for number in range(7)]
    for one, image in zip(found.values(), shown, strict=True):
        assert_same(one, predictor(image))
    some = [prediction.source for prediction in predictor.stream([path], every=3)]
    assert some == [f"{path}#{number:04d}" for number in (0, 3, 6)]


@pytest.mark.parametrize(("suffix", "name"), [(".gif", "GIF"), (".webp", "WEBP"), (".png", "PNG")])
def test_an_animation_is_refused_by_its_name(predictor, tmp_path, suffix, name):
    pages = [Image.fromarray(colored(seed, 40, 40)) for seed in range(3)]
    path = tmp_path / f"moving{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=f"moving{suffix} is an animated {name}, which is not read"):
        predictor(path)


def test_the_reading_of_a_stream_reports_faults_in_their_place(predictor, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    paths = [write_png(tmp_path / "a.png"), tmp_path / "text.png", write_png(tmp_path / "b.png")]
    found = list(predictor.stream(map(str, paths), with_images=True))
    assert [item.number for item in found] == [0, 1, 2]
    assert [item.detections is None for item in found] == [False, True, False]
    assert found[0].image.shape == (48, 64, 3) and str(paths[1]) in found[1].fault


def test_other_weights_give_other_boxes(checkpoint, tmp_path):
    """The comparison of this file can fail."""
    other = write_checkpoint(tmp_path, seed=1)
    image = colored(1, 48, 64)
    with pytest.raises(AssertionError):
        assert_same(Predictor(other)(image), Predictor(checkpoint)(image))


def test_the_rest_of_the_square_is_the_mean_pixel_and_not_black(predictor):
    image = colored(5, 40, 64)
    mean = np.array(predictor.loaded.cfg.MODEL.PIXEL_MEAN, np.float32)
    found = np.sort(predictor(image).scores)[::-1][:20]

    def gap(rest: np.ndarray) -> float:
        square = np.concatenate([image.astype(np.float32), np.broadcast_to(rest, (24, 64, 3))])
        scores = predictor(square, value_range=(0, 255)).scores
        return float(np.abs(scores[None] - found[:, None]).min(axis=1).max())

    assert len(found) and gap(mean) < 1e-4 < gap(0 * mean)


def test_category_ids_come_from_the_checkpoint_with_a_config_or_without(tmp_path):
    ids = [7, 3, 11][: len(CLASSES)]
    path = write_checkpoint(tmp_path, "swin_ulga", "DATASETS.CATEGORY_IDS", str(ids))
    state = load_checkpoint(path)
    state["config"] = re.sub(r"CATEGORY_IDS:(\n  - \d+)+", f"CATEGORY_IDS: {ids}", state["config"])
    del state["sha256"]
    path = save_checkpoint(tmp_path, "ids.pth", state)
    leaf, words = CONFIGS / "brain_tumor_swin_ulga_nano.yaml", options()
    overrides = dict(zip(words[::2], words[1::2], strict=True))
    for one in (Predictor(path), Predictor(leaf, path, overrides=overrides)):
        assert [category.id for category in one.categories] == ids


def test_a_runs_config_stands_for_the_run_and_not_for_what_it_started_from(
    averaged, sample_data, tmp_path
):
    config = yaml.safe_load((averaged / "config.yaml").read_text())
    config["MODEL"]["WEIGHTS"] = str(tmp_path / "start.pth")  # which is not even there
    run = tmp_path / "run"
    shutil.copytree(averaged, run)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    expected = Predictor(averaged).loaded.sha256
    assert Predictor(run / "config.yaml").loaded.sha256 == expected
    # A run folder that was moved: its inference/config.yaml names the old path.
    assert Predictor(run / "inference" / "config.yaml").loaded.sha256 == expected


def test_a_config_of_other_classes_is_refused(averaged, checkpoint, tmp_path):
    config = yaml.safe_load((averaged / "config.yaml").read_text())
    config["DATASETS"]["CLASS_NAMES"] = ["cat", "dog"]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="belong to different runs: their classes"):
        Predictor(tmp_path / "other.yaml", checkpoint)


def test_merged_views_keep_no_detection_below_the_threshold(checkpoint):
    predictor = Predictor(checkpoint, tta=True, max_detections=2000)
    plain = Predictor(checkpoint, max_detections=2000)
    image = colored(3, 64, 64)
    found = predictor(image)
    assert len(found) and found.scores.min() >= predictor.score_threshold
    assert predictor.score_threshold == plain.score_threshold
    lower = Predictor(checkpoint, tta=True, max_detections=2000, score=0.001)(image)
    assert len(lower) > len(found) and lower.scores.min() < predictor.score_threshold


def test_options_of_tiles_without_tiles_are_refused(checkpoint):
    for option in ({"overlap": 0.5}, {"tile_whole": True}):
        with pytest.raises(UserError, match="belong to tiles; give tile, too"):
            Predictor(checkpoint, **option)


def test_loading_leaves_the_callers_random_numbers_alone(checkpoint):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Predictor(checkpoint)
    assert torch.equal(torch.rand(3), expected)
