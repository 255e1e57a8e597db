"""Public checkpoints: read through MODEL.WEIGHTS, a backbone of ours computes what theirs does."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import public_models as public
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ulga_d2.engine.initial import read_initial, start_from
from ulga_d2.inference.model import build_seeded_model
from ulga_d2.weights.initialise import initialise


def started(cfg: object, path: Path) -> nn.Module:
    model = build_seeded_model(cfg).eval()
    start_from(cfg, model, read_initial(path))
    return model


def maps_of(backbone: nn.Module, image: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [value.permute(0, 2, 3, 1) for value in backbone(image).values()]


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def saved_plain(state: dict, path: Path) -> Path:
    torch.save(state, path / "weights.pth")
    return path / "weights.pth"


def saved_in_a_trainers_checkpoint(state: dict, path: Path) -> Path:
    state = {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": state, "epoch": 3, "optimizer": {"state": {}}}, path / "last.pth.tar")
    return path / "last.pth.tar"


def saved_as_safetensors(state: dict, path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in state.items()}, path / "w.safetensors")
    return path / "w.safetensors"


def saved_in_a_detector(state: dict, path: Path) -> Path:
    state = {f"backbone.bottom_up.{name}": value for name, value in state.items()}
    state["backbone.fpn_lateral2.weight"] = state["proposal_generator.x"] = torch.ones(1)
    torch.save({"model": state, "iteration": 9}, path / "model_final.pth")
    return path / "model_final.pth"


SWINS = [
    ("timm", public.timm_swin, saved_as_safetensors),
    ("timm", public.timm_swin_of_feature_maps, saved_plain),
    ("torchvision", public.torchvision_swin, saved_plain),
    ("Microsoft", public.microsoft_swin, saved_in_a_trainers_checkpoint),
]


@pytest.mark.parametrize(("whose", "source", "save"), SWINS)
def test_a_classifiers_swin_gives_its_maps(whose, source, save, tmp_path):
    torch.manual_seed(0)
    state, maps = source()
    path = save(state, tmp_path)
    assert f"{whose}'s" in read_initial(path).layout.name
    model = started(public.config("swin"), path)
    image = torch.randn(1, 3, public.SIDE, public.SIDE)
    with torch.no_grad():
        expected = [F.layer_norm(value, value.shape[-1:]) for value in maps(image)]
    for found, value in zip(maps_of(model.backbone.bottom_up, image), expected, strict=True):
        assert_close(found, value)


def test_detectron2s_swin_gives_its_maps_with_the_norms_of_its_maps(tmp_path):
    torch.manual_seed(0)
    state, maps = public.detectron2_swin()
    model = started(public.config("swin"), saved_in_a_detector(state, tmp_path))
    image = torch.randn(2, 3, 97, 131)
    with torch.no_grad():
        expected = maps(image)
    for found, value in zip(maps_of(model.backbone.bottom_up, image), expected, strict=True):
        assert_close(found, value)


VITS = [
    ("timm", public.timm_vit, saved_plain),
    ("timm", partial(public.timm_vit, class_token=False, global_pool="avg", fc_norm=False),
     saved_as_safetensors),
    ("torchvision", public.torchvision_vit, saved_plain),
    ("torchvision", public.torchvision_vit_as_published, saved_in_a_trainers_checkpoint),
]  # fmt: skip


@pytest.mark.parametrize(("whose", "source", "save"), VITS)
def test_a_classifiers_vit_gives_the_map_of_the_images_tokens(whose, source, save, tmp_path):
    torch.manual_seed(0)
    state, maps = source()
    path = save(state, tmp_path)
    assert f"{whose}'s" in read_initial(path).layout.name
    model = started(public.config("vit"), path)
    image = torch.randn(2, 3, public.VIT_SIDE, public.VIT_SIDE)
    with torch.no_grad():
        (expected,) = maps(image)
    assert_close(maps_of(model.backbone.bottom_up, image)[1], expected)


NORMLESS = [
    ("detectron2", public.detectron2_vit),
    ("detectron2", partial(public.detectron2_vit, pretrain_use_cls_token=False, use_rel_pos=True)),
    ("detectron2", partial(public.detectron2_vit, use_rel_pos=True, window_size=3,
                           window_block_indexes=[0, 2])),
    ("timm", partial(public.timm_vit, class_token=False, global_pool="avg")),
]  # fmt: skip


@pytest.mark.parametrize(("whose", "source"), NORMLESS)
def test_a_vit_without_a_last_norm_gives_its_tokens_with_the_sizes_read_off_it(
    whose, source, tmp_path
):
    torch.manual_seed(0)
    state, maps = source()
    torch.save({"model": {f"backbone.net.{k}": v for k, v in state.items()}}, tmp_path / "w")
    start = read_initial(tmp_path / "w")
    assert f"{whose}'s" in start.layout.name
    sizes = start.layout.sizes(start.tensors)
    cfg = public.config("vit", **{f"MODEL__ULGA__VIT__{key}": sizes[key] for key in sizes})
    model = build_seeded_model(cfg).eval()
    report = initialise(model, start)
    assert not report.resized
    assert "backbone.bottom_up.norm.weight" in report.absent
    image = torch.randn(2, 3, public.VIT_SIDE, public.VIT_SIDE)
    with torch.no_grad():
        assert_close(model.backbone.bottom_up.tokens(image), maps(image)[0])
