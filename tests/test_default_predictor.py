"""detectron2's own tools on a run of ours: the whole image, the evaluated weights."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import tiny_args
from detectron2.data import DatasetMapper
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from ulga_d2 import Predictor, get_cfg
from ulga_d2.config import merge_config
from ulga_d2.engine.checks import check_config
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint

SIDE = 64
LOW_SCORE = "0.005"
SIZES = {
    "swin": {},
    "vit": {
        "MODEL__ULGA__VIT__EMBED_DIM": 32,
        "MODEL__ULGA__VIT__DEPTH": 2,
        "MODEL__ULGA__VIT__NUM_HEADS": 2,
        "MODEL__ULGA__VIT__NUM_GLOBAL": 2,
        "MODEL__ULGA__VIT__GRID_SIZE": 4,
    },
    "dat": {
        "MODEL__ULGA__DAT__EMBED_DIM": 16,
        "MODEL__ULGA__DAT__DEPTHS": "[1, 1, 2, 1]",
        "MODEL__ULGA__DAT__NUM_HEADS": "[1, 1, 2, 2]",
        "MODEL__ULGA__DAT__NUM_GROUPS": "[1, 1, 1, 1]",
    },
}


@pytest.fixture(scope="module", params=SIZES)
def run_folder(request, sample_root, tmp_path_factory) -> Path:
    """Return a tiny run of each backbone, with averaged weights far from the last ones."""
    folder = tmp_path_factory.mktemp(f"run_{request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        torch.set_num_threads(1)
        main(
            tiny_args(
                folder,
                leaf=f"brain_tumor_{request.param}_ulga_nano",
                SOLVER__EMA__ENABLED=True,
                SOLVER__EMA__DECAY=0.5,
                MODEL__RETINANET__SCORE_THRESH_TEST=LOW_SCORE,
                **SIZES[request.param],
            )
        )
    return folder


def stock_config(folder: Path):
    """Read a run's config as a user of detectron2 would."""
    cfg = get_cfg()
    cfg.merge_from_file(str(folder / "inference" / "config.yaml"))
    return cfg


def saved_detections(folder: Path) -> dict:
    found: dict = {}
    for item in json.loads((folder / "inference" / "predictions.json").read_text()):
        x, y, width, height = item["bbox"]
        row = [x, y, x + width, y + height, item["score"], item["category_id"]]
        found.setdefault(item["image_id"], []).append(row)
    return {key: np.array(rows) for key, rows in found.items()}


def evaluated_images(sample_root: Path) -> dict[str, Path]:
    return {path.stem: path for path in (sample_root / "brain_tumor/images/val").iterdir()}


def test_default_predictor_gives_the_boxes_of_the_evaluation(run_folder, sample_root):
    predictor = DefaultPredictor(stock_config(run_folder))
    saved = saved_detections(run_folder)
    assert saved
    for path in evaluated_images(sample_root).values():
        image = cv2.imread(str(path))
        assert max(image.shape) == SIDE  # needs no resizing
        instances = predictor(image)["instances"]
        (expected,) = [rows for key, rows in saved.items() if path.stem in str(key)]
        assert len(instances) == len(expected)
        assert np.abs(instances.pred_boxes.tensor.numpy() - expected[:, :4]).max() < 1e-3
        assert np.abs(instances.scores.numpy() - expected[:, 4]).max() < 1e-5


def test_detectron2s_mapper_shows_the_whole_image(run_folder, sample_root):
    cfg = get_cfg()
    cfg.merge_from_file(str(run_folder / "config.yaml"))
    mapper = DatasetMapper(cfg, is_train=False)
    path = next(iter(evaluated_images(sample_root).values()))
    mapped = mapper({"file_name": str(path), "height": SIDE, "width": SIDE})
    assert mapped["image"].shape == (3, SIDE, SIDE)


def test_images_of_other_sizes_come_whole_and_near_the_exact_predictor(run_folder, sample_root):
    path = next(iter(evaluated_images(sample_root).values()))
    large = cv2.resize(cv2.imread(str(path)), (3 * SIDE, 2 * SIDE), interpolation=cv2.INTER_CUBIC)
    theirs = DefaultPredictor(stock_config(run_folder))(large)["instances"]
    assert theirs.image_size == (2 * SIDE, 3 * SIDE)
    ours = Predictor(run_folder)(cv2.cvtColor(large, cv2.COLOR_BGR2RGB))
    assert len(ours) and theirs.pred_boxes.tensor[:, 2].max() > 1.5 * SIDE  # not the corner alone
    assert abs(float(theirs.scores[0]) - float(ours.scores[0])) < 0.05


def test_the_inference_weights_are_the_averaged_ones(run_folder):
    final = load_checkpoint(run_folder / "model_final.pth")
    left = load_checkpoint(run_folder / "inference" / "model_inference.pth")
    assert all(torch.equal(left["model"][name], final["ema"][name]) for name in final["ema"])
    assert any(
        not torch.equal(left["model"][name], final["model"][name]) for name in final["model"]
    )
    assert Path(stock_config(run_folder).MODEL.WEIGHTS).is_file()
    assert left["class_names"] == stock_config(run_folder).DATASETS.CLASS_NAMES


def test_an_image_larger_than_the_square_is_refused_and_never_cropped(run_folder):
    cfg = get_cfg()
    cfg.merge_from_file(str(run_folder / "config.yaml"))
    model = build_model(cfg).eval()
    for sizes in ([(SIDE + 1, SIDE)], [(SIDE, SIDE), (SIDE, 2 * SIDE)]):
        images = [{"image": torch.zeros(3, *size)} for size in sizes]
        with pytest.raises(UserError, match=r"above 64 pixels, which is INPUT\.SQUARE_SIZE"):
            model(images)


def test_a_resolved_config_is_read_again_with_another_square(run_folder):
    cfg = get_cfg()
    merge_config(cfg, str(run_folder / "config.yaml"), ["INPUT.SQUARE_SIZE", "96"])
    assert cfg.INPUT.SQUARE_SIZE == 96
    assert cfg.INPUT.MIN_SIZE_TEST == get_cfg().INPUT.MIN_SIZE_TEST  # to be derived anew
    check_config(cfg)
