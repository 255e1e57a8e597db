"""Result files: the dataset's own category ids, what lies beside them, and foreign files."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest
import torch
import yaml
from coco_files import CATEGORIES, coco_dataset, near_misses, plain_pycocotools, write_dataset
from cod10k_files import stems_of, write, write_json
from conftest import tiny_args
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as run_lengths

from ulga_d2 import get_cfg
from ulga_d2.cli.main import main as ulga
from ulga_d2.config import stated_category_ids
from ulga_d2.data.check.doctor import Settings, check_splits
from ulga_d2.data.cod10k import load_cod10k
from ulga_d2.data.custom import load_custom
from ulga_d2.data.folds import to_json
from ulga_d2.data.make_folds import make_folds
from ulga_d2.engine.datasets import load_run_data
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.evaluation.boxes import check_predictions
from ulga_d2.evaluation.detection import DetectionEvaluator
from ulga_d2.evaluation.images import image_entries
from ulga_d2.evaluation.saved import (
    common_limit,
    find_predictions,
    read_results,
    write_results,
)
from ulga_d2.evaluation.summary import mix_up_warning
from ulga_d2.weights.checkpoint import load_checkpoint
from ulga_d2.weights.digest import weights_sha256

NAMES, IDS = tuple(CATEGORIES.values()), tuple(CATEGORIES)
RECORDS = [{"image_id": 1, "file_name": "a.png", "height": 9, "width": 9, "annotations": []}]


def result(category: object, **changes: object) -> dict:
    return {"image_id": 1, "category_id": category, "bbox": [0, 0, 5, 5], "score": 0.5} | changes


def written(path: Path, *categories: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([result(category) for category in categories]))
    return path


def ids_in(found: list[dict]) -> list[int]:
    return [item["category_id"] for item in found]


def run_folder(folder: Path, limit: int = 100) -> Path:
    """Return a folder with the config of a run, as older versions wrote it."""
    folder.mkdir(parents=True)
    config = {"MODEL": {"ULGA": {}}, "TEST": {"DETECTIONS_PER_IMAGE": limit}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


# a run on a COCO file with ids of its own


@pytest.fixture(scope="module")
def own_run(tmp_path_factory) -> tuple[Path, Path]:
    """Return the folder of a dataset with the ids 3, 7, 12, and of a run that trained on it."""
    data = tmp_path_factory.mktemp("data")
    run = tmp_path_factory.mktemp("run")
    own = write_dataset(data, {"train": coco_dataset(1), "val": coco_dataset(2)})
    splits = {"DATASETS__TRAIN": "('own_train',)", "DATASETS__TEST": "('own_val',)"}
    scores = {"MODEL__RETINANET__SCORE_THRESH_TEST": 0.0, "TEST__DETECTIONS_PER_IMAGE": 300}
    main(tiny_args(run, DATASETS__CUSTOM=own, **splits, **scores))
    return data, run


def test_plain_pycocotools_gives_a_runs_own_metrics_from_its_predictions(own_run):
    data, run = own_run
    results = run / "inference" / "predictions.json"
    assert set(ids_in(json.loads(results.read_text()))) <= set(IDS)
    ours = json.loads((run / "inference" / "metrics.json").read_text())
    theirs = plain_pycocotools(data / "val.json", results, limit=300)
    assert ours["max_detections"] == 300 and theirs["bbox/AR300"] > 0
    assert {name: ours[name] for name in theirs} == theirs


def test_config_checkpoint_and_catalog_state_the_category_ids(own_run):
    _, run = own_run
    config = (run / "config.yaml").read_text()
    assert yaml.safe_load(config)["DATASETS"]["CATEGORY_IDS"] == list(IDS)
    checkpoint = load_checkpoint(run / "model_final.pth")
    assert stated_category_ids(checkpoint["config"], 3) == IDS
    mapping = MetadataCatalog.get("own_val").thing_dataset_id_to_contiguous_id
    assert mapping == {3: 0, 7: 1, 12: 2}


def test_a_config_without_category_ids_means_one_to_k():
    assert stated_category_ids("DATASETS: {CLASS_NAMES: [a, b]}", 2) == (1, 2)


def test_the_file_beside_them_names_images_classes_and_settings_but_no_machine(own_run):
    _, run = own_run
    text = (run / "inference" / "predictions_meta.json").read_text()
    meta = json.loads(text)
    assert [(entry["id"], entry["name"]) for entry in meta["categories"]] == [*CATEGORIES.items()]
    first = {"id": 1000, "file_name": "sub0/0.png", "height": 240, "width": 320}
    assert meta["images"][0] == first
    assert meta["info"]["max_detections"] == 300
    assert meta["info"]["settings"]["MODEL.RETINANET.SCORE_THRESH_TEST"] == 0.0
    assert str(run.parent) not in text


def test_evaluating_a_checkpoint_states_its_fingerprint(own_run, tmp_path):
    data, run = own_run
    weights = run / "model_final.pth"
    options = {"DATASETS__CUSTOM": data / "own.yaml", "MODEL__WEIGHTS": weights}
    main(tiny_args(tmp_path, eval_only=True, DATASETS__TEST="('own_val',)", **options))
    meta = json.loads((tmp_path / "inference" / "predictions_meta.json").read_text())
    assert meta["info"]["model_sha256"] == weights_sha256(load_checkpoint(weights)["model"])


def test_a_run_is_scored_again_with_its_own_limit_and_reported(own_run, tmp_path, capsys):
    data, run = own_run
    ours = json.loads((run / "inference" / "metrics.json").read_text())
    words = ["--dataset", f"{data}/own.yaml:val", "--json", str(tmp_path / "again.json")]
    assert ulga(["evaluate", str(run), *words, "--bootstrap", "100"]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["max_detections"] == 300
    figures = {name: one["value"] for name, one in again["figures"].items()}
    assert figures == {name: ours[name] for name in figures}
    assert "bbox/AP@300" in capsys.readouterr().out
    assert ulga(["report", str(run), "--bootstrap", "0"]) == 0
    page = (run / "report.html").read_text()
    assert "AR@300" in page and "AP@300" in page and "AR@100" not in page


def test_the_tables_of_a_run_state_its_limit(own_run, capsys):
    _, run = own_run
    log = (run / "log.txt").read_text()
    (header,) = (line for line in log.splitlines() if "AR@300" in line)
    assert "AP@300" in header and "class-agnostic AP@300" in header
    assert ulga(["runs", str(run)]) == 0
    table = capsys.readouterr().out
    assert "bbox/AP@300" in table and "bbox/AR300" in table and "undefined" not in table


def test_the_best_metric_is_called_by_the_limit(own_run, tmp_path):
    data, _ = own_run
    splits = {"DATASETS__TRAIN": "('own_train',)", "DATASETS__TEST": "('own_val',)"}
    options = {"DATASETS__CUSTOM": data / "own.yaml", **splits, "TEST__EVAL_PERIOD": 2}
    options["TEST__DETECTIONS_PER_IMAGE"] = 300
    with pytest.raises(UserError, match=r"'bbox/AR100', which is no figure .*bbox/AR300"):
        main(tiny_args(tmp_path / "a", **options, TEST__BEST_METRIC="bbox/AR100"))
    main(tiny_args(tmp_path / "b", **options, TEST__BEST_METRIC="bbox/AR300"))
    assert (tmp_path / "b" / "model_best.pth").is_file()


# what a list without a file beside it counts


@pytest.mark.parametrize(
    ("categories", "numbers"),
    [
        ([0, 1, 2], [0, 1, 2]),  # 0 and 1 are no ids of the dataset
        ([0, 1], [0, 1]),
        ([12, 3, 7], [2, 0, 1]),  # above K - 1
        ([3], [0]),
        ([], []),
    ],
)
def test_ids_that_fit_one_numbering_are_read_by_it(tmp_path, categories, numbers):
    path = written(tmp_path / "a.json", *categories)
    assert ids_in(read_results(path, RECORDS, NAMES, IDS)) == numbers


def test_where_both_numberings_fit_the_datasets_own_is_taken_and_said(tmp_path, caplog):
    path = written(tmp_path / "a.json", 1, 2)
    with caplog.at_level(logging.INFO, "ulga_d2"):
        assert ids_in(read_results(path, RECORDS, NAMES, (1, 2, 3))) == [0, 1]
    assert len(caplog.records) == 1
    assert "taken as the dataset's own (1, 2, 3), though both numberings fit" in caplog.text


@pytest.mark.parametrize("place", ["predictions.json", "inference/own_val/predictions.json"])
def test_in_a_run_folder_of_an_older_version_ids_count_from_zero(tmp_path, place):
    path = written(run_folder(tmp_path / "run") / place, 1, 2)
    assert ids_in(read_results(path, RECORDS, NAMES, (1, 2, 3))) == [1, 2]
    foreign = written(tmp_path / "run" / "other_tool.json", 1, 2)
    assert ids_in(read_results(foreign, RECORDS, NAMES, (1, 2, 3))) == [0, 1]


def test_the_flag_overrides_what_the_ids_say(tmp_path):
    path = written(tmp_path / "a.json", 1, 2)
    assert ids_in(read_results(path, RECORDS, NAMES, (1, 2, 3), numbering="contiguous")) == [1, 2]
    with pytest.raises(UserError, match=r"number 1: category_id 1 is none of the dataset's ids: 3"):
        read_results(path, RECORDS, NAMES, IDS, numbering="dataset")


def test_a_dataset_whose_ids_count_from_zero_has_one_numbering(tmp_path, caplog):
    path = written(run_folder(tmp_path / "run") / "predictions.json", 1, 2)
    with caplog.at_level(logging.INFO, "ulga_d2"):
        assert ids_in(read_results(path, RECORDS, NAMES, (0, 1, 2))) == [1, 2]
    assert not caplog.records


@pytest.mark.parametrize("category", ["3", 3.0, True, None, [3]])
def test_a_category_id_that_is_no_whole_number_is_refused(tmp_path, category):
    path = written(tmp_path / "a.json", 3, category)
    with pytest.raises(UserError, match=r"prediction number 2: category_id .* is none of"):
        read_results(path, RECORDS, NAMES, IDS)


def test_ids_that_fit_no_numbering_are_refused_with_both(tmp_path):
    path = written(tmp_path / "a.json", 0, 12)
    message = r"ids 0, 12, which are neither the dataset's \(3, 7, 12\) nor 0 to 2"
    with pytest.raises(UserError, match=message):
        read_results(path, RECORDS, NAMES, IDS)


# the file beside it


def sidecar(
    folder: Path, categories: dict[int, str], predictions: list[dict], limit: int | None = 250
) -> Path:
    info = {"max_detections": limit}
    images = image_entries(RECORDS)
    write_results(folder, predictions, images=images, categories=categories.items(), info=info)
    return folder / "predictions.json"


def test_with_a_file_beside_it_classes_are_matched_by_name(tmp_path):
    made_with = {5: "solid", 1: "ring", 2: "star"}
    path = sidecar(tmp_path, made_with, [result(0), result(1), result(2)])
    assert ids_in(json.loads(path.read_text())) == [5, 1, 2]
    for numbering in (None, "contiguous"):
        assert ids_in(read_results(path, RECORDS, NAMES, IDS, numbering=numbering)) == [2, 0, 1]
    packed = path.with_suffix(".json.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert ids_in(read_results(packed, RECORDS, NAMES, IDS)) == [2, 0, 1]


def test_results_of_other_classes_are_refused_with_both_lists(tmp_path):
    path = sidecar(tmp_path, {3: "ring", 7: "star", 12: "moon"}, [result(0)])
    with pytest.raises(UserError, match=r"(?s)other classes .*'moon'.*'solid'"):
        read_results(path, RECORDS, NAMES, IDS)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"images": [], "categories": [{"id": 1}], "info": {}}',
        '{"images": [], "categories": [], "info": 3}',
        '{"categories": [], "info": {}}',
        '{"images": [{"id": 1}], "categories": [], "info": {}}',
    ],
)
def test_a_damaged_file_beside_it_is_refused(tmp_path, text):
    path = sidecar(tmp_path, CATEGORIES, [result(0)])
    (tmp_path / "predictions_meta.json").write_text(text)
    with pytest.raises(UserError, match="predictions_meta.json does not say what"):
        read_results(path, RECORDS, NAMES, IDS)


def test_the_limit_is_what_is_asked_for_or_stated(tmp_path):
    with_file = sidecar(tmp_path / "a", CATEGORIES, [])
    in_run = written(run_folder(tmp_path / "run", 400) / "inference/predictions.json", 0).parents[1]
    foreign = written(tmp_path / "foreign.json", 3)
    assert common_limit(None, [foreign]) == 100
    assert common_limit(None, [with_file, foreign]) == 250
    assert common_limit(None, [with_file, in_run]) == 400
    assert common_limit(7, [with_file, in_run]) == 7


def test_results_without_a_limit_of_their_own_all_count_and_the_limit_is_logged(tmp_path, caplog):
    few = sidecar(tmp_path / "few", CATEGORIES, [result(0)] * 7, limit=None)
    many = sidecar(tmp_path / "many", CATEGORIES, [result(0)] * 130, limit=None)
    limited = sidecar(tmp_path / "limited", CATEGORIES, [result(0)] * 7, limit=40)
    with caplog.at_level(logging.INFO, "ulga_d2"):
        assert common_limit(None, [few]) == 100
        assert common_limit(None, [limited]) == 40
        assert common_limit(None, [few, limited, many]) == 130
        assert common_limit(9, [many]) == 9
    told = [record.getMessage() for record in caplog.records]
    assert [message.split(" states")[0] for message in told] == [str(few), str(few), str(many)]
    assert "up to 100 count" in told[0] and "up to 130 count" in told[1]


def test_a_run_on_several_test_sets_names_the_files_to_choose_from(tmp_path):
    run = run_folder(tmp_path / "run")
    with pytest.raises(UserError, match="holds no detections .*--eval-only"):
        find_predictions(run)
    files = [written(run / "inference" / name / "predictions.json", 1) for name in ("a_val", "b")]
    written(run / "inference" / "b" / "predictions_meta.json")
    for folder in (run, run / "inference"):
        with pytest.raises(UserError, match="give one of the files: ") as caught:
            find_predictions(folder)
        assert str(caught.value).endswith(": " + ", ".join(map(str, files)))
    assert find_predictions(run / "inference" / "b") == files[1]


# the datasets


def test_splits_of_one_run_whose_ids_differ_are_refused_with_both_lists(tmp_path):
    other = coco_dataset(2)
    other["categories"][2]["id"] = 13
    for item in other["annotations"]:
        item["category_id"] = {12: 13}.get(item["category_id"], item["category_id"])
    own = write_dataset(tmp_path, {"train": coco_dataset(1), "val": other})
    cfg = get_cfg()
    cfg.DATASETS.CUSTOM = str(own)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("own_train",), ("own_val",)
    with pytest.raises(UserError, match=r"(?s)ids differ .*\[3, 7, 12\].*\[3, 7, 13\]"):
        load_run_data(cfg, with_training=True)
    loaded = {split: load_custom(own, split) for split in ("train", "val")}
    folds = make_folds("own", loaded, k=2, group="image", stratify=False, seed=0)
    (tmp_path / "folds.json").write_text(to_json(folds))
    cfg.DATASETS.FOLDS_FILE = str(tmp_path / "folds.json")
    with pytest.raises(UserError, match=r"ids differ between the splits .*\[3, 7, 12\]"):
        load_run_data(cfg, with_training=True)
    found = [item.what for item in check_splits(loaded, Settings()).findings]
    assert "category ids of the same classes differ" in found


def test_folds_of_a_dataset_keep_its_ids(tmp_path):
    own = write_dataset(tmp_path, {"train": coco_dataset(1), "val": coco_dataset(2)})
    loaded = {split: load_custom(own, split) for split in ("train", "val")}
    folds = make_folds("own", loaded, k=2, group="image", stratify=False, seed=0)
    (tmp_path / "folds.json").write_text(to_json(folds))
    cfg = get_cfg()
    cfg.DATASETS.CUSTOM, cfg.DATASETS.FOLDS_FILE = str(own), str(tmp_path / "folds.json")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("own_train",), ("own_val",)
    assert load_run_data(cfg, with_training=True).category_ids == IDS


def test_a_dataset_of_other_code_keeps_the_ids_that_it_registered(tmp_path):
    records = [{"image_id": 1, "annotations": []}]
    for name, numbers in (("with_ids", {12: 1, 3: 0}), ("without_ids", None)):
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(thing_classes=["a", "b"])
        if numbers:
            MetadataCatalog.get(name).set(thing_dataset_id_to_contiguous_id=numbers)
    cfg = get_cfg()
    try:
        found = {}
        for name in ("with_ids", "without_ids"):
            cfg.DATASETS.TEST = (name,)
            found[name] = load_run_data(cfg, with_training=False).category_ids
    finally:
        for name in ("with_ids", "without_ids"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    assert found == {"with_ids": (3, 12), "without_ids": (1, 2)}


def test_cod10k_has_the_id_of_its_json(tmp_path):
    stems = stems_of("train", 2)
    write(tmp_path, stems)
    assert load_cod10k(tmp_path, "train").category_ids == (1,)
    write_json(tmp_path, stems, category_id=4)
    file = tmp_path / "Train" / "CAM_Instance_Train.json"
    content = json.loads(file.read_text())
    content["categories"][0]["id"] = 4
    file.write_text(json.dumps(content))
    assert load_cod10k(tmp_path, "train").category_ids == (4,)


# classes that are mixed up


@pytest.mark.parametrize(
    ("class_aware", "class_agnostic", "warns"),
    [(0.0, 50.0, True), (0.9, 11.0, True), (1.0, 50.0, False), (0.0, 9.0, False),
     (None, None, False)],
)  # fmt: skip
def test_a_mix_up_is_ap_near_zero_beside_a_high_class_agnostic_one(
    class_aware, class_agnostic, warns
):
    assert bool(mix_up_warning(class_aware, class_agnostic)) == warns


@pytest.fixture
def permuted(tmp_path) -> tuple[str, Path, Path]:
    """Return a dataset, right detections, and the same with each class called by the next."""
    content = coco_dataset(3)
    own = write_dataset(tmp_path, {"val": content})
    right = near_misses(content, wrong=0)
    following = dict(zip(IDS, (*IDS[1:], IDS[0]), strict=True))
    wrong = [item | {"category_id": following[item["category_id"]]} for item in right]
    paths = tmp_path / "right.json", tmp_path / "wrong.json"
    for path, found in zip(paths, (right, wrong), strict=True):
        path.write_text(json.dumps(found))
    return f"{own}:val", *paths


def test_evaluate_and_compare_warn_of_a_mix_up(permuted, caplog):
    dataset, right, wrong = permuted
    message = "this is a mix-up of category ids"
    few = ["--bootstrap", "100", "--permutations", "100"]
    for path, warns in ((right, False), (wrong, True)):
        for words in (
            ["evaluate", path, "--bootstrap", "0"],
            ["compare", right, "--", path, *few],
        ):
            caplog.clear()
            with caplog.at_level(logging.WARNING, "ulga_d2"):
                assert ulga([*map(str, words), "--dataset", dataset]) == 0
            assert (message in caplog.text) == warns
            assert (str(wrong) in caplog.text) == (warns and words[0] == "compare")


def test_the_evaluator_warns_of_a_mix_up(tmp_path, caplog):
    dataset = load_custom(write_dataset(tmp_path, {"val": coco_dataset(3)}), "val")
    evaluator = DetectionEvaluator("own", dataset.records, NAMES, str(tmp_path / "out"))
    for record in dataset.records:
        instances = Instances((record["height"], record["width"]))
        boxes = [item["bbox"] for item in record["annotations"]]
        instances.pred_boxes = Boxes(torch.tensor(boxes))
        instances.scores = torch.ones(len(boxes))
        classes = [(item["category_id"] + 1) % 3 for item in record["annotations"]]
        instances.pred_classes = torch.tensor(classes)
        evaluator.process([record], [{"instances": instances}])
    with caplog.at_level(logging.WARNING, "ulga_d2"):
        evaluator.evaluate()
    assert "this is a mix-up of category ids" in caplog.text


def whole_mask() -> dict:
    return {"size": [9, 9], "counts": [0, 81]}


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        ({"size": [9_000_000, 9_000_000], "counts": [0, 81]}, "another size than the image"),
        ({"size": [9, 9], "counts": [0, 2**40]}, "do not add up"),
        ({"size": [9, 9], "counts": "P" * 5000}, "damaged|add up|cut off"),
        ({"size": [9, 9], "counts": "\u00e9"}, "damaged"),
        ({"size": [9, 9], "counts": 5}, "no whole numbers"),
        ({"size": [9, 9]}, "no whole numbers"),
        ([[0, 0, 5, 0, 5, 5]], "masks of results are run lengths"),
        ("x", "neither"),
    ],
)
def test_a_mask_that_is_none_of_its_image_is_refused_before_it_is_decoded(tmp_path, mask, told):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([result(7), result(7, segmentation=mask)]))
    with pytest.raises(UserError, match=rf"x\.json, prediction number 2: its mask: .*({told})"):
        read_results(path, RECORDS, NAMES, IDS)


def test_masks_of_results_are_read_compressed_or_not(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([result(IDS[0], segmentation=whole_mask())]))
    (found,) = read_results(path, RECORDS, NAMES, IDS)
    assert run_lengths.decode(found["segmentation"]).sum() == 81
    path.write_text(json.dumps([found | {"category_id": IDS[0]}]))
    assert read_results(path, RECORDS, NAMES, IDS) == [found]


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'[{"a":' * 30_000, b"[" + b"9" * 5000 + b"]", b"\xff\xfe", b"[1]",
     gzip.compress(b" " * (60 * 2**20)), gzip.compress(b"[]")[:-9]],
    ids=["deep", "deep dicts", "digits", "bytes", "numbers", "bomb", "cut"],
)  # fmt: skip
def test_a_result_list_made_to_harm_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json"):
        read_results(tmp_path / "x.json", RECORDS, NAMES, IDS)


@pytest.mark.parametrize(
    "changes", [{"image_id": [1]}, {"image_id": None}, {"bbox": 5}, {"bbox": "abcd"},
                {"score": 10**400}, {"bbox": [[0], 0, 1, 1]}, {"score": "x"}], ids=str,
)  # fmt: skip
def test_a_result_of_wrong_types_is_refused_with_its_number(changes):
    with pytest.raises(UserError, match="^prediction number 1 "):
        check_predictions([result(0, **changes)], {1}, 3)
