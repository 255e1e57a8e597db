"""Settings on the command line: KEY VALUE before and behind flags, and `--set KEY VALUE`."""

from __future__ import annotations

import argparse

import pytest

from ulga_d2.cli import train
from ulga_d2.cli.main import main as ulga
from ulga_d2.cli.settings import add_set_option, set_trailing, words_of
from ulga_d2.config import split_settings
from ulga_d2.engine import launch

PAIRS = ["SOLVER.MAX_ITER", "5", "OUTPUT_DIR", "--odd"]


@pytest.mark.parametrize(
    "words",
    [
        ["--config-file", "a.yaml", "--resume", *PAIRS],
        ["--config-file", "a.yaml", *PAIRS, "--resume"],
        [*PAIRS, "--resume", "--config-file", "a.yaml"],
        ["--resume", *PAIRS[:2], "--config-file", "a.yaml", *PAIRS[2:]],
        ["--set", *PAIRS[:2], "--resume", "--set", *PAIRS[2:], "--config-file", "a.yaml"],
    ],
)
@pytest.mark.parametrize("command", ["train_net.py", "ulga train"])
def test_training_takes_flags_before_and_behind_settings(words, command, monkeypatch):
    seen = []
    module = launch if command == "train_net.py" else train
    monkeypatch.setattr(module, "launch", lambda args: seen.append(args) or 0)
    code = launch.run(words) if command == "train_net.py" else ulga(["train", *words])
    (args,) = seen
    assert (code, args.resume, args.config_file, args.opts) == (0, True, "a.yaml", PAIRS)


@pytest.mark.parametrize(
    "words",
    [
        ["x.json", "--flag", *PAIRS],
        ["x.json", *PAIRS, "--flag"],
        [*PAIRS, "x.json", "--flag"],
        ["--set", *PAIRS[:2], "x.json", *PAIRS[2:], "--flag"],
    ],
)
def test_other_commands_do_too(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--flag", action="store_true")
    add_set_option(parser)
    pairs = [*PAIRS[:3], "out"]
    args = parser.parse_args(set_trailing([word.replace("--odd", "out") for word in words]))
    assert (args.file, args.flag, words_of(args)) == ("x.json", True, pairs)


@pytest.mark.parametrize(
    ("words", "others", "settings"),
    [
        (["a", "--out", "C.D", "x"], ["a", "--out"], ["C.D", "x"]),  # a typo at the end
        (["A.B", "x", "--out", "y"], ["A.B", "x", "--out", "y"], []),  # file names elsewhere
        (["SOLVER.MAX_ITER"], ["SOLVER.MAX_ITER"], []),
        (["--set", "SEED"], ["--set", "SEED"], []),
        (["SEED", "1", "--", "SEED", "2"], ["--", "SEED", "2"], ["SEED", "1"]),
    ],
)
def test_what_is_a_setting(words, others, settings):
    assert split_settings(words) == (others, settings)
