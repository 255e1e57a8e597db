"""The report of a run: what it counts, that it is one safe file, and that a browser can use it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from ulga_d2.errors import UserError
from ulga_d2.evaluation.average_precision import coco_index
from ulga_d2.evaluation.boxes import number_images
from ulga_d2.evaluation.confusion import confusion_matrix
from ulga_d2.evaluation.estimate import Estimate, estimate
from ulga_d2.evaluation.report.chart import Line, line_chart
from ulga_d2.evaluation.report.facts import fingerprint
from ulga_d2.evaluation.report.hits import match_images
from ulga_d2.evaluation.report.page import Source, render_report
from ulga_d2.evaluation.report.scored import score
from ulga_d2.evaluation.report.sections import build_sections, counts_by_class
from ulga_d2.evaluation.resample import Draws
from ulga_d2.evaluation.runs import Run

NAMES = ("solid", "</script><b>ring")


def random_set(seed: int) -> tuple[list[dict], list[dict]]:
    """Return records and predictions with ties, crowds, images without objects or detections."""
    rng = np.random.default_rng(seed)
    records, predictions = [], []
    for image in range(12):
        boxes = [_box(rng) for _ in range(rng.integers(0, 4))]
        annotations = [
            {
                "bbox": box,
                "bbox_mode": 1,
                "category_id": int(rng.integers(2)),
                "iscrowd": int(rng.random() < 0.15),
            }
            for box in boxes
        ]
        record = {"image_id": f"i{image:02d}", "file_name": f"i{image}.png"}
        records.append({**record, "width": 100, "height": 80, "annotations": annotations})
        for _ in range(rng.integers(0, 7)):
            near = boxes and rng.random() < 0.6
            box = boxes[rng.integers(len(boxes))] if near else _box(rng)
            moved = [value + float(rng.normal(0, 1.5)) for value in box]
            predictions.append(
                {
                    "image_id": f"i{image:02d}",
                    "category_id": int(rng.integers(2)),
                    "bbox": [*moved[:2], max(1.0, moved[2]), max(1.0, moved[3])],
                    "score": min(round(float(rng.random()), 1) + 0.01, 1.0),
                }
            )
    return records, predictions


def _box(rng: np.random.Generator) -> list[float]:
    return [float(v) for v in (*rng.uniform(0, 60, 2), *rng.uniform(8, 20, 2))]


def estimated(records: list[dict], predictions: list[dict]) -> Estimate:
    return estimate(
        records,
        predictions,
        NAMES,
        Draws(np.arange(len(records)), 100),
        froc_hit="iou",
        watch=lambda draws, _: draws,
    )


def source_of(records: list[dict], predictions: list[dict], found: Estimate) -> Source:
    def grey(_: str) -> np.ndarray:
        return np.full((80, 100, 3), 99.0)

    return Source("a_set", records, predictions, NAMES, grey, found, "100 resamples of images")


def a_run() -> Run:
    lines = tuple(
        {"iteration": i, "total_loss": 1 / (i + 1), "bbox/AP": float(i)} for i in range(9)
    )
    return Run(Path("a <run>"), {"SEED": 3}, lines, {}, {})


@pytest.fixture(scope="module")
def page() -> str:
    records, predictions = random_set(3)
    source = source_of(records, predictions, estimated(records, predictions))
    return render_report(a_run(), source, {"seed": "3"})


@pytest.mark.parametrize("seed", range(60))
def test_hits_and_false_positives_are_those_of_pycocotools(seed):
    records, predictions = random_set(seed)
    images = match_images(records, predictions)
    numbers = number_images(records)
    truth = [
        {**item, "image_id": numbers[record["image_id"]]}
        for record in records
        for item in record["annotations"]
    ]
    found = [{**item, "image_id": numbers[item["image_id"]], "iscrowd": 0} for item in predictions]
    evaluation = COCOeval(
        coco_index(truth, numbers, NAMES), coco_index(found, numbers, NAMES), "bbox"
    )
    evaluation.evaluate()
    hits = false = 0
    for of_image in evaluation.evalImgs[: 2 * 4 * len(records)]:
        if of_image is not None and of_image["aRng"] == evaluation.params.areaRng[0]:
            counted = ~of_image["dtIgnore"][0].astype(bool)
            hits += int((of_image["dtMatches"][0] > 0)[counted].sum())
            false += int((of_image["dtMatches"][0] == 0)[counted].sum())
    kinds = [one.hit for image in images for one in image.detections]
    assert (kinds.count(True), kinds.count(False)) == (hits, false)
    objects = sum(not thing.is_crowd for image in images for thing in image.objects)
    assert sum(image.missed for image in images) == objects - hits


def test_the_counts_of_the_threshold_are_those_of_the_gallery():
    records, predictions = random_set(5)
    scored = score(records, predictions, NAMES, estimated(records, predictions), froc_hit="iou")
    images = match_images(records, predictions)
    for category, counts in enumerate(counts_by_class(scored)):
        for step in (0, 25, 60, 100):
            kept = [
                one.hit
                for image in images
                for one in image.detections
                if one.category == category and one.score >= step / 100
            ]
            assert counts["hits"][step] == kept.count(True)
            assert counts["false"][step] == kept.count(False)


def test_sections_show_figures_with_intervals_the_confusion_and_the_errors():
    records, predictions = random_set(5)
    found = estimated(records, predictions)
    scored = score(records, predictions, NAMES, found, froc_hit="iou")
    sections = {s.title: s for s in build_sections(a_run(), scored, records, predictions)}
    assert list(sections) == [
        "By class and by size",
        "Curves",
        "Best threshold and confusion",
        "Errors by kind",
        "Calibration",
        "Learning curves",
    ]
    interval = found.intervals["bbox/AP-solid"]
    shown = sections["By class and by size"].tables[0].rows[0][1]
    value = found.metrics.values["bbox/AP-solid"]
    assert shown == f"{value:.1f} [{interval.low:.1f}, {interval.high:.1f}]"
    matrix = confusion_matrix(records, predictions, 2, score=scored.best.score)
    rows = sections["Best threshold and confusion"].tables[0].rows
    assert [row[1:] for row in rows[:2]] == [tuple(map(str, row)) for row in matrix[:2].tolist()]
    errors = sections["Errors by kind"].tables[0]
    numbers = {row[0].split(":")[0]: float(row[1]) for row in errors.rows}
    assert numbers["missed"] == found.metrics.values["errors/num_missed"]
    assert len(errors.bars) == len(errors.rows) and max(errors.bars) == 1


def test_a_set_without_objects_or_detections_still_has_its_page():
    records = [{**record, "annotations": []} for record in random_set(3)[0]]
    for predictions in ([], [{**random_set(3)[1][0]}]):
        source = source_of(records, predictions, estimated(records, predictions))
        text = render_report(a_run(), source, {})
        assert "no ground-truth boxes at all" in text and "nan" not in text


def test_the_page_needs_no_other_file_and_escapes_names(page):
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "@import" not in page and "url(" not in page
    assert "</script><b>ring" not in page
    assert "a &lt;run&gt;" in page
    assert len(page) < 5_000_000


def test_predictions_of_another_set_are_refused():
    records, predictions = random_set(3)
    source = source_of(records[:3], predictions, estimated(records, predictions))
    with pytest.raises(UserError, match="no such image"):
        render_report(a_run(), source, {})


def test_the_fingerprint_changes_with_a_box_and_not_with_the_order():
    records, _ = random_set(1)
    assert fingerprint(records) == fingerprint(records[::-1])
    records[0]["annotations"] = [{"bbox": [1, 2, 3, 4], "bbox_mode": 1, "category_id": 0}]
    assert fingerprint(records) != fingerprint(random_set(1)[0])


def test_a_chart_maps_its_range_onto_its_frame_and_is_none_without_points():
    line = Line("a", [(0, 0), (1, 1)])
    chart = line_chart("t", [line], x_label="x", y_label="y", x_range=(0, 1), y_range=(0, 1))
    left, top, right, bottom = chart.frame
    assert chart.lines[0][1] == f"M{left:.1f},{bottom:.1f}L{right:.1f},{top:.1f}".replace("-0", "0")
    assert line_chart("t", [Line("a", [])], x_label="x", y_label="y") is None


DRIVER = """<script>
const seen = {before: document.querySelectorAll("rect.hidden").length};
slider.value = 1; slider.dispatchEvent(new Event("input"));
seen.hiddenAtOne = document.querySelectorAll("rect.hidden").length;
seen.found = document.querySelector("#counts tr:last-child").cells[2].textContent;
slider.value = 0; slider.dispatchEvent(new Event("input"));
seen.hiddenAtZero = document.querySelectorAll("rect.hidden").length;
seen.foundAtZero = document.querySelector("#counts tr:last-child").cells[2].textContent;
document.querySelector(".tile").click();
seen.open = dialog.open && dialog.querySelectorAll("img").length === 1;
document.getElementById("close").click();
seen.closed = !dialog.open;
seen.width = document.documentElement.scrollWidth;
document.title = "SEEN" + JSON.stringify(seen) + "END";
</script></body>"""


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not on PATH")
def test_threshold_and_gallery_work_in_a_browser_without_a_console_error(page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", DRIVER), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += [
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    seen = json.loads(re.search("SEEN(.*?)END", done.stdout).group(1))
    records, predictions = random_set(3)
    hits = [one for i in match_images(records, predictions) for one in i.detections if one.hit]
    assert seen["open"] and seen["closed"]
    assert seen["hiddenAtZero"] == 0 < seen["before"] < seen["hiddenAtOne"]
    assert (seen["found"], seen["foundAtZero"]) == (
        str(sum(one.score >= 1 for one in hits)),
        str(len(hits)),
    )
    assert seen["width"] <= 500
