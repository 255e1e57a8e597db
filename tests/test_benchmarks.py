"""What the benchmarks compare computes the same numbers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import context_reach, loader, peers
from benchmarks.timing import Times


@pytest.mark.parametrize("pair", [peers.swin_pair, lambda: peers.vit_pair(8), peers.dat_pair])
def test_a_pair_with_equal_weights_gives_equal_maps(pair):
    torch.manual_seed(0)
    ours, theirs = pair()
    assert peers.largest_difference(ours, theirs, torch.randn(1, 3, 128, 128)) <= 1e-5


def test_a_ratio_is_taken_within_rounds_and_can_leave_out_a_base():
    times = Times({"ours": [2.0, 6.0, 4.0], "peer": [1.0, 2.0, 4.0], "base": [1.0, 2.0, 2.0]})
    assert str(times.ratio("ours", "peer")) == "2.00 [1.00-3.00]"
    assert str(times.ratio("ours", "peer", minus="base")) == "1.00 [0.50-2.00]"


@pytest.mark.parametrize("suffix", ["png", "jpg", "dcm"])
def test_the_two_mappers_have_equal_work_to_do(tmp_path, suffix):
    (record,) = loader.records_of(tmp_path, suffix, 1)
    mapped = {}
    for name, mapper in loader.mappers().items():
        if suffix == "dcm" and name == "detectron2":
            continue
        np.random.seed(0)
        mapped[name] = mapper(record)
    for name in mapped:
        assert mapped[name]["image"].shape == (3, 512, 512)
        assert len(mapped[name]["instances"]) == len(loader.BOXES)
    if len(mapped) == 2:
        ours, theirs = (mapped[name]["image"].float() for name in ("ours", "detectron2"))
        either_way = min((ours - theirs).abs().mean(), (ours - theirs.flip(2)).abs().mean())
        assert either_way < 2


class Pixels(nn.Module):
    """A backbone of one level: each pixel, and the mean of all pixels."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = mean

    def output_shape(self):
        return {"p4": SimpleNamespace(stride=1)}

    def forward(self, batch):
        return {"p4": batch + self.mean * batch.mean(dim=(2, 3), keepdim=True)}


class Seer(nn.Module):
    """A detector of two classes that are each other's opposite."""

    head_in_features = ("p4",)

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.backbone = Pixels(mean)

    def preprocess_image(self, inputs):
        return SimpleNamespace(tensor=inputs[0]["image"][None].float())

    def head(self, maps):
        one = maps[0].sum(dim=1, keepdim=True)
        return [torch.cat((one, -one), dim=1)], None


@pytest.mark.parametrize("mean", [0.0, 1.0, 3.0])
def test_the_share_of_a_gradient_beyond_the_sign_is_that_of_a_known_field(mean):
    scene = context_reach.scene_of(0, {"difficulty": "easy", "size": 64})
    left, top, right, bottom = scene.objects[0].box
    rows, columns = np.mgrid[:64, :64] + 0.5
    far = np.hypot(rows - (top + bottom) / 2, columns - (left + right) / 2) >= 0.47 * 64
    found = context_reach.far_share(Seer(mean), scene)
    assert found == pytest.approx(far.mean() * mean / (1 + mean), rel=1e-3)
