"""Checkpoints that were cut, flipped, emptied or never finished: named, and the one before used."""

from __future__ import annotations

import random
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from conftest import tiny_args

from ulga_d2.engine import checkpoint, run_folder
from ulga_d2.engine.checkpoint import save_checkpoint
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint, load_last
from ulga_d2.weights.digest import content_sha256

CUTS, FLIPS = 200, 1000
NEW, OLD = "model_0000002.pth", "model_0000001.pth"


def tiny_state(iteration: int) -> dict:
    """Return a state with every kind of value that a checkpoint holds."""
    generator = torch.Generator().manual_seed(iteration)
    return {
        "model": {
            "weight": torch.randn(5, 4, generator=generator),
            "half": torch.randn(3, generator=generator).to(torch.bfloat16),
            "count": torch.tensor(iteration),
        },
        "moments": {0: {"step": torch.tensor(2.0), "exp_avg": torch.randn(4, generator=generator)}},
        "iteration": iteration,
        "loss_normalizer": [100.0, 0.1 + iteration],
        "evaluations": [[1, 0.5], [2, None]],
        "class_names": ["ring", "solid"],
        "config": "SEED: 0\n",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two checkpoints."""
    save_checkpoint(tmp_path, OLD, tiny_state(1))
    save_checkpoint(tmp_path, NEW, tiny_state(2))
    return tmp_path


def is_equal(state: dict, other: dict) -> bool:
    return content_sha256({name: state[name] for name in other}) == content_sha256(other)


def check_fallback(folder: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    path, state = load_last(folder)
    assert path.name == OLD
    assert is_equal(state, tiny_state(1))
    assert damage in caplog.text
    assert f"going on with {folder / OLD} instead (iteration 1)" in caplog.text


def test_a_file_cut_at_any_of_200_offsets_is_named_and_the_one_before_is_used(folder, caplog):
    whole = (folder / NEW).read_bytes()
    for cut in range(CUTS):
        (folder / NEW).write_bytes(whole[: cut * len(whole) // CUTS])
        caplog.clear()
        check_fallback(folder, caplog, f"{folder / NEW} cannot be read")


def test_a_flipped_bit_is_named_or_without_effect(folder):
    whole = (folder / NEW).read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(FLIPS):
        place = generator.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        (folder / NEW).write_bytes(damaged)
        try:
            assert is_equal(load_checkpoint(folder / NEW), tiny_state(2)), place
        except UserError as error:
            assert NEW in str(error)
            refused += 1
    assert refused > FLIPS / 10  # most bytes of so small a file are padding and names


def test_every_flipped_bit_of_the_tensors_and_plain_values_is_named(folder):
    whole = (folder / NEW).read_bytes()
    for content in (tiny_state(2)["model"]["weight"].numpy().tobytes(), b"SEED: 0\n", b"ring"):
        start = whole.index(content)
        for bit in range(8 * len(content)):
            damaged = bytearray(whole)
            damaged[start + bit // 8] ^= 1 << bit % 8
            (folder / NEW).write_bytes(damaged)
            with pytest.raises(UserError, match=NEW):
                load_checkpoint(folder / NEW)


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", "holds '', which is no name of a checkpoint"),
        (b"model_0000009.pth", "names model_0000009.pth, which does not exist"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"../other/model_final.pth", "is no name of a checkpoint"),
        (None, "does not exist: the run ended before its first save"),
    ],
)
def test_a_last_checkpoint_that_names_none_is_told_and_the_newest_file_is_used(
    folder, caplog, content, damage
):
    (folder / "last_checkpoint").unlink()
    if content is not None:
        (folder / "last_checkpoint").write_bytes(content)
    path, _ = load_last(folder)
    assert path.name == NEW
    assert damage in caplog.text


def test_the_best_and_the_final_file_count_by_the_iteration_in_them(folder):
    save_checkpoint(folder, "model_best.pth", tiny_state(3), is_last=False)
    save_checkpoint(folder, "model_final.pth", tiny_state(4), is_last=False)
    (folder / NEW).write_bytes(b"")
    assert load_last(folder)[0].name == "model_final.pth"
    (folder / "model_final.pth").write_bytes(b"")
    assert load_last(folder)[0].name == "model_best.pth"


def test_a_best_file_alone_is_gone_on_with(tmp_path, caplog):
    save_checkpoint(tmp_path, "model_best.pth", tiny_state(3), is_last=False)
    assert load_last(tmp_path)[1]["iteration"] == 3
    assert "the run ended before its first save" in caplog.text


def test_what_is_saved_is_all_under_the_sha256(sample_data, tmp_path):
    main(tiny_args(tmp_path, SOLVER__MAX_ITER=1, SOLVER__EMA__ENABLED=True))
    state = load_checkpoint(tmp_path / "model_final.pth")
    assert type(state["model"]) is type(state["ema"]) is dict  # torch's own has attributes


def test_where_every_file_is_damaged_each_is_named(folder):
    for name in (OLD, NEW):
        (folder / name).write_bytes(b"no checkpoint")
    with pytest.raises(
        UserError, match=rf"no checkpoint can be gone on with(.|\n)*{NEW}(.|\n)*{OLD}"
    ):
        load_last(folder)


def test_a_checkpoint_without_its_sha256_is_read_with_a_warning(tmp_path, caplog):
    torch.save({"format": "ulga_d2 checkpoint 1", **tiny_state(1)}, tmp_path / OLD)
    assert load_checkpoint(tmp_path / OLD)["iteration"] == 1
    assert "has no sha256 in it" in caplog.text


def test_a_disk_that_gives_back_other_bytes_is_noticed_before_the_old_file_goes(
    folder, monkeypatch
):
    monkeypatch.setattr(checkpoint, "file_sha256", lambda _: "other")
    with pytest.raises(UserError, match=f"{NEW} could not be written: the disk gives back other"):
        save_checkpoint(folder, NEW, tiny_state(3))
    monkeypatch.undo()
    assert is_equal(load_last(folder)[1], tiny_state(2))


def test_a_resumed_run_goes_on_from_the_checkpoint_before_a_damaged_one(sample_data, tmp_path):
    options = {"SOLVER__MAX_ITER": 6, "SOLVER__CHECKPOINT_PERIOD": 2}
    main(tiny_args(tmp_path, **options))
    whole = load_checkpoint(tmp_path / "model_final.pth")
    cut = (tmp_path / "model_final.pth").read_bytes()[:-1000]
    (tmp_path / "model_final.pth").write_bytes(cut)
    main(tiny_args(tmp_path, resume=True, **options))
    again = load_checkpoint(tmp_path / "model_final.pth")
    assert again["sha256"] == whole["sha256"]
    log = (tmp_path / "log.txt").read_text()
    assert "model_final.pth cannot be read" in log
    assert "model_0000004.pth instead (iteration 4)" in log


@pytest.mark.parametrize("flag", ["eval_only", "start"])
def test_weights_asked_for_by_name_are_never_replaced_by_others(folder, sample_data, flag):
    (folder / NEW).write_bytes((folder / NEW).read_bytes()[:-500])
    weights = {"MODEL__WEIGHTS": folder / NEW}
    with pytest.raises(UserError, match=f"{NEW} cannot be read"):
        main(tiny_args(folder / "run", eval_only=flag == "eval_only", **weights))


def test_every_line_of_a_fault_reaches_the_message_and_the_log(folder, caplog):
    def refuse(state: dict, path: Path) -> None:
        if path.name == NEW or state["iteration"] < lowest:
            raise UserError(f"{path} is of no use:", "its first line", "its second line")

    lowest = 0
    load_last(folder, refuse)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:3] == [f"{folder / NEW} is of no use:", "its first line", "its second line"]
    lowest = 9
    with pytest.raises(UserError) as refused:
        load_last(folder, refuse)
    assert str(refused.value).splitlines().count("its second line") == 2


def test_every_line_of_a_fault_reaches_all_ranks(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise UserError("one", "two")

    monkeypatch.setattr(checkpoint, "save_checkpoint", refuse)
    with pytest.raises(UserError) as refused:
        checkpoint.save_together(tmp_path, NEW, {})
    assert refused.value.args == ("one", "two")
    monkeypatch.setattr(run_folder, "_take", refuse)
    with pytest.raises(UserError) as refused:
        run_folder.open_run_folder(Namespace(OUTPUT_DIR=str(tmp_path)), Namespace())
    assert refused.value.args == ("one", "two")
