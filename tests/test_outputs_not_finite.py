"""Outputs of a detector that are not finite: counted before detectron2 drops them, never scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import tiny_args
from detectron2.structures import Boxes, Instances

from tests.predict_files import colored, write_checkpoint, write_png
from ulga_d2.cli.main import main as ulga
from ulga_d2.engine.evaluate import evaluate
from ulga_d2.engine.launch import setup
from ulga_d2.errors import UserError
from ulga_d2.evaluation.detection import DetectionEvaluator
from ulga_d2.inference import predictor as predictor_module
from ulga_d2.inference.model import build_seeded_model
from ulga_d2.inference.predictor import Predictor
from ulga_d2.inference.views import View

NAN, INF = float("nan"), float("inf")
OF_RETINANET = {  # weights, and what they become
    "no score": {"head.cls_score.bias": NAN},
    "certain scores": {"head.cls_score.bias": INF},
    "no boxes": {"head.bbox_pred.bias": NAN},
    "infinite boxes": {"head.bbox_pred.bias": -INF},
    "boxes that overflow when they are decoded": {
        "head.cls_score.bias": 3.0,
        "head.bbox_pred.bias": 3e38,
    },
    "nothing from the backbone": {"backbone.fpn_lateral3.weight": NAN},
}
OF_MASK_RCNN = {
    "no proposal": {"proposal_generator.rpn_head.objectness_logits.bias": NAN},
    "no sides of proposals": {"proposal_generator.rpn_head.anchor_deltas.bias": NAN},
    "no score of a proposal": {"roi_heads.box_predictor.cls_score.bias": NAN},
    "no box of a proposal": {"roi_heads.box_predictor.bbox_pred.bias": NAN},
    "no mask": {"roi_heads.mask_head.predictor.bias": NAN},
}
FAULTS = {
    **{name: ("swin_ulga", fault) for name, fault in OF_RETINANET.items()},
    **{name: ("mask_swin_ulga", fault) for name, fault in OF_MASK_RCNN.items()},
}


def break_weights(model: torch.nn.Module, weights: dict[str, float]) -> torch.nn.Module:
    """Change weights, as no check of a file would let them pass."""
    with torch.no_grad():
        for name, value in weights.items():
            model.get_parameter(name).fill_(value)
    return model


@pytest.mark.parametrize("fault", FAULTS)
def test_evaluation_fails_with_the_count_and_the_first_image(sample_data, tmp_path, fault):
    kind, weights = FAULTS[fault]
    leaf = f"{'cod10k' if 'mask' in kind else 'brain_tumor'}_{kind}_nano"
    sets = {"DATASETS__TRAIN": "('brain_tumor_train',)", "DATASETS__TEST": "('brain_tumor_val',)"}
    cfg, data, _ = setup(tiny_args(tmp_path, leaf=leaf, **sets))
    model = break_weights(build_seeded_model(cfg).eval(), weights)
    with pytest.raises(UserError) as caught:
        evaluate(cfg, model, data, 0)
    message = str(caught.value)
    first = data.test["brain_tumor_val"][0]["file_name"]
    assert f"not finite, on 6 of 6 images, the first of them {first}. Nothing is scored" in message
    assert "MODEL.WEIGHTS" in message and "BASE_LR" not in message
    assert not (tmp_path / "inference").exists()


def test_sound_outputs_are_scored_and_the_watch_on_the_heads_is_put_up_once(sample_data, tmp_path):
    cfg, data, _ = setup(tiny_args(tmp_path))
    model = build_seeded_model(cfg).eval()
    results = [evaluate(cfg, model, data, 0) for _ in range(3)]
    assert len(model.head._forward_hooks) == 1
    assert str(results[0]) == str(results[1]) == str(results[2])


def test_an_image_of_a_batch_is_found_and_the_others_keep_their_detections(tmp_path):
    detector = Predictor(write_checkpoint(tmp_path), device="cpu", batch_size=4)._detector
    images = [torch.from_numpy(colored(seed, 64, 64)).permute(2, 0, 1).float() for seed in range(3)]
    with torch.inference_mode():
        expected = [detector([item(image)])[0] for image in images]
        images[1] = torch.full_like(images[1], NAN)
        found = detector([item(image) for image in images])
    assert ["not_finite" in output for output in found] == [False, True, False]
    assert found[1]["not_finite"] > 0 and len(found[1]["instances"]) == 0
    for number in (0, 2):
        ours, theirs = (outputs[number]["instances"] for outputs in (found, expected))
        assert len(ours) == len(theirs) > 0
        assert torch.equal(ours.scores, theirs.scores)
        assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)


def item(*images: torch.Tensor) -> dict:
    """Return an image whose views are the given ones."""
    views = [View(image, (0, 0, 64, 64)) for image in images]
    return {"views": views, "height": 64, "width": 64}


def test_one_view_that_is_not_finite_spoils_its_image(tmp_path):
    detector = Predictor(write_checkpoint(tmp_path), device="cpu")._detector
    whole = torch.from_numpy(colored(0, 64, 64)).permute(2, 0, 1).float()
    (output,) = detector([item(whole, torch.full_like(whole, INF))])
    assert output["not_finite"] > 0


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkpoint whose model gives no finite score once it is loaded."""
    load = predictor_module.load_model

    def load_broken(*args, **options):
        loaded = load(*args, **options)
        break_weights(loaded.model, OF_RETINANET["no score"])
        return loaded

    monkeypatch.setattr(predictor_module, "load_model", load_broken)
    return write_checkpoint(tmp_path)


def test_predict_skips_the_files_with_the_reason_and_ends_with_1(broken, tmp_path, capsys):
    image, out = write_png(tmp_path / "a.png"), tmp_path / "out"
    words = [str(broken), str(image), "--out", str(out), "--device", "cpu"]
    assert ulga(["predict", *words]) == 1
    told = capsys.readouterr()
    assert "of the model's scores, boxes or masks are not finite" in told.err + told.out
    assert "Traceback" not in told.err
    assert json.loads((out / "predictions.json").read_text()) == []
    (skipped,) = json.loads((out / "predictions_meta.json").read_text())["info"]["skipped"]
    assert skipped["file_name"] == "a.png" and "not finite" in skipped["reason"]


def test_the_predictor_raises_it_for_one_image(broken):
    predictor = Predictor(broken, device="cpu")
    with pytest.raises(UserError, match="not finite; compute in float32"):
        predictor(colored(0, 48, 64))


@pytest.mark.parametrize("field", ["scores", "boxes"])
def test_the_evaluator_counts_what_another_model_gives(tmp_path, field):
    record = {"image_id": 7, "file_name": "a.png", "height": 9, "width": 9, "annotations": []}
    evaluator = DetectionEvaluator("set", [record], ["x"], str(tmp_path))
    instances = Instances((9, 9))
    boxes, scores = torch.tensor([[1.0, 1, 5, 5]]), torch.tensor([0.5])
    (boxes[0] if field == "boxes" else scores)[0] = NAN
    instances.pred_boxes, instances.scores = Boxes(boxes), scores
    instances.pred_classes = torch.zeros(1, dtype=torch.int64)
    evaluator.process([record], [{"instances": instances}])
    with pytest.raises(UserError, match=r"not finite, on 1 of 1 images, the first of them a\.png"):
        evaluator.evaluate()
