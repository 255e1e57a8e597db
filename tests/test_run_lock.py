"""One process a folder: trainings, evaluations and predictions that meet in one output folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, tiny_args
from test_folder_lock import SCHEDULED, holding, leave_lock
from test_lost_ranks import ranks_of, wait_for
from test_trainer import start_command, weights_hash

from tests.predict_files import write_checkpoint, write_png
from ulga_d2.cli.main import main as ulga
from ulga_d2.engine.distributed import launch_processes
from ulga_d2.engine.hooks import drop_lines_from
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError
from ulga_d2.evaluation.atomic import final_name, remove_unfinished, unfinished_path
from ulga_d2.folder_lock import LOCK, _process_start

ENDLESS = {"SOLVER__MAX_ITER": 100_000, "SOLVER__CHECKPOINT_PERIOD": 20}


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SCHEDULED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def finished(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(sample_root))
        main(tiny_args(folder))
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"eval_only": True, "resume": True}])
def test_a_second_run_in_a_folder_is_refused_before_it_writes_or_reads_anything(
    finished, tmp_path, monkeypatch, flags
):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    with holding(finished) as other:
        before = content_of(finished)
        with pytest.raises(UserError, match=f"run is in use by process {other.pid} on"):
            main(tiny_args(finished, **flags))
        assert content_of(finished) == before
    assert not (finished / LOCK).exists()


def test_every_rank_learns_that_the_folder_is_in_use(sample_data, tmp_path):
    with holding(tmp_path), pytest.raises(UserError) as refused:
        launch_processes(main, tiny_args(tmp_path, num_gpus=2), "cpu")
    assert str(refused.value).count("is in use by process") == 1
    assert "\n" not in str(refused.value)


def test_a_run_leaves_no_lock_behind_when_it_ends_or_fails(finished, sample_data, tmp_path):
    assert not (finished / LOCK).exists()
    with pytest.raises(UserError, match="already holds a run"):
        main(tiny_args(finished))
    assert not (finished / LOCK).exists()


def test_a_requeued_job_goes_on_at_once_on_another_host(sample_data, tmp_path, monkeypatch):
    length = {"SOLVER__MAX_ITER": 40, "SOLVER__CHECKPOINT_PERIOD": 2}
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    process = start_command(tmp_path, **length)
    wait_for(tmp_path / "last_checkpoint", process)
    process.kill()
    process.communicate()
    path = tmp_path / LOCK
    path.write_text(path.read_text().replace(os.uname().nodename, "elsewhere"))
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_JOB_ID", "8")
        with pytest.raises(UserError, match=f"process {process.pid} on elsewhere"):
            main(tiny_args(tmp_path, resume=True, **length))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    main(tiny_args(tmp_path, resume=True, **length))
    log = (tmp_path / "log.txt").read_text()
    assert log.count("took over the lock of process") == 1
    main(tiny_args(tmp_path / "whole", **length))
    hashes = [weights_hash(run / "model_final.pth") for run in (tmp_path, tmp_path / "whole")]
    assert hashes[0] == hashes[1]


def test_a_checkpoint_is_not_written_when_the_lock_was_taken_over(sample_data, tmp_path):
    process = start_command(tmp_path, **ENDLESS)
    wait_for(tmp_path / "last_checkpoint", process)
    leave_lock(tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in output
    assert "has been taken over by process" in output.splitlines()[-1]
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"


def test_ctrl_c_for_the_launcher_alone_ends_its_ranks_and_releases_the_lock(sample_data, tmp_path):
    # What a shell starts in the background ignores Ctrl-C, and these tests may be such a thing.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = start_command(tmp_path, "--num-gpus", "2", **ENDLESS)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(tmp_path / "last_checkpoint", process)
    ranks = ranks_of(process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output[-2000:]
    assert "Traceback" not in output
    assert [_process_start(rank) for rank in ranks] == [None, None]
    assert not (tmp_path / LOCK).exists()


def test_a_finished_run_that_is_resumed_says_so_and_is_not_evaluated_again(finished, sample_data):
    log = finished / "log.txt"
    evaluations = log.read_text().count("figures in percent")
    metrics = (finished / "metrics.json").read_bytes()
    first = json.loads((finished / "inference" / "metrics.json").read_text())
    results = main(tiny_args(finished, resume=True))
    assert log.read_text().count("4 of 4 iterations were done") == 1
    assert log.read_text().count("figures in percent") == evaluations
    assert (finished / "metrics.json").read_bytes() == metrics
    assert results["bbox"]["AP"] == pytest.approx(first["bbox/AP"])


def test_a_finished_run_whose_last_evaluation_was_cut_is_evaluated(finished, sample_data):
    log = finished / "log.txt"
    metrics = (finished / "metrics.json").read_text()
    *lines, last = metrics.splitlines(keepends=True)
    assert "bbox/AP" in last
    (finished / "metrics.json").write_text("".join(lines))
    before = log.read_text().count("figures in percent")
    assert main(tiny_args(finished, resume=True))["bbox"]
    assert log.read_text().count("figures in percent") == before + 1
    assert "bbox/AP" in (finished / "metrics.json").read_text()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("weights")))


def predict(model: str, folder: Path, *words: object) -> int:
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for number in range(3):
        write_png(images / f"{number}.png", number, 40, 64)
    command = ["predict", model, images, "--out", folder / "out", "--device", "cpu", *words]
    return ulga([str(word) for word in command])


@pytest.mark.parametrize("words", [(), ("--resume",), ("--overwrite",), ("--shard", "1/2")])
def test_a_second_prediction_into_a_folder_is_refused(model, tmp_path, capsys, words):
    out = tmp_path / "out"
    out.mkdir()
    with holding(out) as other:
        assert predict(model, tmp_path, *words) == 2
        assert f"--out {out} is in use by process {other.pid} on" in capsys.readouterr().err
        assert [path.name for path in out.iterdir()] == [LOCK]


def test_shards_write_into_one_folder_side_by_side_and_are_joined_when_they_have_ended(
    model, tmp_path, capsys
):
    assert predict(model, tmp_path, "--shard", "1/2") == 0
    out = tmp_path / "out"
    (out / LOCK).write_text("{}")
    path = (out / LOCK).rename(out / LOCK.replace(".json", "-1-of-2.json"))
    assert predict(model, tmp_path, "--shard", "2/2") == 0
    assert ulga(["predict", "--merge", str(out), "--out", str(out)]) == 2
    assert "is in use by an unknown process" in capsys.readouterr().err
    path.unlink()
    assert ulga(["predict", "--merge", str(out), "--out", str(out)]) == 0
    assert not list(out.glob(f"{LOCK[:5]}*"))


def test_two_processes_never_write_the_same_temporary_file(tmp_path):
    path = unfinished_path(tmp_path / "metrics.json")
    code = "import sys; from ulga_d2.evaluation import atomic; "
    code += "print(atomic.unfinished_path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "metrics.json")]
    other = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert path.name == f"metrics.json.{os.getpid()}.tmp"
    assert other.stdout.strip() != str(path)
    assert final_name(path.name) == final_name("metrics.json") == "metrics.json"
    path.touch()
    (tmp_path / "notes.tmp").touch()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.tmp"]


@pytest.mark.parametrize(
    "line", [b"null", b"5", b"[1]", b'"x"', b"\xff", b'{"iteration": "x"}', b"[" * 9999]
)
def test_a_last_line_of_figures_that_is_none_of_ours_stops_no_resume(
    finished, sample_data, tmp_path, line
):
    metrics = finished / "metrics.json"
    before = metrics.read_bytes()
    try:
        metrics.write_bytes(before + line + b"\n")
        assert main(tiny_args(finished, resume=True))["bbox"]
        metrics.write_bytes(before + line + b"\n")
        drop_lines_from(str(metrics), 10**9)
        assert metrics.read_bytes() == before
    finally:
        metrics.write_bytes(before)


def test_unfinished_files_of_earlier_versions_are_removed_and_those_of_others_and_locks_stay(
    tmp_path,
):
    ours = ["predictions.csv.tmp", "model_0000002.pth.tmp", "last_checkpoint.tmp", "a.png.17.tmp"]
    kept = ["notes.tmp", "draft.txt.tmp", f"{LOCK}.0a1b.17.tmp", ".ulga_clock.0a1b.17.tmp"]
    for name in (*ours, *kept):
        (tmp_path / name).write_text("x")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert [final_name(name) for name in ours] == [
        "predictions.csv",
        "model_0000002.pth",
        "last_checkpoint",
        "a.png",
    ]
    assert final_name("notes.tmp") == "notes.tmp"


def test_unfinished_files_that_cannot_be_removed_stop_no_run(tmp_path, monkeypatch, caplog):
    (tmp_path / "a.png.17.tmp").write_text("x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    remove_unfinished(tmp_path)
    assert f"unfinished files in {tmp_path} cannot be deleted (Permission denied)" in caplog.text


@pytest.mark.parametrize("name", [".ulga_clock.0a1b.17.tmp", "predictions.csv.tmp"])
def test_what_a_killed_prediction_leaves_is_not_foreign(model, tmp_path, name):
    assert predict(model, tmp_path) == 0
    (tmp_path / "out" / name).write_text("x")
    assert predict(model, tmp_path, "--overwrite") == 0
