"""`ulga weights inspect`: what a file is, which options fit it, and which of them are guesses."""

from __future__ import annotations

from pathlib import Path

import public_dat
import public_models as public
import pytest
import torch
from torch import Tensor

from ulga_d2.cli.main import main
from ulga_d2.engine.checkpoint import save_checkpoint


@pytest.fixture
def inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Return a function from weights to what the command prints of a file of them."""

    def inspect(state: dict[str, Tensor], name: str = "w.pth") -> list[str]:
        torch.save(state, tmp_path / name)
        assert main(["weights", "inspect", str(tmp_path / name)]) == 0
        return capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines()

    return inspect


GUESS = "not seen in the file, a guess after published ones: "


def test_a_vit_has_a_guessed_number_of_heads(inspected):
    vit = "MODEL.ULGA.VIT"
    assert inspected(public.timm_vit()[0]) == [
        "ViT, timm's names, 53 weights of the backbone",
        "not used: the class token: 1 (cls_token)",
        "not used: the classifier: 2 (head.weight, head.bias)",
        "options that fit its sizes, with MODEL.BACKBONE.NAME "
        "build_retinanet_ulga_vit_fpn_backbone:",
        f"  MODEL.WEIGHTS w.pth {vit}.EMBED_DIM 32 {vit}.DEPTH 4 {vit}.GRID_SIZE 8 "
        f"{vit}.MLP_RATIO 4.0 {vit}.NUM_HEADS 1",
        f"{GUESS}NUM_HEADS",
    ]


def test_a_vit_with_tables_by_head_and_a_swin_have_no_guesses(inspected):
    with_tables = inspected({"model": public.detectron2_vit(use_rel_pos=True)[0]})
    assert "MODEL.ULGA.VIT.NUM_HEADS 2" in with_tables[-1]
    swin = inspected(public.torchvision_swin()[0], "my swin.pth")
    assert swin[-1].startswith("  MODEL.WEIGHTS 'my swin.pth' MODEL.ULGA.SWIN.EMBED_DIM 8 ")


def test_a_dat_has_guessed_strides_and_reference_points(inspected):
    assert inspected(public_dat.state_of())[-1] == f"{GUESS}OFFSET_STRIDE, REF_POINTS"


def test_a_file_without_what_tells_its_sizes_is_said_to_start_no_training(inspected):
    state = public_dat.state_of()
    del state["patch_proj.3.bias"], state["stages.3.mlps.0.linear1.0.weight"]
    assert "MODEL.WEIGHTS w.pth MODEL.ULGA.DAT.EMBED_DIM 8" in inspected(state)[-2]
    del state["stages.0.mlps.0.linear1.0.weight"], state["stages.0.mlps.1.linear1.0.weight"]
    assert inspected(state)[1:] == [
        "not used: the classifier and its norm: 4 (cls_norm.norm.weight, cls_norm.norm.bias, "
        "cls_head.weight, ...)",
        "no training can start from it: weights that tell its sizes are missing or misshapen",
    ]


def test_a_checkpoint_of_ours_is_named_with_its_iteration_and_classes(tmp_path, capsys):
    state = {"model": {}, "iteration": 40, "class_names": ["glioma", "pituitary"]}
    path = save_checkpoint(tmp_path, "model_final.pth", state)
    assert main(["weights", "inspect", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a checkpoint of this project, iteration 40",
        "classes: glioma, pituitary",
        "to train from it, or with --eval-only to evaluate it: its run's config.yaml, and",
        f"  MODEL.WEIGHTS {path}",
    ]
    save_checkpoint(tmp_path, "model_final.pth", {"model": {}})
    assert main(["weights", "inspect", str(path)]) == 0
    assert capsys.readouterr().out.startswith("a checkpoint of this project\nto train from it")
    assert main(["weights", "convert", str(path), str(tmp_path / "w.safetensors")]) == 2
    assert "is a checkpoint of this project and no public one" in capsys.readouterr().err
    assert not (tmp_path / "w.safetensors").exists()
