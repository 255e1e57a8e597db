"""Where a training starts from: interactions on a trained baseline change nothing at first."""

from __future__ import annotations

import shutil
from pathlib import Path

import public_dat
import public_models as public
import pytest
import torch
from conftest import CONFIGS, tiny_args, tiny_options
from torch import Tensor, nn

from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.initial import read_initial, start_from
from ulga_d2.engine.launch import main, run, setup
from ulga_d2.engine.trainer import Trainer, build_seeded_model
from ulga_d2.weights.initialise import BACKBONE

BACKBONES = ("swin", "vit", "dat")
SOURCES = {
    "swin": lambda: public.torchvision_swin()[0],
    "vit": lambda: public.timm_vit()[0],
    "dat": public_dat.state_of,
}
ZERO = {"MODEL__ULGA__FUSE__ZERO_INIT": True}


def class_names(number: int) -> list[str]:
    return [f"class {index}" for index in range(number)]


def model_from(backbone: str, variant: str, path: Path, **changes: object) -> nn.Module:
    """Return a detector as a training with MODEL.WEIGHTS starts with it."""
    cfg = public.config(backbone, variant, **changes)
    cfg.DATASETS.CLASS_NAMES = class_names(cfg.MODEL.RETINANET.NUM_CLASSES)
    model = build_seeded_model(cfg).eval()
    start_from(cfg, model, read_initial(path))
    return model


def outputs(model: nn.Module) -> list[Tensor]:
    """Return what the head says of an image, for every level."""
    torch.manual_seed(7)
    image = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        features = model.backbone(image)
        logits, deltas = model.head([features[name] for name in model.head_in_features])
    return [*logits, *deltas]


def own_baseline(backbone: str, folder: Path) -> Path:
    """Return a checkpoint of ours of the plain model, with no parameter at a special value."""
    torch.save(SOURCES[backbone](), folder / "public.pth")
    model = model_from(backbone, "baseline", folder / "public.pth")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    state = {
        "model": model.state_dict(),
        "iteration": 3,
        "class_names": class_names(model.num_classes),
        "config": "{}",
    }
    return save_checkpoint(folder, "model_final.pth", state)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("mode", ["concat", "sum"])
def test_interactions_put_on_our_own_baseline_change_no_output_at_first(backbone, mode, tmp_path):
    path = own_baseline(backbone, tmp_path)
    plain = outputs(model_from(backbone, "baseline", path))
    attached = model_from(backbone, "ulga", path, **ZERO, MODEL__ULGA__FUSE__MODE=mode)
    assert all(map(torch.equal, outputs(attached), plain))
    at_random = model_from(backbone, "ulga", path, MODEL__ULGA__FUSE__MODE=mode)
    assert not any(map(torch.equal, outputs(at_random), plain))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_interactions_put_on_public_weights_change_no_output_at_first(backbone, tmp_path):
    torch.manual_seed(0)
    torch.save(SOURCES[backbone](), tmp_path / "w.pth")
    attached = model_from(backbone, "ulga", tmp_path / "w.pth", **ZERO)
    plain = model_from(backbone, "baseline", tmp_path / "w.pth")
    # Pyramid and head, which the file has not, are drawn after more draws in the larger model.
    drawn = {
        name: value
        for name, value in attached.state_dict().items()
        if not name.startswith(BACKBONE) or ".to_stage3." in name
    }
    plain.load_state_dict(drawn, strict=False)
    assert all(map(torch.equal, outputs(attached), outputs(plain)))


def args_for(folder: Path, variant: str = "ulga", **changes: object):
    changes = {**public.KEYS["swin"], "SOLVER__MAX_ITER": 1, **changes}
    return tiny_args(folder, leaf=f"brain_tumor_swin_{variant}_nano", **changes)


@pytest.fixture
def public_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(public.torchvision_swin()[0], tmp_path / "swin.pth")
    return tmp_path / "swin.pth"


def test_a_run_trains_from_public_weights_and_logs_the_report(sample_data, public_file, tmp_path):
    args = args_for(tmp_path / "run", MODEL__WEIGHTS=public_file)
    cfg, data, start = setup(args)
    trainer = Trainer(cfg, data, start)
    expected = torch.load(public_file)["features.1.1.attn.qkv.weight"]
    found = trainer.model.backbone.bottom_up.stages["stage2"][1].attn.qkv.weight
    assert torch.equal(found, expected)
    trainer.train()
    assert not torch.equal(found, expected)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "torchvision's names): 117 weights of the backbone loaded" in log
    assert "MODEL.ULGA.FUSE.ZERO_INIT True starts the model as the one that was loaded" in log


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    leaf = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")
    assert run(["--config-file", leaf, *words]) == 2
    return capsys.readouterr().err


def test_a_baselines_checkpoint_starts_a_run_with_interactions_and_is_not_evaluated_as_one(
    sample_data, tmp_path, capsys
):
    main(args_for(tmp_path / "baseline", "baseline"))
    weights = tmp_path / "baseline" / "model_final.pth"
    cfg, data, start = setup(args_for(tmp_path / "run", MODEL__WEIGHTS=weights, **ZERO))
    found, expected = Trainer(cfg, data, start).model.state_dict(), start["model"]
    assert len(found) > len(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert "start at random" not in (tmp_path / "run" / "log.txt").read_text()
    options = tiny_options(tmp_path / "run", **public.KEYS["swin"], MODEL__WEIGHTS=weights)
    message = refused(capsys, "--eval-only", *options)
    assert "do not fit the model of this config" in message and "interaction" in message


def test_public_weights_can_neither_be_evaluated_nor_resumed(
    sample_data, public_file, tmp_path, capsys
):
    options = tiny_options(tmp_path / "run", **public.KEYS["swin"], MODEL__WEIGHTS=public_file)
    message = refused(capsys, "--eval-only", *options)
    assert "not a checkpoint of this project" in message and "cannot be evaluated" in message
    shutil.copy(public_file, tmp_path / "run")
    (tmp_path / "run" / "last_checkpoint").write_text(public_file.name)
    message = refused(capsys, "--resume", *options)
    assert "not a checkpoint of this project" in message and "or resumed" in message


def test_a_number_of_heads_that_a_vits_weights_cannot_tell_is_warned_of(tmp_path, caplog):
    torch.save(public.timm_vit()[0], tmp_path / "w.pth")
    model_from("vit", "baseline", tmp_path / "w.pth")
    assert "MODEL.ULGA.VIT.NUM_HEADS is 2, and published weights of this kind were" in caplog.text


def test_what_no_weight_of_a_dat_shows_is_warned_of_where_the_config_has_it_otherwise(
    tmp_path, caplog
):
    torch.save(SOURCES["dat"](), tmp_path / "w.pth")
    model_from("dat", "baseline", tmp_path / "w.pth")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    changes = {"REF_POINTS": "centred", "OFFSET_STRIDE": [4, 4, 2, 1]}
    changes = {f"MODEL__ULGA__DAT__{key}": value for key, value in changes.items()}
    model_from("dat", "baseline", tmp_path / "w.pth", **changes)
    text = "and published weights of this kind were trained with"
    assert f"MODEL.ULGA.DAT.REF_POINTS is centred, {text} released" in caplog.text
    assert f"MODEL.ULGA.DAT.OFFSET_STRIDE is [4, 4, 2, 1], {text} [8, 4, 2, 1]" in caplog.text


def test_windows_that_a_vits_tables_tell_and_the_config_has_not_are_warned_of(tmp_path, caplog):
    state, _ = public.detectron2_vit(use_rel_pos=True, window_size=4, window_block_indexes=[0, 2])
    torch.save({"model": state}, tmp_path / "w.pth")
    model_from("vit", "baseline", tmp_path / "w.pth", MODEL__ULGA__VIT__REL_POS=True)
    text = "MODEL.ULGA.VIT.WINDOW_SIZE is 0, and these weights were trained with 4"
    assert text in caplog.text and "NUM_HEADS" not in caplog.text
