"""Files of weights: tensors come out of any of them, and code out of none."""

from __future__ import annotations

import argparse
import builtins
import codecs
import errno
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import public_models as public
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from yacs.config import CfgNode

from ulga_d2.cli.main import main
from ulga_d2.errors import UserError
from ulga_d2.weights import share
from ulga_d2.weights.archive import open_archive
from ulga_d2.weights.convert import convert
from ulga_d2.weights.load import read_plain


@pytest.fixture(scope="module")
def vit() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return public.timm_vit()[0]


class Payload:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (os.system, (f"touch {self.canary}",))


def saved_by_torch(value: object, path: Path) -> None:
    torch.save(value, path)


def saved_by_old_torch(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def saved_as_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


SAVES = [saved_by_torch, saved_by_old_torch, saved_as_pickle]


@pytest.mark.parametrize("save", SAVES)
def test_a_call_in_a_pickle_is_refused_by_both_ways_and_never_made(save, tmp_path):
    canary, bad = tmp_path / "canary", tmp_path / "bad.pth"
    save({"model": {"a": Payload(canary)}}, bad)
    with pytest.raises(UserError, match=r"bad\.pth cannot be read as plain tensors: it holds "):
        read_plain(bad)
    with pytest.raises(UserError, match=r"holds the Python object (posix|nt)\.system, which is no"):
        convert(bad, tmp_path / "out.safetensors")
    assert not canary.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


@pytest.mark.parametrize(
    "pickled",
    [
        "c{}\n{}\n(V1\ntR.",
        "(V1\ni{}\n{}\n.",
        "\x80\x04V{}\nV{}\n\x93)\x81.",
        "\x80\x02(c{}\n{}\no.",
    ],
    ids=["GLOBAL", "INST", "STACK_GLOBAL", "OBJ"],
)
@pytest.mark.parametrize(
    "name",
    ["builtins eval", "torch load", "torch.hub load", "numpy load", "posix system", "os system",
     "operator attrgetter", "functools partial", "torch.storage _load_from_bytes", "torch _utils",
     "ulga_d2.weights.convert convert", "collections namedtuple", "argparse Namespace.__init__"],
)  # fmt: skip
def test_no_name_beside_the_listed_ones_is_looked_up(name, pickled, tmp_path, monkeypatch):
    module, function = name.split()
    (tmp_path / "bad.pkl").write_bytes(pickled.format(module, function).encode("latin1"))
    codecs.lookup("raw-unicode-escape")  # Python imports it when a text is first decoded
    monkeypatch.setattr(builtins, "__import__", lambda *_, **__: pytest.fail("an import"))
    with (
        pytest.raises(UserError, match=f"the Python object {module}.{function}"),
        open_archive(tmp_path / "bad.pkl"),
    ):
        pass


@pytest.mark.parametrize(
    "attack",
    [
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",  # another codec, from a module of its own
        b"c_codecs\nencode\n}(V__call__\nK\x01ub.",  # a state for a function of ours
        b"\x80\x02cargparse\nNamespace\n}(V__init__\nK\x01ub.",  # a state for a class of ours
        b"ccollections\nOrderedDict\n}(Vupdate\nK\x01ub.",  # a state for a class of Python's
        b"\x80\x02(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nK\x01tQ",  # cut
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of eight exabytes
        b"(" * 50 + b".",
    ],
)
def test_a_crafted_pickle_ends_in_an_error_and_changes_nothing(attack, tmp_path, vit):
    (tmp_path / "bad.pkl").write_bytes(attack)
    with pytest.raises(UserError, match="is damaged, or holds no weights"):
        convert(tmp_path / "bad.pkl", tmp_path / "out.safetensors")
    saved_as_pickle({"model": {k: v.numpy() for k, v in vit.items()}}, tmp_path / "good.pkl")
    assert convert(tmp_path / "good.pkl", tmp_path / "out.safetensors").written == tuple(vit)


def test_a_tensor_that_reaches_out_of_its_storage_is_refused(tmp_path):
    class Far:
        def __reduce__(self):
            storage = torch.zeros(4).storage()
            return (torch._utils._rebuild_tensor_v2, (storage, 1, (4,), (1,), False, OrderedDict()))

    torch.save({"model": {"a": Far()}}, tmp_path / "far.pth")
    with pytest.raises(UserError, match="reaches out of its storage"):
        convert(tmp_path / "far.pth", tmp_path / "out.safetensors")


def settings() -> list[object]:
    nested = CfgNode({"LR": 0.1, "NESTED": CfgNode({"STEPS": [1, 2]})})
    return [argparse.Namespace(lr=0.1, output=Path("x")), nested, np.float64(83.9), {1, 2}]


@pytest.mark.parametrize("save", [saved_by_torch, saved_by_old_torch])
@pytest.mark.parametrize("value", settings(), ids=lambda value: type(value).__name__)
def test_settings_beside_the_weights_become_nothing(save, value, vit, tmp_path, monkeypatch):
    save({"args": value, "epoch": 3, "model": OrderedDict(vit)}, tmp_path / "in.pth")
    if not isinstance(value, set):
        with pytest.raises(UserError, match=r"`ulga weights convert .*in\.pth OUT\.safetensors`"):
            read_plain(tmp_path / "in.pth")
    for module in ("argparse", "yacs.config"):
        monkeypatch.delitem(sys.modules, module)
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert not {"argparse", "yacs.config"} & set(sys.modules)
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == vit.keys()
    assert all(torch.equal(found[name], vit[name]) for name in vit)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_detectron2s_pickle_of_arrays_converts_bit_for_bit(protocol, vit, tmp_path):
    arrays = {f"backbone.net.{name}": value.numpy() for name, value in vit.items()}
    arrays["backbone.net.pos_embed"] = np.asfortranarray(arrays["backbone.net.pos_embed"])
    arrays["backbone.net.norm.weight"] = arrays["backbone.net.norm.weight"].astype(">f4")
    arrays["backbone.net.note"] = np.array(["text"])
    held = {"model": arrays, "__author__": "third_party", "matching_heuristics": True}
    (tmp_path / "in.pkl").write_bytes(pickle.dumps(held, protocol=protocol))
    with pytest.raises(UserError, match=r"in\.pkl cannot .* `ulga weights convert "):
        read_plain(tmp_path / "in.pkl")
    done = convert(tmp_path / "in.pkl", tmp_path / "out.safetensors")
    assert done.dropped == ("backbone.net.note",)
    found = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(found[f"backbone.net.{name}"], vit[name]) for name in vit)


@pytest.mark.parametrize("save", [saved_by_torch, saved_by_old_torch])
def test_every_kind_of_tensor_keeps_its_values(save, vit, tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    odd = {
        "view": whole[1:3, ::2], "turned": whole.t(), "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3), "half": whole.half(), "bfloat": whole.bfloat16(),
        "index": torch.arange(3), "mask": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(whole),
    }  # fmt: skip
    save({"state_dict": {**vit, **{f"head.{k}": v for k, v in odd.items()}}, "a": settings()[0]},
         tmp_path / "in.pth")  # fmt: skip
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    for name, value in odd.items():
        assert found[f"head.{name}"].dtype == value.dtype
        assert torch.equal(found[f"head.{name}"], value.detach()), name


@pytest.mark.parametrize("save", SAVES)
def test_a_dict_that_holds_itself_is_refused(save, tmp_path):
    endless: dict = {}
    endless["model"] = {"state_dict": endless}
    save(endless, tmp_path / "in.pth")
    with pytest.raises(UserError, match=r"in\.pth nests its weights more than 4 levels deep"):
        convert(tmp_path / "in.pth", tmp_path / "out.safetensors")


def test_a_target_that_cannot_be_written_leaves_nothing_behind(vit, tmp_path, monkeypatch):
    source, target = tmp_path / "in.pth", tmp_path / "out.safetensors"
    torch.save({"model": vit}, source)
    with pytest.raises(UserError, match=r"none/out\.safetensors cannot be written: No such file"):
        convert(source, tmp_path / "none" / "out.safetensors")

    def full_disk(_state: dict, path: Path, _metadata: dict) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def lost(unfinished: Path, _target: Path) -> None:
        assert load_file(unfinished).keys() == vit.keys()
        raise PermissionError(errno.EACCES, "Permission denied", str(unfinished))

    for place, name, function in ((share, "save_file", full_disk), (os, "replace", lost)):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, function)
            with pytest.raises(UserError, match=r"out\.safetensors cannot be written: [NP]\w+ \w+"):
                convert(source, target)
        assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]
    convert(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pth", "out.safetensors"]


def test_the_new_file_names_its_layout_and_source_and_overwrites_nothing(vit, tmp_path, capsys):
    source, target = tmp_path / "deit.pth", tmp_path / "deit.safetensors"
    torch.save({"model": vit, "args": argparse.Namespace()}, source)
    assert main(["weights", "convert", str(source), str(target)]) == 0
    assert f"MODEL.WEIGHTS {target} MODEL.ULGA.VIT.EMBED_DIM 32 " in capsys.readouterr().out
    with safe_open(target, "pt") as file:
        metadata = file.metadata()
    assert metadata["layout"] == "ViT, timm's names" and metadata["source"] == "deit.pth"
    assert len(metadata["source_sha256"]) == 64
    assert main(["weights", "convert", str(source), str(target)]) == 2
    assert "deit.safetensors exists; remove it" in capsys.readouterr().err
    assert main(["weights", "convert", str(source), str(tmp_path / "deit.pt")]) == 2
    assert "give the new file the suffix .safetensors" in capsys.readouterr().err
    assert main(["weights", "inspect", str(target)]) == 0
    assert "ViT, timm's names, " in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut"])
@pytest.mark.parametrize("name", ["in.pth", "in.safetensors"])
def test_a_damaged_or_missing_file_is_named(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        read_plain(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        convert(tmp_path / name, tmp_path / "out.safetensors")
    (tmp_path / name).unlink()
    for read in (read_plain, lambda path: convert(path, tmp_path / "out.safetensors")):
        with pytest.raises(UserError, match=f"{name} (does not exist|cannot be opened)"):
            read(tmp_path / name)
