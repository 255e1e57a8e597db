"""Weights to share: whole, described, checked, and taken wherever a checkpoint's weights are."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_args
from safetensors import safe_open
from safetensors.torch import save_file

from ulga_d2.cli.main import main as ulga
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint
from ulga_d2.weights.digest import file_sha256
from ulga_d2.weights.load import read_plain
from ulga_d2.weights.share import ABOUT, SharedInfo, read_safetensors, write_shared

INFO = SharedInfo("SEED: 0\n", ("ring", "solid"), 12, {"bbox/AP": 1.5, "bbox/APl": None}, {"x": 1})
WEIGHTS = {
    "weight": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
    "half": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "shared.safetensors"
    write_shared(path, WEIGHTS, INFO)
    return path


def test_what_was_written_is_read_with_what_it_is(tmp_path):
    path = tmp_path / "shared.safetensors"
    assert write_shared(path, WEIGHTS, INFO) == file_sha256(path)
    tensors, info = read_safetensors(path)
    assert info == INFO
    assert tensors.keys() == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_any_other_program_can_read_the_weights_and_the_words(shared):
    with safe_open(shared, "np") as file:
        assert json.loads(file.metadata()[ABOUT])["class_names"] == ["ring", "solid"]
        assert file.get_tensor("count") == 7


def test_tensors_that_share_memory_are_written_each(tmp_path):
    tied = torch.ones(3)
    write_shared(tmp_path / "tied.safetensors", {"a": tied, "b": tied}, INFO)
    assert read_safetensors(tmp_path / "tied.safetensors")[0]["b"].tolist() == [1, 1, 1]


def test_nothing_is_written_over_or_left_half_written(shared, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"shared\.safetensors exists"):
        write_shared(shared, WEIGHTS, INFO)
    with pytest.raises(UserError, match="give the new file the suffix"):
        write_shared(tmp_path / "x.pth", WEIGHTS, INFO)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ulga_d2.weights.share.save_file", fail)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        write_shared(tmp_path / "y.safetensors", WEIGHTS, INFO)
    assert [path.name for path in tmp_path.iterdir()] == ["shared.safetensors"]


def test_a_flipped_bit_of_a_weight_or_of_the_words_is_named(shared):
    whole = shared.read_bytes()
    for content in (WEIGHTS["weight"].contiguous().numpy().tobytes(), b"SEED: 0", b"ring"):
        place = whole.index(content)
        for bit in range(8 * len(content)):
            damaged = bytearray(whole)
            damaged[place + bit // 8] ^= 1 << bit % 8
            shared.write_bytes(damaged)
            with pytest.raises(UserError, match=r"shared\.safetensors"):
                read_plain(shared)


def test_bytes_after_the_end_and_before_it_are_refused(shared):
    whole = shared.read_bytes()
    for content in (whole + b"x", whole + b"PK\x03\x04", whole[:-1], whole[: len(whole) // 2]):
        shared.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            read_plain(shared)


def resealed(path: Path, about: object) -> None:
    """Write metadata with a sha256 that fits them, as anyone can."""
    text = about if isinstance(about, str) else json.dumps(about)
    from ulga_d2.weights import share

    metadata = {share.MARK: share.VERSION, ABOUT: text, "sha256": share._sha256({}, text)}
    save_file({}, path, metadata)


GOOD = {"config": "", "class_names": ["a"], "iteration": 1, "metrics": {}, "data": {}}


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ("no JSON", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ([], "not the keys"),
        ({**GOOD, "more": 1}, "not the keys"),
        ({**GOOD, "class_names": []}, "no names"),
        ({**GOOD, "class_names": [1]}, "no names"),
        ({**GOOD, "class_names": "a"}, "no list of classes"),
        ({**GOOD, "iteration": True}, "the iteration True"),
        ({**GOOD, "iteration": -1}, "the iteration -1"),
        ({**GOOD, "metrics": []}, "no metrics"),
        ({**GOOD, "config": None}, "no config"),
    ],
)
def test_words_that_are_none_are_refused_although_their_sha256_fits(tmp_path, about, told):
    resealed(tmp_path / "odd.safetensors", about)
    with pytest.raises(UserError, match=rf"does not say what it holds.*{told}"):
        read_plain(tmp_path / "odd.safetensors")


def test_a_kind_that_is_not_known_is_named(tmp_path):
    save_file({}, tmp_path / "new.safetensors", {"ulga_d2": "weights 9"})
    with pytest.raises(UserError, match=r"kind 'weights 9', which another version"):
        read_plain(tmp_path / "new.safetensors")


def test_a_header_that_claims_to_be_huge_is_refused_unread(tmp_path):
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(UserError, match="damaged"):
        read_plain(tmp_path / "huge.safetensors")


def test_shared_weights_are_evaluated_and_started_from_as_their_checkpoint(
    sample_data, tmp_path, capsys
):
    main(tiny_args(tmp_path / "run"))
    state = load_checkpoint(tmp_path / "run" / "model_final.pth")
    info = replace(INFO, config=state["config"], class_names=tuple(state["class_names"]))
    path = tmp_path / "shared.safetensors"
    write_shared(path, state["model"], info)
    for weights, folder in ((path, "shared"), (tmp_path / "run" / "model_final.pth", "own")):
        main(tiny_args(tmp_path / folder, eval_only=True, MODEL__WEIGHTS=weights))
        main(tiny_args(tmp_path / f"{folder}_start", MODEL__WEIGHTS=weights, SOLVER__MAX_ITER=1))
    pairs = [tmp_path / name / "inference" / "metrics.json" for name in ("shared", "own")]
    assert pairs[0].read_bytes() == pairs[1].read_bytes()
    ends = [load_checkpoint(tmp_path / f"{n}_start" / "model_final.pth") for n in ("shared", "own")]
    assert all(torch.equal(ends[0]["model"][n], value) for n, value in ends[1]["model"].items())
    capsys.readouterr()
    assert ulga(["weights", "inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "a checkpoint of this project, iteration 12" in printed
    assert "solid, ring, mottled" in printed


def test_a_header_of_many_names_one_of_them_twice_is_refused_in_linear_time(tmp_path):
    entry = '{"dtype":"F32","shape":[],"data_offsets":[0,4]}'
    names = [*range(50_000), 49_999]
    header = "{" + ",".join(f'"t{name}":{entry}' for name in names) + "}"
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    start = time.perf_counter()
    with pytest.raises(UserError, match="its header: .*'t49999' stands twice"):
        read_safetensors(path)
    assert time.perf_counter() - start < 5
