"""The evaluator on detectron2's outputs, on one process and two, and the picture of its results."""

from __future__ import annotations

import json
import logging
import os
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.structures import Boxes, BoxMode, Instances

from ulga_d2.drawing.choice import choose_images
from ulga_d2.errors import UserError
from ulga_d2.evaluation.detection import DetectionEvaluator
from ulga_d2.evaluation.picture import draw_predictions
from ulga_d2.evaluation.summary import all_metrics

CLASSES = ["glioma", "meningioma"]
SIDE = 96
FILES = ["metrics.json", "predictions.json", "predictions_meta.json"]
HEADER = 74  # pixels above the grid: three lines of words and two margins


def make_records(num_images=12):
    """A third glioma, a third meningioma, a third healthy; whole numbers, no object below 32 px."""
    return [
        {
            "file_name": f"slice_{index}.png",
            "image_id": index,
            "height": SIDE,
            "width": SIDE,
            "annotations": [
                {
                    "bbox": [10.0 + index, 20.0, 60.0 + index, 70.0],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": index % 3,
                    "iscrowd": 0,
                }
            ]
            * (index % 3 < 2),
        }
        for index in range(num_images)
    ]


def detect(record):
    """Detections that are a function of the image alone, some of them right."""
    rng = np.random.default_rng(record["image_id"])
    boxes = rng.uniform(0, SIDE, (6, 2, 2)).astype(np.float32)
    boxes.sort(axis=1)
    boxes = boxes.reshape(6, 4)
    if record["annotations"]:
        boxes[:3] = record["annotations"][0]["bbox"] + rng.uniform(-6, 6, (3, 4))
    instances = Instances((SIDE, SIDE))
    instances.pred_boxes = Boxes(torch.from_numpy(boxes))
    instances.scores = torch.from_numpy(rng.uniform(0.05, 1, 6).astype(np.float32))
    instances.pred_classes = torch.from_numpy(rng.integers(0, len(CLASSES), 6))
    return {"instances": instances}


def model(records):
    return [detect(record) for record in records]


@pytest.fixture
def dataset():
    """For detectron2's evaluator, which reads its ground truth from the catalog."""
    DatasetCatalog.register("evaluation_test", make_records)
    MetadataCatalog.get("evaluation_test").set(thing_classes=CLASSES)
    yield "evaluation_test"
    DatasetCatalog.remove("evaluation_test")
    MetadataCatalog.remove("evaluation_test")


def evaluate(folder, batches):
    evaluator = DetectionEvaluator("test", make_records(), CLASSES, str(folder))
    return evaluator, inference_on_dataset(model, batches, evaluator)


def test_evaluator_agrees_with_detectron2s_own(dataset, tmp_path):
    batches = [[record] for record in make_records()]
    _, ours = evaluate(tmp_path / "ours", batches)
    peer = COCOEvaluator(dataset, output_dir=str(tmp_path / "peer"), use_fast_impl=False)
    theirs = inference_on_dataset(model, batches, peer)["bbox"]
    defined = {name: value for name, value in theirs.items() if np.isfinite(value)}
    assert 0 < defined["AP"] < 100
    assert {name: ours["bbox"][name] for name in defined} == pytest.approx(defined, rel=1e-12)


def test_files_hold_every_figure_and_the_predictions_that_made_them(tmp_path, capsys):
    evaluator, results = evaluate(tmp_path / "inference", [make_records()])
    assert all(isinstance(v, float) for group in results.values() for v in group.values())
    assert "APs" not in results["bbox"]
    metrics = json.loads((tmp_path / "inference/metrics.json").read_text())
    assert metrics["bbox/APs"] is None
    assert metrics["reasons"]["bbox/APs"] == "no ground-truth object smaller than 32x32 px"
    predictions = json.loads((tmp_path / "inference/predictions.json").read_text())
    from_zero = [item | {"category_id": item["category_id"] - 1} for item in predictions]
    assert from_zero == evaluator.predictions
    again = all_metrics(evaluator.records, from_zero, evaluator.class_names, froc_hit="iou")
    assert metrics == {**again.values, "max_detections": 100, "reasons": again.reasons}
    assert sorted(os.listdir(tmp_path / "inference")) == FILES
    assert capsys.readouterr().out == "", "pycocotools must not print"


def test_console_shows_the_figures_and_says_why_some_are_missing(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "ulga_d2"):
        _, results = evaluate(tmp_path, [make_records()])
    assert f"{results['agnostic']['AP50']:.2f}" in caplog.text
    assert f"{results['bbox']['AP-meningioma']:.2f}" in caplog.text
    assert "undefined: no ground-truth object smaller than 32x32 px" in caplog.text
    assert f"{results['froc']['mean']:.2f}" in caplog.text
    assert f"{results['errors']['background']:.2f}" in caplog.text
    assert "nan" not in caplog.text and "-1" not in caplog.text


def test_figures_do_not_depend_on_order_or_on_images_that_come_twice(tmp_path):
    records = make_records()
    _, expected = evaluate(tmp_path / "a", [records])
    shuffled = random.Random(0).sample(records, len(records))
    _, results = evaluate(tmp_path / "b", [shuffled[:5], shuffled[3:], shuffled[:2]])
    assert results == expected
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def run_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    records = make_records()
    share = records[:7] if rank == 0 else records[5:]
    _, results = evaluate(Path(folder) / "ranks", [share])
    (Path(folder) / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_figures_of_one(tmp_path):
    torch.multiprocessing.spawn(run_rank, (str(tmp_path),), nprocs=2)
    _, expected = evaluate(tmp_path / "one", [make_records()])
    assert json.loads((tmp_path / "0.json").read_text()) == expected
    assert json.loads((tmp_path / "1.json").read_text()) == {}
    for name in FILES:
        assert (tmp_path / "ranks" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_an_incomplete_or_foreign_set_of_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="images not shown to the model: 2"):
        evaluate(tmp_path, [make_records()[2:]])
    with pytest.raises(UserError, match="images that are not in the set: 1"):
        evaluate(tmp_path, [make_records(13)])
    assert not os.listdir(tmp_path)


def test_repeated_image_ids_are_refused_before_inference(tmp_path):
    repeated = make_records(2) + make_records(1)
    with pytest.raises(UserError, match="image_id 0 stands in 2 records"):
        DetectionEvaluator("repeated", repeated, CLASSES, str(tmp_path))


def grey_image(file_name):
    return np.full((SIDE, SIDE, 3), 90, np.float32)


def draw(path, predictions, **options):
    draw_predictions(
        make_records(), predictions, CLASSES, str(path), read_image=grey_image, **options
    )
    return cv2.imread(str(path))


def test_picture_shows_truth_left_and_only_confident_detections_right(tmp_path):
    box = {"category_id": 0, "bbox": [10, 10, 60, 60]}
    faint = [box | {"image_id": index, "score": 0.2} for index in range(12)]
    plain = draw(tmp_path / "plain.png", [])
    assert np.array_equal(draw(tmp_path / "faint.png", faint), plain)
    sure = draw(tmp_path / "sure.png", [found | {"score": 0.9} for found in faint])
    rows, columns = np.any(sure != plain, axis=2)[HEADER:].nonzero()
    assert len(set(rows // (plain.shape[0] // 4))) == 4, "detections in every row of the grid"
    assert (columns % (plain.shape[1] // 3) > 320).all(), "the truth's half stays as it is"


def test_picture_survives_crowded_images_long_names_and_odd_shapes(tmp_path):
    name = "a very long name of a class " * 5
    record = {"file_name": name, "image_id": 1, "height": 5, "width": 200}
    record["annotations"] = [{"bbox": [0, 0, 200, 5], "bbox_mode": 0, "category_id": 0}] * 40
    found = [{"image_id": 1, "category_id": 0, "bbox": [0, 0, 200, 5], "score": 1.0}] * 40
    path = str(tmp_path / "odd.png")
    draw_predictions(
        [record], found, [name], path, read_image=lambda _: np.zeros((5, 200, 3), np.uint8)
    )
    assert cv2.imread(path) is not None


def test_images_are_chosen_from_every_class_and_the_healthy_spread_over_the_set():
    chosen = choose_images(make_records(120), 6)
    assert [index % 3 for index in chosen] == [0, 0, 1, 1, 2, 2]
    assert [index // 60 for index in chosen] == [0, 1, 0, 1, 0, 1]
    assert choose_images(make_records(120), 6) == chosen
    assert len(choose_images(make_records(4), 12)) == 4
    assert len(choose_images(make_records(120), 2)) == 2
