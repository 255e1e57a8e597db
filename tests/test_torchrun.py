"""torchrun, and two hosts: the ranks of another launcher make the same run, and go on after it."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, REPOSITORY, tiny_args, tiny_options
from test_trainer import start_command, weights_hash

from ulga_d2.engine.distributed import launch_processes
from ulga_d2.engine.launch import main, setup
from ulga_d2.engine.torchrun import PLACE, take_place, unused_part
from ulga_d2.errors import UserError

LEAF = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")
SECONDS = 240  # within which a tiny run ends, on a machine that has other work too


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_torchrun(output_dir: Path, *flags: str, **changes: object) -> subprocess.Popen:
    """Start `torchrun FLAGS train_net.py` on a tiny run."""
    command = [sys.executable, "-m", "torch.distributed.run", *flags]
    command += ["train_net.py", "--config-file", LEAF, *tiny_options(output_dir, **changes)]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Wait for success; return the output."""
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()  # a launcher ends its ranks with itself
        raise
    assert process.returncode == 0, output[-3000:]
    return output


def hash_of(folder: Path) -> str:
    return weights_hash(folder / "model_final.pth")


def whole_run(folder: Path, **changes: object) -> str:
    """Return the hash of the weights that the own launcher reaches with two ranks, undisturbed."""
    assert launch_processes(main, tiny_args(folder, num_gpus=2, **changes), "cpu") == 0
    return hash_of(folder)


def test_torchrun_reaches_the_weights_of_the_own_launcher(sample_data, tmp_path):
    finish(start_torchrun(tmp_path / "torchrun", "--standalone", "--nproc-per-node", "2"))
    assert hash_of(tmp_path / "torchrun") == whole_run(tmp_path / "own")


def test_a_user_error_under_torchrun_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    process = start_torchrun(tmp_path / "run", "--standalone", "--nproc-per-node", "2")
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode != 0
    assert output.count("ulga sample brain_tumor") == 1, output


def start_two_hosts(folder: Path, **changes: object) -> list[subprocess.Popen]:
    url = f"tcp://127.0.0.1:{free_port()}"
    flags = ("--num-machines", "2", "--dist-url", url, "--machine-rank")
    return [start_command(folder, *flags, rank, **changes) for rank in "01"]


@pytest.mark.slow
def test_two_hosts_of_one_rank_reach_the_weights_of_one_host_of_two(sample_data, tmp_path):
    for host in start_two_hosts(tmp_path / "hosts"):
        finish(host)
    assert hash_of(tmp_path / "hosts") == whole_run(tmp_path / "own")


@pytest.mark.slow
def test_two_hosts_of_torchrun_reach_them_too(sample_data, tmp_path):
    flags = two_hosts(free_port())
    for host in [start_torchrun(tmp_path / "hosts", *flags) for _ in "01"]:
        finish(host)
    assert hash_of(tmp_path / "hosts") == whole_run(tmp_path / "own")


def two_hosts(port: int) -> list[str]:
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "1"]
    return ["--nnodes", "2", "--nproc-per-node", "1", "--local-addr", "127.0.0.1", *meeting]


@pytest.fixture(scope="module")
def finished(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        main(tiny_args(folder))
    return folder


def test_a_restarted_worker_goes_on_from_the_last_checkpoint(finished, sample_data, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    args = tiny_args(finished)
    _, _, state = setup(args)
    assert args.resume and state["iteration"] == 4


def test_a_restarted_worker_without_a_checkpoint_starts_the_run(sample_data, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    args = tiny_args(tmp_path)
    _, _, state = setup(args)
    assert state is None and not args.resume


@pytest.mark.parametrize("change", [{"SOLVER__BASE_LR": 0.5}, {"MODEL__WEIGHTS": "other.pth"}])
def test_a_restarted_worker_does_not_go_on_with_another_run(
    finished, sample_data, monkeypatch, change
):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    (key,) = change
    with pytest.raises(UserError, match=f"another run; it differs in {key.replace('__', '.')}"):
        setup(tiny_args(finished, **change))


def test_a_first_worker_does_not_go_on_by_itself(finished, sample_data, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with pytest.raises(UserError, match="already holds a run"):
        setup(tiny_args(finished))


def test_ranks_that_start_again_meet_apart_from_those_that_are_no_more():
    store = torch.distributed.HashStore()
    store.set("hello/1", "a rank that was killed before anyone answered")
    with ThreadPoolExecutor(3) as threads:
        for start in ("first", "second"):
            parts = list(threads.map(lambda rank: unused_part(store, rank, 3), range(3)))
            assert not any(part.check(["address"]) for part in parts)
            parts[1].set("address", start)
            assert [part.get("address") for part in parts] == [start.encode()] * 3


def set_place(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    known = ("3", "4", "1", "2", "127.0.0.1", "29500")
    for name, value in {**dict(zip(PLACE, known, strict=True)), **values}.items():
        monkeypatch.setenv(name, value)


def place_args(**changes: object) -> argparse.Namespace:
    alone = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    return argparse.Namespace(**{**alone, **changes})


def test_a_rank_knows_its_machine_from_the_environment(monkeypatch):
    set_place(monkeypatch)
    args = place_args()
    take_place(args)
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (2, 2, 1)


@pytest.mark.parametrize(
    ("values", "flags", "message"),
    [
        ({"LOCAL_RANK": ""}, {}, r"but LOCAL_RANK not; start with torchrun"),
        ({"RANK": "one"}, {}, r"the environment has RANK=one"),
        ({"LOCAL_WORLD_SIZE": "0"}, {}, r"the environment has LOCAL_WORLD_SIZE=0"),
        ({"LOCAL_WORLD_SIZE": "3"}, {}, r"the same --nproc-per-node"),
        ({"LOCAL_RANK": "0"}, {}, r"rank 3 of 4 is number 0 of 2 .* the same --nproc-per-node"),
        ({}, {"num_gpus": 2}, r"--nproc-per-node and --nnodes in place of --num-gpus"),
        ({}, {"dist_url": "tcp://a:1"}, r"in place of .* --dist-url"),
    ],
)
def test_a_place_that_cannot_be_is_refused(monkeypatch, values, flags, message):
    set_place(monkeypatch, **values)
    with pytest.raises(UserError, match=message):
        take_place(place_args(**flags))
