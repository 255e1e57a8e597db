"""Small files of weights that would take all memory or time are refused, quickly, by one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from hostile_weights import FILES, MEGABYTE, saved
from safetensors.torch import load_file

from ulga_d2.errors import UserError
from ulga_d2.weights.convert import convert
from ulga_d2.weights.load import read_plain

MOST_MB, MOST_SECONDS = 1200, 20


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Return what a child process, watched, made of each file by each reader."""
    folder = tmp_path_factory.mktemp("hostile") / "files"
    folder.mkdir()
    for name, (suffix, make, _) in FILES.items():
        (folder / f"{name}{suffix}").write_bytes(make())
    script = str(Path(__file__).with_name("hostile_weights.py"))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, script, str(folder)],
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", FILES)
def test_a_small_file_made_to_take_all_memory_or_time_is_refused_by_name(outcomes, name):
    found = [line for line in outcomes if line["file"] == name]
    assert len(found) == 4
    told = FILES[name][2]
    for line in found:
        if line["reader"] == "plain" and line["outcome"] == "read":
            continue  # it is harmless, and no checkpoint
        assert line["outcome"].startswith("refused: "), line
        assert line["s"] < MOST_SECONDS, line
    assert any(re.search(told, line["outcome"]) for line in found), found


def test_no_hostile_file_takes_much_memory(outcomes):
    assert max(line["MB"] for line in outcomes) < MOST_MB


def test_checkpoints_are_read_as_torch_reads_them(tmp_path):
    torch.manual_seed(0)
    whole = torch.randn(6, 4)
    state = {
        "model": {"a": whole, "tied": whole, "turned": whole.t(), "part": whole[2:4, 1:3]},
        "more": [1, 2.5, True, None, "x", (1, (2,)), {"a", 1}, b"bytes", 2**70],
        "kinds": [torch.ones(3, dtype=dtype) for dtype in (
            torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool,
            torch.complex64)],
        "new": [torch.ones(3).to(dtype) for dtype in (torch.float8_e4m3fn, torch.uint16)],
        "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5), 3: torch.Size([1, 2]),
        "moments": {0: {"step": torch.tensor(1.0), "betas": (0.9, 0.999)}},
        "parameter": torch.nn.Parameter(torch.ones(2)), "type": torch.float32,
    }  # fmt: skip
    for legacy in (False, True):
        if legacy:
            del state["new"]
        (tmp_path / "x.pth").write_bytes(saved(state, legacy=legacy))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = torch.load(tmp_path / "x.pth", weights_only=True)
        same(read_plain(tmp_path / "x.pth"), theirs)


def same(ours: object, theirs: object) -> None:
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        flat = (tensor.detach().reshape(-1).view(torch.uint8) for tensor in (ours, theirs))
        assert torch.equal(*flat)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            same(ours[key], value)
    elif isinstance(theirs, (list, tuple)):
        assert isinstance(theirs, type(ours)) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    else:
        assert ours == theirs and type(ours) is type(theirs)


@pytest.mark.parametrize("layout", ["sparse", "compressed", "meta"])
def test_tensors_without_plain_values_are_not_taken_for_code(tmp_path, layout):
    make = {
        "sparse": lambda: torch.eye(3).to_sparse(),
        "compressed": lambda: torch.eye(3).to_sparse_csr(),
        "meta": lambda: torch.empty(3, device="meta"),
    }[layout]
    torch.save({"model": {"weight": make()}}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"odd\.pth holds a sparse, quantized or meta tensor"):
        read_plain(tmp_path / "odd.pth")


def test_tied_weights_stay_legal_and_are_written_out(tmp_path):
    import public_models

    state = public_models.timm_vit()[0]
    tied = torch.randn(MEGABYTE // 4)
    state |= {f"head.{i}.weight": tied for i in range(20)}
    torch.save({"model": state}, tmp_path / "in.pth")
    same(read_plain(tmp_path / "in.pth")["model"], dict(state))
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_a_tensor_that_is_called_as_the_formats_own_entry_is_refused_by_name(tmp_path):
    import public_models

    state = {**public_models.timm_vit()[0], "__metadata__": torch.ones(1)}
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(UserError, match="a tensor is called __metadata__"):
        convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]
