"""Files that try to run code when they are read: none does, by whatever reader."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import payloads
import pytest
from conftest import REPOSITORY, tiny_args
from payloads import CALLS, OTHERS, PICKLED, PLACES, WRITERS, as_zip, touch

from ulga_d2.cli.main import main as ulga
from ulga_d2.engine.initial import read_initial
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint, load_last

SOURCES = sorted((REPOSITORY / "ulga_d2").rglob("*.py"))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def check_every_reader(path: Path, folder: Path) -> None:
    """Have the file refused by all that read weights."""
    for read in (load_checkpoint, read_initial):
        with pytest.raises(UserError, match=path.name):
            read(path)
    run = folder / "run"
    run.mkdir()
    (run / "model_final.pth").write_bytes(path.read_bytes())
    (run / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(UserError, match=r"model_final\.pth"):
        load_last(run)
    assert ulga(["weights", "inspect", str(path)]) == 2
    out = folder / "out.safetensors"
    assert ulga(["weights", "convert", str(path), str(out)]) == 2
    assert not out.exists()


@pytest.mark.parametrize(("writer", "place", "call"), PICKLED)
def test_a_pickled_call_is_never_made(tmp_path, canary, capsys, writer, place, call):
    payload = PLACES[place](getattr(payloads, call)(canary))
    path = tmp_path / "payload.bin"
    WRITERS[writer](payload, path)
    check_every_reader(path, tmp_path)
    assert not canary.exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", OTHERS)
def test_a_crafted_file_is_refused_by_name(tmp_path, canary, capsys, name):
    path = tmp_path / name.split(":")[0]
    path.write_bytes(OTHERS[name])
    check_every_reader(path, tmp_path)
    assert not canary.exists()
    assert not (tmp_path.parent / "canary").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_there_are_forty_payloads_and_each_call_would_work_if_it_were_made(tmp_path, canary):
    assert len(PICKLED) + len(OTHERS) >= 40
    for call in CALLS:
        pickle.loads(pickle.dumps(call(canary)))
        assert canary.exists(), call.__name__
        canary.unlink()


@pytest.mark.parametrize("flag", ["eval_only", "resume", "start"])
def test_a_run_refuses_a_payload_on_every_way_in(sample_data, tmp_path, canary, flag):
    run = tmp_path / "run"
    run.mkdir()
    place = run if flag == "resume" else tmp_path
    path = place / "model_final.pth"
    as_zip(PLACES["in the model"](touch(canary)), path)
    weights = {} if flag == "resume" else {"MODEL__WEIGHTS": path}
    flags = {flag: True} if flag != "start" else {}
    with pytest.raises(UserError, match=r"model_final\.pth .*could run code"):
        main(tiny_args(run, **flags, **weights))
    assert not canary.exists()


def test_the_checkpointers_of_detectron2_and_fvcore_are_on_no_path(
    sample_data, tmp_path, monkeypatch
):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("another checkpointer has been used")

    for name in (
        "fvcore.common.checkpoint.Checkpointer.__init__",
        "detectron2.checkpoint.DetectionCheckpointer.__init__",
        "detectron2.checkpoint.DetectionCheckpointer.load",
    ):
        monkeypatch.setattr(name, refuse)
    main(tiny_args(tmp_path / "run"))
    weights = tmp_path / "run" / "model_final.pth"
    main(tiny_args(tmp_path / "eval", eval_only=True, MODEL__WEIGHTS=weights))
    main(tiny_args(tmp_path / "start", MODEL__WEIGHTS=weights, SOLVER__MAX_ITER=1))
    main(tiny_args(tmp_path / "run", resume=True, SOLVER__MAX_ITER=5))


def test_no_module_names_another_checkpointer_or_an_unpickler_beside_ours():
    named = {
        (path.name, node.attr if isinstance(node, ast.Attribute) else node.name)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Attribute, ast.alias))
    }
    for name in ("DetectionCheckpointer", "Checkpointer", "DefaultPredictor", "DefaultTrainer"):
        assert not [where for where, found in named if found == name]


def test_no_module_calls_torch_load_or_a_pickles_load():
    calls = {
        ast.unparse(node.func)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    assert not calls & {"torch.load", "pickle.load", "pickle.loads", "numpy.load", "np.load"}


def test_only_what_a_runs_own_data_workers_send_is_unpickled():
    names = [
        path.name for path in SOURCES if "ForkingPickler.loads" in path.read_text(encoding="utf-8")
    ]
    assert names == ["workers.py"]
