"""A training that starts from a checkpoint with other classes keeps what fits by class name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONFIGS, tiny_args, tiny_options
from detectron2.config import CfgNode
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from torch import Tensor, nn

from ulga_d2 import get_cfg
from ulga_d2.config import default_category_ids, merge_config, resolve_classes
from ulga_d2.engine.initial import start_from
from ulga_d2.engine.launch import main, run, setup
from ulga_d2.engine.trainer import Trainer
from ulga_d2.errors import UserError
from ulga_d2.inference.model import build_seeded_model
from ulga_d2.weights.checkpoint import load_checkpoint
from ulga_d2.weights.share import SharedInfo, write_shared

OLD = ("solid", "ring", "mottled")
RENAMED = ("solid", "circle", "mottled")
EXTENDED = ("solid", "ring", "mottled", "star")
REORDERED = ("mottled", "solid", "ring")
REDUCED = ("mottled",)
STRANGE = ("star", "cross")
LISTS = [RENAMED, EXTENDED, REORDERED, REDUCED, STRANGE]
TINY_HEADS = {
    "MODEL__ROI_BOX_HEAD__FC_DIM": 16,
    "MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 2,
    "MODEL__ROI_MASK_HEAD__POOLER_RESOLUTION": 2,
    "MODEL__ROI_MASK_HEAD__CONV_DIM": 32,
    "MODEL__ROI_MASK_HEAD__NUM_CONV": 1,
}
RETINANET, MASK_RCNN = "brain_tumor_swin_baseline_nano", "cod10k_mask_swin_ulga_nano"


def config(leaf: str, classes: tuple[str, ...], **changes: object) -> CfgNode:
    cfg = get_cfg()
    changes = {**TINY_HEADS, **changes}
    merge_config(cfg, str(CONFIGS / f"{leaf}.yaml"), tiny_options(Path("unused"), **changes))
    resolve_classes(cfg, classes, default_category_ids(len(classes)))
    return cfg


def randomized(cfg: CfgNode) -> dict[str, Tensor]:
    """Return weights in which no two rows are equal."""
    model = build_seeded_model(cfg)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return dict(model.state_dict())


def started(cfg: CfgNode, old: tuple[str, ...], weights: dict[str, Tensor]) -> nn.Module:
    model = build_seeded_model(cfg).eval()
    start_from(cfg, model, {"model": weights, "class_names": list(old)})
    return model


def check_rows(found: Tensor, initial: Tensor, given: Tensor, pairs: dict[int, int]) -> None:
    """Compare each row with the given row that `pairs` names, or with its initial value."""
    assert len(found) == len(initial)
    for row in range(len(found)):
        expected = given[pairs[row]] if row in pairs else initial[row]
        assert torch.equal(found[row], expected), row


def row_pairs(new: tuple[str, ...], groups: int = 1, rows: int = 1, background: bool = False):
    """Return the old row of each new row that is kept, written out as loops."""
    pairs = {}
    old_classes, new_classes = [*OLD], [*new]
    if background:
        old_classes.append("")
        new_classes.append("")
    for group in range(groups):
        for number, name in enumerate(new_classes):
            if name in old_classes:
                for part in range(rows):
                    target = (group * len(new_classes) + number) * rows + part
                    source = (group * len(old_classes) + old_classes.index(name)) * rows + part
                    pairs[target] = source
    return pairs


def check_heads(model: nn.Module, initial: nn.Module, given: dict, pairs_of: dict) -> None:
    """Compare the named modules row by row, and all other parameters as they are."""
    found, initial = model.state_dict(), initial.state_dict()
    for name, value in found.items():
        module = name.rpartition(".")[0]
        if module in pairs_of:
            check_rows(value, initial[name], given[name], pairs_of[module])
        else:
            assert torch.equal(value, given[name]), name


@pytest.mark.parametrize("new", LISTS)
def test_retinanets_classifier_keeps_the_rows_of_equal_names_for_every_anchor(new):
    given = randomized(config(RETINANET, OLD))
    cfg = config(RETINANET, new)
    anchors = given["head.cls_score.weight"].shape[0] // len(OLD)
    assert anchors == 9
    pairs_of = {"head.cls_score": row_pairs(new, groups=anchors)}
    check_heads(started(cfg, OLD, given), build_seeded_model(cfg), given, pairs_of)


@pytest.mark.parametrize("new", LISTS)
def test_mask_rcnns_heads_keep_the_rows_of_equal_names_and_the_background(new):
    given = randomized(config(MASK_RCNN, OLD))
    cfg = config(MASK_RCNN, new)
    pairs_of = {
        "roi_heads.box_predictor.cls_score": row_pairs(new, background=True),
        "roi_heads.box_predictor.bbox_pred": row_pairs(new, rows=4),
        "roi_heads.mask_head.predictor": row_pairs(new),
    }
    assert len(given["roi_heads.box_predictor.cls_score.weight"]) == 4
    check_heads(started(cfg, OLD, given), build_seeded_model(cfg), given, pairs_of)


@pytest.mark.parametrize("new", [REDUCED, STRANGE])
def test_class_agnostic_heads_are_loaded_whole(new):
    agnostic = {
        "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True,
        "MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK": True,
    }
    given = randomized(config(MASK_RCNN, OLD, **agnostic))
    cfg = config(MASK_RCNN, new, **agnostic)
    pairs_of = {"roi_heads.box_predictor.cls_score": row_pairs(new, background=True)}
    check_heads(started(cfg, OLD, given), build_seeded_model(cfg), given, pairs_of)


def test_a_renamed_single_class_is_reset_although_its_shape_fits():
    given = randomized(config(RETINANET, ("cell",)))
    cfg = config(RETINANET, ("nucleus",))
    found, initial = started(cfg, ("cell",), given), build_seeded_model(cfg)
    assert torch.equal(found.head.cls_score.weight, initial.head.cls_score.weight)
    assert torch.equal(found.head.bbox_pred.weight, given["head.bbox_pred.weight"])


def logits(model: nn.Module, classes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the logits of each class on one image, by detectron2's reading of the rows."""
    torch.manual_seed(3)
    with torch.no_grad():
        features = model.backbone(torch.randn(1, 3, 64, 64))
        levels, _ = model.head([features[name] for name in model.head_in_features])
    rows = torch.cat([permute_to_N_HWA_K(level, len(classes)) for level in levels], dim=1)
    return {name: rows[..., number] for number, name in enumerate(classes)}


@pytest.mark.parametrize("new", LISTS)
def test_the_logits_of_kept_classes_are_equal_bit_for_bit(new):
    old_cfg = config(RETINANET, OLD)
    given = randomized(old_cfg)
    before = logits(started(old_cfg, OLD, given), OLD)
    after = logits(started(config(RETINANET, new), OLD, given), new)
    assert all(torch.equal(after[name], before[name]) for name in new if name in OLD)
    assert not any(torch.equal(after[name], before["ring"]) for name in new if name != "ring")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"MODEL__FPN__OUT_CHANNELS": 64}, "backbone.fpn_lateral3.weight"),
        ({"MODEL__RETINANET__NUM_CONVS": 2}, "head.cls_subnet"),
        ({"MODEL__ANCHOR_GENERATOR__SIZES": [[16], [32], [64]]}, "head.cls_score.weight"),
    ],
)
def test_other_classes_do_not_make_another_model_fit(changes, name):
    given = randomized(config(RETINANET, OLD))
    with pytest.raises(UserError, match=r"do not fit the model of this config:(.|\n)*" + name):
        started(config(RETINANET, EXTENDED, **changes), OLD, given)


def test_a_lost_parameter_is_refused_with_other_classes_too():
    given = randomized(config(RETINANET, OLD))
    del given["head.cls_score.bias"]
    with pytest.raises(UserError, match=r"Missing key.*head\.cls_score\.bias"):
        started(config(RETINANET, EXTENDED), OLD, given)


# --- a run on the sample ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a run on the sample's own classes."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        main(tiny_args(folder, leaf=RETINANET))
    return folder / "model_final.pth"


def options_for(
    folder: Path, root: Path, classes: tuple[str, ...], **changes: object
) -> dict[str, object]:
    """Describe the sample with other class names, and return the options of a run on it."""
    splits = {
        split: {"images": f"images/{split}", "labels": f"labels/{split}"}
        for split in ("train", "val")
    }
    content = {"name": "other", "format": "yolo", "root": str(root / "brain_tumor")}
    path = folder / "other.yaml"
    path.write_text(yaml.safe_dump({**content, "class_names": list(classes), "splits": splits}))
    sets = {"TRAIN": "('other_train',)", "TEST": "('other_val',)", "CUSTOM": path}
    return {**{f"DATASETS__{key}": value for key, value in sets.items()}, **changes}


def as_safetensors(checkpoint: Path, folder: Path) -> Path:
    state = load_checkpoint(checkpoint)
    info = SharedInfo(state["config"], tuple(state["class_names"]), state["iteration"], {}, {})
    write_shared(folder / "shared.safetensors", state["model"], info)
    return folder / "shared.safetensors"


@pytest.mark.parametrize("new", [RENAMED, EXTENDED, REORDERED])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_step_0_of_a_fine_tuning_keeps_the_logits_of_equal_names(
    new, suffix, trained, sample_root, tmp_path
):
    weights = trained if suffix == ".pth" else as_safetensors(trained, tmp_path)
    options = options_for(tmp_path, sample_root, new, MODEL__WEIGHTS=weights)
    cfg, data, state = setup(tiny_args(tmp_path / "run", leaf=RETINANET, **options))
    assert tuple(state["class_names"]) == OLD and data.class_names == new
    model = Trainer(cfg, data, state).model.eval()
    source = build_seeded_model(config(RETINANET, OLD)).eval()
    source.load_state_dict(state["model"])
    before, after = logits(source, OLD), logits(model, new)
    kept = [name for name in new if name in OLD]
    assert all(torch.equal(after[name], before[name]) for name in kept) and len(kept) >= 2
    initial = build_seeded_model(cfg).head.cls_score.bias.reshape(9, len(new))
    found = model.head.cls_score.bias.reshape(9, len(new))
    added = [number for number, name in enumerate(new) if name not in OLD]
    assert torch.equal(found[:, added], initial[:, added])
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"classes that keep their rows: {', '.join(kept)}\n" in log
    partly = "head.cls_score.bias, head.cls_score.weight" if added else "none"
    assert f"parameters kept in part: {partly}\n" in log
    assert "parameters reset to their initial values: none\n" in log


def test_a_fine_tuning_trains_to_the_end_and_can_be_resumed(trained, sample_root, tmp_path):
    options = options_for(tmp_path, sample_root, STRANGE + ("ring",), MODEL__WEIGHTS=trained)
    argv = ["--config-file", str(CONFIGS / f"{RETINANET}.yaml")]
    words = tiny_options(tmp_path / "run", **options)
    assert run([*argv, *words]) == 0
    state = load_checkpoint(tmp_path / "run" / "model_final.pth")
    assert state["class_names"] == ["star", "cross", "ring"]
    assert run([*argv, "--resume", *words]) == 0
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["DATASETS"]["CLASS_NAMES"] == state["class_names"]


def test_evaluation_and_resume_refuse_other_classes_and_name_what_works(
    trained, sample_root, tmp_path, capsys
):
    options = options_for(tmp_path, sample_root, REORDERED, MODEL__WEIGHTS=trained)
    argv = ["--config-file", str(CONFIGS / f"{RETINANET}.yaml")]
    assert run([*argv, "--eval-only", *tiny_options(tmp_path / "eval", **options)]) == 2
    message = capsys.readouterr().err
    assert str(list(OLD)) in message and str(list(REORDERED)) in message
    assert f"leave --resume and --eval-only out, and give MODEL.WEIGHTS {trained}" in message
    words = tiny_options(trained.parent, **options)
    assert run([*argv, "--resume", *words]) == 2
    message = capsys.readouterr().err
    assert f"give MODEL.WEIGHTS {trained} and another OUTPUT_DIR" in message
    before = os.stat(trained).st_mtime_ns
    assert run([*argv, *tiny_options(tmp_path / "new", **options)]) == 0  # what the message names
    assert os.stat(trained).st_mtime_ns == before
