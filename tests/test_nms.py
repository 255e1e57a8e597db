"""Soft-NMS, class-agnostic NMS and thresholds by class, in evaluation, Predictor and predict."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_args
from detectron2.structures import Boxes, Instances
from predict_files import CLASSES, colored, write_checkpoint, write_png
from torch import nn

from ulga_d2 import Predictor
from ulga_d2.cli.main import main as ulga
from ulga_d2.engine.launch import main, read_config
from ulga_d2.errors import UserError
from ulga_d2.inference.detector import Detector
from ulga_d2.inference.model import box_settings
from ulga_d2.inference.nms import Suppression, build_suppression
from ulga_d2.inference.views import View

METHODS = ("hard", "linear", "gaussian")
KINDS = list(itertools.product(METHODS, [False, True]))


def iou_of(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def reference(
    boxes: list[list[float]],
    scores: list[float],
    classes: list[int],
    method: str,
    is_agnostic: bool,
    threshold: float,
) -> list[tuple]:
    """Suppress one box after the other; return class, score and box of what is kept."""
    left = [[score, number] for number, score in enumerate(scores)]
    kept = []
    while left:
        best = max(left)
        left.remove(best)
        if best[0] < threshold:
            continue
        kept.append((classes[best[1]], best[0], boxes[best[1]]))
        for other in left:
            if classes[other[1]] != classes[best[1]] and not is_agnostic:
                continue
            iou = iou_of(boxes[other[1]], boxes[best[1]])
            if method == "gaussian":
                other[0] *= math.exp(-(iou**2) / 0.5)
            elif iou > 0.5:
                other[0] *= 0 if method == "hard" else 1 - iou
    return kept


def random_instances(seed: int, count: int = 120) -> Instances:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 60, (count, 2))
    boxes = np.hstack([corners, corners + generator.uniform(8, 40, (count, 2))])
    instances = Instances((100, 100))
    instances.pred_boxes = Boxes(torch.tensor(boxes).float())
    instances.scores = torch.tensor(generator.uniform(0.05, 1, count)).float()
    instances.pred_classes = torch.tensor(generator.integers(0, 3, count))
    return instances


def parts_of(instances: Instances) -> tuple[list, list, list]:
    tensors = (instances.pred_boxes.tensor, instances.scores, instances.pred_classes)
    return tuple(tensor.tolist() for tensor in tensors)


def assert_same(found: tuple[list, list, list], expected: list[tuple]) -> None:
    """Compare boxes, scores and classes with the reference's detections, best first."""
    classes, scores, boxes = map(list, zip(*expected, strict=True))
    assert found[2] == classes
    assert np.allclose(found[1], scores, rtol=1e-5)
    assert np.allclose(found[0], boxes, atol=1e-3)


def suppression_of(method: str, is_agnostic: bool, limit: int = 1000) -> Suppression:
    return Suppression(method, 0.5, 0.5, is_agnostic, limit)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("method", "is_agnostic"), [kind for kind in KINDS if kind != KINDS[0]])
def test_suppression_equals_a_brute_force_reference(method, is_agnostic, seed):
    instances = random_instances(seed)
    before = instances.scores.clone()
    expected = reference(*parts_of(instances), method, is_agnostic, 0.05)
    assert 5 < len(expected) < len(instances)
    assert_same(parts_of(suppression_of(method, is_agnostic)(instances, 0.05)), expected)
    fewer = suppression_of(method, is_agnostic, 4)(instances, 0.05)
    assert_same(parts_of(fewer), expected[:4])
    assert torch.equal(instances.scores, before)


@pytest.mark.parametrize(("method", "is_agnostic"), KINDS[1:])
def test_nothing_in_gives_nothing_out(method, is_agnostic):
    assert len(suppression_of(method, is_agnostic)(random_instances(0, 0), 0.05)) == 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


def candidates_of(predictor: Predictor, image: np.ndarray) -> tuple[list, list, list]:
    """Return all boxes of the model before any NMS."""
    model = predictor.loaded.model
    model.test_nms_thresh, model.max_detections_per_image = 2.0, 10**6
    views = predictor.preprocessing.views(image)
    item = {"image": views[0].image, "height": image.shape[0], "width": image.shape[1]}
    with torch.inference_mode():
        return parts_of(model([item])[0]["instances"])


@pytest.mark.parametrize(("method", "is_agnostic"), [kind for kind in KINDS if kind != KINDS[0]])
def test_a_predictor_suppresses_all_candidates_of_the_model(checkpoint, method, is_agnostic):
    image = colored(3, 64, 64)
    predictor = Predictor(checkpoint, device="cpu", nms=method, class_agnostic=is_agnostic)
    found = predictor(image)
    candidates = candidates_of(Predictor(checkpoint, device="cpu"), image)
    expected = reference(*candidates, method, is_agnostic, predictor.score_threshold)
    assert len(candidates[0]) > len(found) > 1
    boxes, scores, classes = (v.tolist() for v in (found.boxes, found.scores, found.class_ids))
    assert_same((boxes, scores, classes), expected[: predictor.max_detections])


def test_the_default_is_the_models_own_nms_bit_for_bit(checkpoint):
    image = colored(3, 64, 64)
    plain = Predictor(checkpoint, device="cpu")
    same = Predictor(checkpoint, device="cpu", nms="hard", class_agnostic=False)
    assert build_suppression(plain.loaded.cfg) is None
    assert plain.loaded.model.test_nms_thresh == plain.loaded.cfg.MODEL.RETINANET.NMS_THRESH_TEST
    assert not any("NMS." in key or "CLASS_SCORE" in key for key in box_settings(plain.loaded.cfg))
    soft = Predictor(checkpoint, device="cpu", nms="linear")
    assert box_settings(soft.loaded.cfg)["TEST.NMS.METHOD"] == "linear"
    one, other = plain(image), same(image)
    assert len(one) and np.array_equal(one.boxes, other.boxes)
    assert np.array_equal(one.scores, other.scores)


def test_class_thresholds_leave_out_what_is_below_that_of_its_class(checkpoint):
    image = colored(3, 64, 64)
    plain = Predictor(checkpoint, device="cpu")(image)
    least = [1.0 if name == CLASSES[0] else 0.0 for name in CLASSES]
    least[-1] = float(np.median(plain.scores[plain.class_ids == len(CLASSES) - 1]))
    found = Predictor(checkpoint, device="cpu", class_scores=least)(image)
    kept = plain.scores >= np.array(least, np.float32)[plain.class_ids]
    assert 0 < kept.sum() < len(plain)
    assert np.array_equal(found.boxes, plain.boxes[kept])
    assert np.array_equal(found.scores, plain.scores[kept])


SOFT = {
    "MODEL__RETINANET__SCORE_THRESH_TEST": 0.001,
    "TEST__NMS__METHOD": "gaussian",
    "TEST__NMS__CLASS_AGNOSTIC": True,
    "TEST__CLASS_SCORE_THRESH": "[0, 0.009, 1]",
}


def test_evaluation_predictor_and_command_give_the_same_detections(sample_data, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    main(tiny_args(run, SOLVER__MAX_ITER=1, **SOFT))
    evaluated = json.loads((run / "inference" / "predictions.json").read_text())
    meta = json.loads((run / "inference" / "predictions_meta.json").read_text())
    assert meta["info"]["settings"]["TEST.NMS.METHOD"] == "gaussian"
    images = sorted((sample_data / "brain_tumor" / "images" / "val").glob("*.png"))
    assert images
    predictor = Predictor(run, device="cpu")
    scores = sorted(score for found in predictor(images) for score in found.scores.tolist())
    assert len(scores) > 10
    assert np.allclose(scores, sorted(item["score"] for item in evaluated), rtol=1e-4)
    ulga(["predict", str(run), *map(str, images), "--out", str(out), "--save", "json"])
    written = json.loads((out / "predictions.json").read_text())
    assert np.allclose(scores, sorted(item["score"] for item in written), atol=1e-6)


def test_the_command_takes_the_options(checkpoint, tmp_path):
    image = write_png(tmp_path / "a.png", 3, 64, 64)
    options = [
        "--nms",
        "linear",
        "--class-agnostic",
        "--class-scores",
        ",".join("0" for _ in CLASSES),
    ]
    out = tmp_path / "out"
    code = ulga(
        ["predict", str(checkpoint), str(image), "--out", str(out), "--save", "json", *options]
    )
    assert code == 0
    written = json.loads((out / "predictions.json").read_text())
    predictor = Predictor(checkpoint, device="cpu", nms="linear", class_agnostic=True)
    found = predictor(image)
    assert len(written) == len(found) > 1
    assert np.allclose([item["score"] for item in written], found.scores, rtol=1e-4)


class TwoClasses(nn.Module):
    """Finds one object as two classes, on every view."""

    device = torch.device("cpu")
    test_topk_candidates, head_in_features = 100, ("p3",)

    def forward(self, inputs: list[dict]) -> list[dict]:
        return [{"instances": self.find(**item)} for item in inputs]

    def find(self, image: torch.Tensor, height: int, width: int) -> Instances:
        instances = Instances((height, width))
        instances.pred_boxes = Boxes(torch.tensor([[10.0, 10, 20, 20], [10.0, 10, 20, 21]]))
        instances.scores = torch.tensor([0.9, 0.8])
        instances.pred_classes = torch.tensor([0, 1])
        return instances


@pytest.mark.parametrize(("suppression", "count"), [(None, 2), (suppression_of("hard", True), 1)])
def test_class_agnostic_nms_holds_for_merged_views(suppression, count):
    detector = Detector(TwoClasses(), nms_threshold=0.5, max_detections=10, suppression=suppression)
    views = [View(torch.zeros(3, 30, 30), (0, 0, 30, 30)) for _ in range(2)]
    (output,) = detector([{"views": views, "height": 30, "width": 30}])
    assert len(output["instances"]) == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"TEST__NMS__METHOD": "soft"}, "give hard or linear or gaussian"),
        ({"TEST__NMS__SIGMA": 0.0}, "more than 0"),
        ({"TEST__CLASS_SCORE_THRESH": "[2]"}, "numbers from 0 to 1"),
        ({"TEST__NMS__METHOD": "linear", "INPUT__TILE__SIDE": 48}, "one view of each image"),
        ({"TEST__NMS__METHOD": "linear", "TEST__AUG__ENABLED": True}, "one view of each image"),
        (
            {"leaf": "cod10k_mask_swin_ulga_nano", "TEST__NMS__CLASS_AGNOSTIC": True},
            "RetinaNet alone",
        ),
    ],
)
def test_keys_that_do_not_fit_are_refused_before_data_are_read(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_config(tiny_args(tmp_path, **changes))


def test_a_wrong_number_of_class_thresholds_names_the_classes(checkpoint, sample_data, tmp_path):
    with pytest.raises(UserError, match="1 numbers, and there are .* in this order"):
        Predictor(checkpoint, device="cpu", class_scores=[0.5])
    with pytest.raises(UserError, match="2 numbers, and there are 3 classes"):
        main(tiny_args(tmp_path, TEST__CLASS_SCORE_THRESH="[0.5, 0.5]"))
