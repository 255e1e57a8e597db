"""What the benchmarks compare computes the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import loader, peers
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
