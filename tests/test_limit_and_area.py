"""More than 100 objects an image, and the areas that annotations state: as pycocotools does."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from coco_files import (
    CATEGORIES,
    HEIGHT,
    WIDTH,
    coco_dataset,
    near_misses,
    plain_pycocotools,
    write_dataset,
)
from detectron2.structures import Boxes, Instances
from test_evaluation import make_records
from test_report import a_run, source_of

from ulga_d2.cli.main import main as ulga
from ulga_d2.data.check.doctor import Settings, check_splits
from ulga_d2.data.convert import convert
from ulga_d2.data.custom import load_custom
from ulga_d2.data.intensity import FULL_RANGE
from ulga_d2.evaluation.average_precision import (
    DetectionMetrics,
    detection_metrics,
    headline,
    shown_name,
)
from ulga_d2.evaluation.boxes import limit_warning
from ulga_d2.evaluation.curves import calibration
from ulga_d2.evaluation.detection import DetectionEvaluator
from ulga_d2.evaluation.errors import error_split
from ulga_d2.evaluation.estimate import estimate, estimate_table
from ulga_d2.evaluation.matching import match
from ulga_d2.evaluation.report.hits import match_images
from ulga_d2.evaluation.report.page import render_report
from ulga_d2.evaluation.resample import Draws, Scorer
from ulga_d2.evaluation.runs import Run, csv_table, headline_names, markdown_table
from ulga_d2.evaluation.saved import read_results
from ulga_d2.evaluation.summary import all_metrics
from ulga_d2.model_zoo.listing import _table

NAMES, IDS = tuple(CATEGORIES.values()), tuple(CATEGORIES)


def crowded(num_objects: int = 195) -> tuple[list[dict], list[dict]]:
    """Return an image with many objects of one class in a grid, and a perfect detection of each."""
    boxes = [[20 * (n % 16), 18 * (n // 16), 12, 11] for n in range(num_objects)]
    annotations = [{"bbox": b, "bbox_mode": 1, "category_id": 0, "iscrowd": 0} for b in boxes]
    record = {"image_id": 1, "file_name": "a.png", "width": 320, "height": 240}
    found = [
        {"image_id": 1, "category_id": 0, "bbox": b, "score": 1 - n / 1000}
        for n, b in enumerate(boxes)
    ]
    return [{**record, "annotations": annotations}], found


# the limit of detections


def test_perfect_boxes_on_an_image_with_195_objects_score_100_with_a_limit_of_300():
    records, found = crowded()
    values = all_metrics(records, found, ["cell"], froc_hit="iou", max_detections=300).values
    for name in ("bbox/AP", "bbox/AR300", "agnostic/AP", "agnostic/AR300", "threshold/recall"):
        assert values[name] == pytest.approx(100)
    assert values["errors/num_missed"] == 0 and "bbox/AR100" not in values
    at_100 = all_metrics(records, found, ["cell"], froc_hit="iou").values
    assert at_100["bbox/AR100"] == pytest.approx(100 * 100 / 195)
    assert at_100["errors/num_missed"] == 95


def test_too_low_a_limit_is_reported_with_the_count_and_the_largest():
    records, _ = crowded()
    assert limit_warning(records, 195) is None
    warning = limit_warning([*records, *make_records(2)], 194)
    assert "more than 194 objects: 1 (the largest has 195)" in warning
    records[0]["annotations"][0]["iscrowd"] = 1  # no object
    assert limit_warning(records, 194) is None


def test_the_evaluator_warns_of_too_low_a_limit(tmp_path, caplog):
    records, _ = crowded()
    for limit, warns in ((300, False), (100, True)):
        evaluator = DetectionEvaluator(
            "cells", records, ["cell"], str(tmp_path), max_detections=limit
        )
        nothing = Instances((240, 320), pred_boxes=Boxes(torch.zeros(0, 4)))
        nothing.scores, nothing.pred_classes = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        evaluator.process(records, [{"instances": nothing}])
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ulga_d2"):
            evaluator.evaluate()
        assert ("more than 100 objects: 1 (the largest has 195)" in caplog.text) == warns
        assert json.loads((tmp_path / "metrics.json").read_text())["max_detections"] == limit


@pytest.mark.parametrize("limit", [1, 5, 10, 40, 300])
def test_every_matcher_follows_the_limit(tmp_path, limit):
    content = coco_dataset(4, images=3, objects=120)
    (tmp_path / "found.json").write_text(json.dumps(near_misses(content)))
    own = write_dataset(tmp_path, {"val": content})
    records = load_custom(own, "val").records
    found = read_results(tmp_path / "found.json", records, NAMES, IDS)
    values = detection_metrics(records, found, NAMES, max_detections=limit).values
    oracle = plain_pycocotools(tmp_path / "val.json", tmp_path / "found.json", limit)
    assert {name: values[name] for name in oracle} == pytest.approx(oracle, abs=1e-9)
    scorer = Scorer.of(
        records, found, NAMES, per_class=True, sizes=True, agnostic=True, max_detections=limit
    )
    scored = dict(zip(scorer.names, scorer.score(), strict=True))
    assert scored == pytest.approx({name: values[name] for name in scorer.names}, abs=1e-9)
    ap50 = error_split(records, found, 3, max_detections=limit).ap50
    assert ap50 == pytest.approx(values["bbox/AP50"], abs=1e-9)
    matches = match(records, found, 3, max_detections=limit)
    shown = [one.hit for image in match_images(records, found, limit) for one in image.detections]
    assert shown.count(True) == sum(one.hit[0].sum() for one in matches)
    assert len(shown) == sum(len(one.scores) for one in matches) <= 3 * 3 * limit


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("bbox/AP", "bbox/AP@300"),
        ("AP50", "AP50@300"),
        ("bbox/ARs", "bbox/ARs@300"),
        ("bbox/AP-a/b", "bbox/AP-a/b@300"),
        ("bbox/AR300", "bbox/AR300"),
        ("bbox/AR10", "bbox/AR10"),
        ("froc/mean", "froc/mean"),
        ("errors/missed", "errors/missed"),
    ],
)
def test_printed_names_state_a_limit_that_is_not_cocos(name, shown):
    assert shown_name(name, 300) == shown
    assert shown_name(name, 100) == name


def test_evaluate_and_compare_take_the_limit_and_print_it(tmp_path, capsys, caplog):
    content = coco_dataset(4, images=3, objects=120)
    own = write_dataset(tmp_path, {"val": content})
    path = tmp_path / "found.json"
    path.write_text(json.dumps(near_misses(content)))
    words = ["--dataset", f"{own}:val", "--bootstrap", "100", "--json", str(tmp_path / "out.json")]
    for limit in ("300", None):
        option = ["--max-detections", limit] if limit else []
        expected = plain_pycocotools(tmp_path / "val.json", path, int(limit or 100))["bbox/AP"]
        for command in ("evaluate", "compare"):
            sides = [str(path)]
            if command == "compare":
                sides += ["--", str(path), "--permutations", "100"]
            caplog.clear()
            with caplog.at_level(logging.WARNING, "ulga_d2"):
                assert ulga([command, *sides, *words, *option]) == 0
            ap = json.loads((tmp_path / "out.json").read_text())["figures"]["bbox/AP"]
            assert ap["value" if command == "evaluate" else "a"] == pytest.approx(
                expected, abs=1e-9
            )
            assert ("AP@300" in capsys.readouterr().out) == bool(limit)
            assert ("more than 100 objects: 3" in caplog.text) == (not limit)
    assert ulga(["evaluate", str(path), *words, "--max-detections", "0"]) == 2
    assert "--max-detections is 0; give 1 or more" in capsys.readouterr().err


def test_the_report_shows_the_limit_and_all_detections_under_it():
    records, found = crowded()
    found_at = estimate(
        records,
        found,
        ["cell", "none"],
        Draws(np.arange(1), 0),
        froc_hit="iou",
        watch=lambda rows, _: rows,
        max_detections=300,
    )
    assert "bbox/AP@300" in estimate_table(found_at)
    page = render_report(a_run(), source_of(records, found, found_at), {})
    assert "AR@300" in page and "AR@100" not in page
    assert '"objects":195' in page and '"hits":[195,' in page


def test_runs_of_two_limits_are_kept_apart_in_tables(tmp_path):
    values = {"bbox/AP": 10.0, "bbox/AP50": 20.0, "bbox/AP75": 5.0, "agnostic/AP": 12.0}
    runs = [
        Run(tmp_path / name, {"SEED": 0}, (), values | {f"bbox/AR{limit}": 30.0}, {}, limit)
        for name, limit in (("few", 100), ("many", 300))
    ]
    names = headline_names(runs)
    assert {"bbox/AR100", "bbox/AR300"} <= {*names}
    table = markdown_table({"few": runs[:1], "many": runs[1:]}, names)
    assert "max. detections" in table and "@300" not in table
    assert "bbox/AP@300" in markdown_table({"many": runs[1:]}, ["bbox/AP"])
    lines = csv_table({"few": runs[:1], "many": runs[1:]}, names).splitlines()
    assert [line.split(",")[3] for line in lines] == ["max_detections", "100", "300"]


def test_entries_of_two_limits_have_their_own_columns_in_a_zoos_list():
    entries = {
        name: {"metrics": {"bbox/AP": ap, "max_detections": limit}, "bytes": 1}
        for name, ap, limit in (("a", 11.0, 100), ("b", 22.0, 300))
    }
    header, _, *rows = _table(entries).splitlines()
    columns = [cell.strip() for cell in header.split("|")]
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    assert [row[columns.index("AP")] for row in cells] == ["11.0", "–"]
    assert [row[columns.index("AP@300")] for row in cells] == ["–", "22.0"]


def test_the_headline_is_cocos_at_its_own_limit():
    assert list(headline().values())[:4] == ["AP", "AP50", "AP75", "AR@100"]
    assert "bbox/AR300" in headline(300)


def test_joined_metrics_keep_the_limit():
    joined = DetectionMetrics({}, {}, 300) | DetectionMetrics({"froc/mean": 1.0}, {})
    assert joined.max_detections == 300


@pytest.mark.parametrize(("limit", "count"), [(119, 3), (120, 0)])
def test_the_data_check_finds_images_with_more_objects_than_the_limit(tmp_path, limit, count):
    content = coco_dataset(4, images=3, objects=120)
    loaded = load_custom(write_dataset(tmp_path, {"val": content}), "val")
    checkup = check_splits({"val": loaded}, Settings(max_detections=limit))
    found = [item for item in checkup.findings if "more than" in item.what]
    assert [item.count for item in found] == [count] * bool(count)
    if count:
        assert "more than 119 objects, the largest with 120" in found[0].what
        assert "TEST.DETECTIONS_PER_IMAGE" in found[0].cure


def test_calibration_is_undefined_for_scores_that_are_no_probabilities():
    records, found = crowded(3)
    found[0]["score"] = 7.0
    metrics = all_metrics(records, found, ["cell"], froc_hit="iou")
    assert metrics.reasons["calibration/ECE"] == "scores are not all between 0 and 1"
    assert calibration(match(records, found, 1)).ece is None
    assert metrics.values["bbox/AP"] == pytest.approx(100)


# the area that an annotation states


def _box_area(item: dict) -> float:
    x0, y0, x1, y1 = item["bbox"]
    return (x1 - x0) * (y1 - y0)


@pytest.mark.parametrize("seed", range(4))
def test_metrics_by_size_go_by_the_stated_area_as_in_pycocotools(tmp_path, seed):
    content = coco_dataset(seed)
    (tmp_path / "found.json").write_text(json.dumps(near_misses(content, seed)))
    own = write_dataset(tmp_path, {"val": content})
    records = load_custom(own, "val").records
    found = read_results(tmp_path / "found.json", records, NAMES, IDS)
    values = detection_metrics(records, found, NAMES).values
    oracle = plain_pycocotools(tmp_path / "val.json", tmp_path / "found.json")
    assert {name: values[name] for name in oracle} == pytest.approx(oracle, abs=1e-9)
    without = [
        {
            **r,
            "annotations": [{k: v for k, v in a.items() if k != "area"} for a in r["annotations"]],
        }
        for r in records
    ]
    by_box = detection_metrics(without, found, NAMES).values
    assert any(by_box[f"bbox/AP{size}"] != values[f"bbox/AP{size}"] for size in "sml")


def test_an_area_in_a_foreign_result_list_has_no_effect():
    records, found = crowded(3)
    foreign = [item | {"area": 1e6, "id": 9, "iscrowd": 1} for item in found]
    assert detection_metrics(records, foreign, ["cell"]) == detection_metrics(
        records, found, ["cell"]
    )


def test_the_copy_of_a_dataset_states_the_same_areas_unless_boxes_were_clipped(tmp_path):
    content = coco_dataset(5)
    outside, inside = content["annotations"][:2]
    outside["bbox"] = [WIDTH - 20, HEIGHT - 30, 30, 30]
    outside["area"] = 77.0
    loaded = load_custom(write_dataset(tmp_path, {"val": content}), "val")
    convert("own", {"val": loaded}, tmp_path / "copy", "coco", FULL_RANGE)
    copy = json.loads((tmp_path / "copy" / "annotations" / "val.json").read_text())
    areas = [item["area"] for item in copy["annotations"]]
    assert areas == [20 * 30, *(item["area"] for item in content["annotations"][1:])]
    assert inside["area"] == areas[1]


@pytest.mark.parametrize("area", [-1.0, 0, "twelve", True, float("nan")])
def test_an_area_that_is_no_size_is_noted_and_the_boxs_counts(tmp_path, area):
    content = coco_dataset(5)
    content["annotations"][0]["area"] = area
    content["annotations"][1]["area"] = None  # as if it were not there
    loaded = load_custom(write_dataset(tmp_path, {"val": content}), "val")
    reason = "areas that are not a positive number, replaced by the box's area"
    assert loaded.report.reasons == {reason: 1}
    assert loaded.report.places[reason][0].endswith("val.json, annotation 1")
    first, second, third, *_ = loaded.records[0]["annotations"]
    assert "area" not in first and "area" not in second and third["area"] > 0
