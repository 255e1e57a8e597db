"""Images of a result list are the dataset's by file name, whatever ids they were given."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path

import pytest
from coco_files import CATEGORIES, coco_dataset, near_misses, plain_pycocotools, write_dataset

from tests.predict_files import write_checkpoint
from tests.tiny_detectors import CLASSES
from ulga_d2.cli.main import main as ulga
from ulga_d2.data.builtin import LOADERS, load_split
from ulga_d2.data.custom import load_custom
from ulga_d2.data.sample import write_sample
from ulga_d2.errors import UserError
from ulga_d2.evaluation.images import image_entries, match_images
from ulga_d2.evaluation.saved import META, read_results, write_results

HEIGHT, WIDTH = 20, 30
FILE = Path(META)


def records_of(names: dict[str, int | str], root: str = "/data/own") -> list[dict]:
    size = {"height": HEIGHT, "width": WIDTH, "annotations": []}
    return [{"file_name": f"{root}/{name}", "image_id": key, **size} for name, key in names.items()]


def listed(*names: str, **changes: object) -> list[dict]:
    """Return images as `ulga predict` numbers them."""
    size = {"height": HEIGHT, "width": WIDTH} | changes
    return [{"id": number, "file_name": name, **size} for number, name in enumerate(names, 1)]


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


# what fits


@pytest.mark.parametrize(
    ("names", "records"),
    [
        (["0.png", "1.png"], records_of({"1.png": 1, "0.png": 2})),
        (["0.png", "1.png"], records_of({"1.png": "1", "0.png": "b"})),
        (["val/0.png", "val/1.png"], records_of({"val/1.png": 8, "val/0.png": 9})),
        (["own/val/0.png", "own/val/1.png"], records_of({"val/1.png": 8, "val/0.png": 9})),
        (["me/data/own/0.png", "me/data/own/1.png"], records_of({"1.png": 8, "0.png": 9})),
        (["a_0.png", "b_0.png"], records_of({"b/b_0.png": 8, "a/a_0.png": 9})),  # flat copies
        (["a/0.png", "b/0.png"], records_of({"b/0.png": 1, "a/0.png": 2})),
        (["0.png", "sub/0.png"], records_of({"sub/0.png": 1, "0.png": 2})),
        (["0.png", "x/0.png"], records_of({"x/x/0.png": 4, "x/0.png": 5, "y/1.png": 6})),
    ],
)
def test_images_are_matched_by_the_end_of_their_path(names, records, caplog):
    by_number = {1: 5, 2: 4} if len(records) == 3 else {1: records[1]["image_id"]}
    if len(records) == 2:
        by_number[2] = records[0]["image_id"]
    with caplog.at_level(logging.INFO, "ulga_d2"):
        assert match_images(listed(*names), records, FILE) == by_number
    assert any("by file name" in message for message in messages(caplog, logging.INFO))


def test_a_relative_path_of_a_record_is_taken_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [record | {"file_name": "b/0.png"} for record in records_of({"0.png": 7})]
    assert match_images(listed(f"{tmp_path.name}/b/0.png"), records, FILE) == {1: 7}


def test_sizes_tell_two_images_of_one_name_apart():
    first, second = records_of({"a/0.png": 5, "b/0.png": 6})
    second |= {"height": WIDTH, "width": HEIGHT}
    assert match_images(listed("0.png"), [first, second], FILE) == {1: 5}


def test_a_file_that_stands_in_two_records_keeps_the_ids_of_its_run():
    records = records_of({"0.png": 5, "1.png": 7})
    records.append({**records[0], "image_id": 6})
    assert match_images(image_entries(records), records, FILE) == {5: 5, 6: 6, 7: 7}


# what does not


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (listed("0.png", "7.png", "8.png"), r"2 of 3 images are not .*: '7.png', '8.png'; score"),
        (listed("train/0.png"), r"1 of 1 images are not in the dataset .*/data/own/a/0.png"),
        (listed("0.png#0001"), "1 of 1 images are not in the dataset"),
        (
            listed("0.png", height=WIDTH, width=HEIGHT),
            r"'0.png' has \(30, 20\) .*, but /data/own/a/0.png of the dataset has \(20, 30\)",
        ),
        (listed("1.png"), r"'1.png' could be /data/own/a/1.png or /data/own/b/1.png .*--recursive"),
        (listed("a/0.png", "0.png"), r"'a/0.png' and '0.png' both fit /data/own/a/0.png"),
    ],
)
def test_images_that_fit_none_or_several_are_refused_by_name(images, message):
    records = records_of({"a/0.png": 100, "a/1.png": 101, "b/1.png": 102})
    with pytest.raises(UserError, match=message):
        match_images(images, records, FILE)


def test_images_without_an_entry_are_counted_in_a_warning(caplog):
    records = records_of({"0.png": 7, "1.png": 8, "2.png": 9})
    assert match_images(listed("1.png"), records, FILE) == {1: 8}
    (warning,) = messages(caplog, logging.WARNING)
    assert "lists 1 of the dataset's 3 images; the other 2 (such as /data/own/0.png)" in warning
    caplog.clear()
    match_images(listed("1.png", "0.png", "2.png"), records, FILE)
    assert not messages(caplog, logging.WARNING)


def test_only_if_no_name_fits_are_ids_taken_and_that_is_said(caplog):
    records = records_of({"0.png": 1, "1.png": 2})
    assert match_images(listed("x.png", "y.png"), records, FILE) == {1: 1, 2: 2}
    (warning,) = messages(caplog, logging.WARNING)
    assert "no file name is the dataset's (x.png, for example); images are matched by id" in warning
    for images in (
        listed("x.png", "1.png"),
        listed("x.png", "y.png", "z.png"),
        listed("x.png", "y.png", height=21),
    ):
        with pytest.raises(UserError, match=r"images are not in the dataset .*'x.png'"):
            match_images(images, records, FILE)
    with pytest.raises(UserError, match="not in the dataset"):
        match_images(listed("x.png"), records_of({"0.png": "1"}), FILE)


# result files


def as_predicted(folder: Path, root: Path, records: list[dict], found: list[dict]) -> Path:
    """Write results with the ids and names that `ulga predict root --recursive` gives."""
    files = sorted(record["file_name"] for record in records)
    names = [Path(file).relative_to(root).as_posix() for file in files]
    by_file = {record["file_name"]: record for record in records}
    sizes = [{side: by_file[file][side] for side in ("height", "width")} for file in files]
    numbers = {by_file[file]["image_id"]: number for number, file in enumerate(files, 1)}
    write_results(
        folder,
        [{**item, "image_id": numbers[item["image_id"]]} for item in found],
        images=[image | size for image, size in zip(listed(*names), sizes, strict=True)],
        categories=CATEGORIES.items(),
        info={"max_detections": 100},
    )
    return folder / "predictions.json"


def test_numbered_results_score_as_pycocotools_scores_them_under_the_datasets_ids(tmp_path, capsys):
    content = coco_dataset(3)
    for number, image in enumerate(content["images"], 1):  # the same numbers for other images
        for item in content["annotations"]:
            if item["image_id"] == image["id"]:
                item["image_id"] = number
        image["id"] = number
    own = write_dataset(tmp_path, {"val": content})
    records = load_custom(own, "val").records
    found = near_misses(content)
    (tmp_path / "plain.json").write_text(json.dumps(found))
    expected = plain_pycocotools(tmp_path / "val.json", tmp_path / "plain.json")
    contiguous = {key: number for number, key in enumerate(CATEGORIES)}
    found = [{**item, "category_id": contiguous[item["category_id"]]} for item in found]
    out = as_predicted(tmp_path / "out", tmp_path / "val", records, found)
    assert {item["image_id"] for item in json.loads(out.read_text())} == {*range(1, 7)}
    words = ["--dataset", f"{own}:val", "--json", str(tmp_path / "scores.json")]
    assert ulga(["evaluate", str(out.parent), *words, "--bootstrap", "0"]) == 0
    figures = json.loads((tmp_path / "scores.json").read_text())["figures"]
    assert {name: figures[name]["value"] for name in expected} == pytest.approx(expected, abs=1e-9)
    plain = str(tmp_path / "plain.json")
    few = ["--bootstrap", "100", "--permutations", "100"]
    assert ulga(["compare", plain, "--", str(out), *words, *few]) == 0
    figures = json.loads((tmp_path / "scores.json").read_text())["figures"]
    assert figures["bbox/AP"]["difference"] == 0 and figures["bbox/AP"]["b"] > 10


def test_what_ulga_predict_writes_is_scored_on_the_images_it_was_made_on(sample_data, tmp_path):
    model = write_checkpoint(tmp_path / "model")
    records, ids = load_split("brain_tumor_val").records, range(1, 1 + len(CLASSES))
    folder, out = str(Path(records[0]["file_name"]).parent), tmp_path / "out"
    words = ["--out", str(out), "--save", "json", "--device", "cpu"]
    assert ulga(["predict", str(model), folder, *words]) == 0
    found = read_results(out, records, CLASSES, ids)
    images = json.loads((out / META).read_text())["images"]
    names = {image["id"]: image["file_name"] for image in images}
    raw = json.loads((out / "predictions.json").read_text())
    of_record = {r["image_id"]: Path(r["file_name"]).name for r in records}
    assert len(found) > 0
    assert [of_record[item["image_id"]] for item in found] == [
        names[item["image_id"]] for item in raw
    ]
    with pytest.raises(UserError, match="5 of 6 images are not in the dataset"):
        read_results(out, records[:1], CLASSES, ids)


def load_custom_sample(root: Path) -> list[dict]:
    return load_custom(root / "own.yaml", "val").records


@pytest.mark.parametrize("dataset", [*LOADERS, "custom"])
def test_results_are_read_after_the_dataset_was_moved(dataset, tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second" / "place"
    load: Callable[[Path], list[dict]] = load_custom_sample
    if dataset == "custom":
        first.mkdir()
        write_dataset(first, {"val": coco_dataset(1)})
    else:
        write_sample(
            dataset, first / dataset, num_train=2, num_val=5, size=64, difficulty="easy", seed=0
        )

        def load(root: Path) -> list[dict]:
            monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
            return load_split(f"{dataset}_val").records

    before = load(first)
    found = [  # each image has its own score
        {"bbox": [0, 0, 5, 5], "category_id": 0, "image_id": r["image_id"], "score": n / 9}
        for n, r in enumerate(before)
    ]
    of_image = itemgetter("score")
    of_run = {"categories": CATEGORIES.items(), "info": {"max_detections": 100}}
    write_results(tmp_path / "run", found, images=image_entries(before), **of_run)
    as_predicted(tmp_path / "out", first, before, found)
    second.parent.mkdir()
    shutil.move(first, second)
    after = load(second)
    assert after[0]["file_name"] != before[0]["file_name"]
    for folder in ("run", "out"):
        ids = tuple(CATEGORIES)
        again = read_results(tmp_path / folder, after, tuple(CATEGORIES.values()), ids)
        assert sorted(again, key=of_image) == sorted(found, key=of_image)


def test_a_result_of_an_image_that_is_not_listed_is_refused(tmp_path):
    records = records_of({"0.png": 5})
    result = {"image_id": 5, "category_id": 0, "bbox": [0, 0, 5, 5], "score": 0.5}
    info = {"categories": CATEGORIES.items(), "info": {}}
    write_results(tmp_path, [result], images=image_entries(records), **info)
    path = tmp_path / "predictions.json"
    names, ids = tuple(CATEGORIES.values()), tuple(CATEGORIES)
    assert read_results(path, records, names, ids) == [result]
    for image_id in (6, "5", True, [5]):
        path.write_text(json.dumps([{**result, "category_id": 3, "image_id": image_id}]))
        with pytest.raises(UserError, match=r"number 1: image_id .* is none of .*move it away"):
            read_results(path, records, names, ids)
