"""Checkpoints: written whole or not at all, loaded without running code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from test_checkpoint_damage import tiny_state

from ulga_d2.engine.checkpoint import remove_old, save_checkpoint
from ulga_d2.engine.datasets import check_same_classes
from ulga_d2.engine.hooks import drop_lines_from
from ulga_d2.errors import UserError
from ulga_d2.weights.checkpoint import load_checkpoint, load_last


def test_a_failed_save_leaves_the_previous_checkpoint_in_force(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, "model_0000001.pth", tiny_state(1))

    def fail_halfway(_state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail_halfway)
    with pytest.raises(UserError, match=r"model_0000002\.pth could not be written: disk full"):
        save_checkpoint(tmp_path, "model_0000002.pth", tiny_state(2))
    assert load_last(tmp_path)[1]["iteration"] == 1
    assert not list(tmp_path.glob("*.tmp"))


class Payload:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (os.system, (f"touch {self.canary}",))


def test_a_checkpoint_never_runs_code(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"model": Payload(canary)}, tmp_path / "bad.pth")
    with pytest.raises(
        UserError, match=r"bad\.pth cannot .* holds the Python object (posix|nt)\.system"
    ):
        load_checkpoint(tmp_path / "bad.pth")
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "cut.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"cut\.pth cannot be read"):
        load_checkpoint(tmp_path / "cut.pth")


def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(tmp_path):
    with pytest.raises(UserError, match=r"cannot be opened: .*[Dd]irectory"):
        load_checkpoint(tmp_path)


def test_old_checkpoints_are_removed_and_the_latest_stay(tmp_path):
    for iteration in (5, 10, 15, 20, 5000):
        (tmp_path / f"model_{iteration:07d}.pth").touch()
    (tmp_path / "model_final.pth").touch()
    remove_old(tmp_path, keep=2, latest=20)
    left = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert left == [
        "model_0000015.pth",
        "model_0000020.pth",
        "model_0005000.pth",  # another run's
        "model_final.pth",
    ]


def test_metrics_of_repeated_iterations_are_cut_before_a_resumed_run(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text('{"iteration": 19}\n{"iteration": 39}\n{"iterat')
    drop_lines_from(str(file), 39)
    assert file.read_text() == '{"iteration": 19}\n'


def test_differing_class_lists_are_shown_both():
    with pytest.raises(UserError, match=r"train.*\['a', 'b'\](.|\n)*val.*\['b', 'a'\]"):
        check_same_classes({"train": ("a", "b"), "val": ("b", "a")})
