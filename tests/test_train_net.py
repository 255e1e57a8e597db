"""The familiar command, end to end on the tiny sample, and what a user reads when it cannot."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from conftest import CONFIGS, REPOSITORY, tiny_args, tiny_options
from detectron2.engine import default_argument_parser
from test_trainer import weights_hash

from ulga_d2.cli.main import main as ulga
from ulga_d2.engine.launch import add_arguments, main, run, setup
from ulga_d2.engine.trainer import Trainer
from ulga_d2.weights.checkpoint import load_checkpoint

sys.path.insert(0, str(REPOSITORY))
import train_net  # noqa: E402


def leaf(name: str = "brain_tumor_swin_ulga_nano") -> str:
    return str(CONFIGS / f"{name}.yaml")


@pytest.fixture(scope="module")
def finished_run(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    previous = os.environ.get("DETECTRON2_DATASETS")
    os.environ["DETECTRON2_DATASETS"] = str(sample_root)
    try:
        assert run(["--config-file", leaf(), *tiny_options(folder)]) == 0
    finally:
        if previous is None:
            del os.environ["DETECTRON2_DATASETS"]
        else:
            os.environ["DETECTRON2_DATASETS"] = previous
    return folder


def test_train_net_offers_main_and_the_same_flags_as_detectron2():
    assert train_net.main is main
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    theirs = {action.dest for action in default_argument_parser()._actions}
    assert theirs <= {action.dest for action in parser._actions}


def test_a_run_folder_holds_everything(finished_run):
    for name in (
        "log.txt",
        "metrics.json",
        "config.yaml",
        "model_final.pth",
        "last_checkpoint",
        "inference/metrics.json",
        "inference/predictions.json",
        "predictions.png",
    ):
        assert (finished_run / name).is_file(), name
    assert list(finished_run.glob("events.out.tfevents.*"))
    assert cv2.imread(str(finished_run / "predictions.png")) is not None


def test_the_log_ends_with_the_table_and_the_path_of_the_picture(finished_run):
    lines = (finished_run / "log.txt").read_text().splitlines()
    assert str(finished_run / "predictions.png") in lines[-1]
    header = next(line for line in reversed(lines) if "AR@100" in line)
    for column in ("AP", "AP50", "AP75", "AR@100", "seconds"):
        assert f"{column} " in header


def test_config_and_checkpoint_name_the_classes_that_the_data_have(finished_run):
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    names = config["DATASETS"]["CLASS_NAMES"]
    assert len(names) == config["MODEL"]["RETINANET"]["NUM_CLASSES"] > 1
    assert load_checkpoint(finished_run / "model_final.pth")["class_names"] == names


def test_evaluation_only_repeats_the_numbers_of_the_run(finished_run, sample_data, tmp_path):
    weights = finished_run / "model_final.pth"
    main(tiny_args(tmp_path, eval_only=True, MODEL__WEIGHTS=weights))
    numbers = [
        json.loads((folder / "inference" / "metrics.json").read_text())
        for folder in (finished_run, tmp_path)
    ]
    assert numbers[0] == numbers[1]


def test_the_runs_own_config_repeats_the_run(finished_run, sample_data, tmp_path):
    config = str(finished_run / "config.yaml")
    assert run(["--config-file", config, "OUTPUT_DIR", str(tmp_path)]) == 0
    assert weights_hash(tmp_path / "model_final.pth") == weights_hash(
        finished_run / "model_final.pth"
    )


def test_several_test_sets_have_a_folder_and_a_picture_each(finished_run, sample_data, tmp_path):
    sets = ("brain_tumor_train", "brain_tumor_val")
    weights = finished_run / "model_final.pth"
    results = main(
        tiny_args(tmp_path, eval_only=True, MODEL__WEIGHTS=weights, DATASETS__TEST=str(sets))
    )
    assert tuple(results) == sets
    for name in sets:
        assert (tmp_path / "inference" / name / "metrics.json").is_file()
        assert (tmp_path / f"{name}_predictions.png").is_file()


def test_healthy_images_train_unless_they_are_filtered_out(sample_data, tmp_path):
    _, data, _ = setup(tiny_args(tmp_path / "all"))
    change = {"DATALOADER__FILTER_EMPTY_ANNOTATIONS": True}
    _, filtered, _ = setup(tiny_args(tmp_path / "filtered", **change))
    with_boxes = [record for record in data.train if record["annotations"]]
    assert filtered.train == with_boxes
    assert len(with_boxes) < len(data.train)
    assert "drops" in (tmp_path / "filtered" / "log.txt").read_text()


def test_the_installed_command_trains_as_the_script_does(finished_run, sample_data, tmp_path):
    command = ["train", "--config-file", "configs/brain_tumor_swin_ulga_nano.yaml"]
    assert ulga([*command, *tiny_options(tmp_path)]) == 0
    assert weights_hash(tmp_path / "model_final.pth") == weights_hash(
        finished_run / "model_final.pth"
    )


def test_a_finished_run_that_is_resumed_is_evaluated_and_left_as_it_is(
    finished_run, sample_data, tmp_path
):
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    before = (folder / "model_final.pth").read_bytes()
    assert run(["--config-file", leaf(), "--resume", *tiny_options(folder)]) == 0
    assert (folder / "model_final.pth").read_bytes() == before


def test_a_resumed_run_warns_of_settings_that_changed(finished_run, sample_data, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    main(tiny_args(folder, resume=True, SOLVER__BASE_LR=0.5, DATALOADER__NUM_WORKERS=1))
    warnings = [line for line in (folder / "log.txt").read_text().splitlines() if "WARN" in line]
    (warning,) = [line for line in warnings if "--resume" in line]
    assert warning.endswith("--resume: SOLVER.BASE_LR was 0.001 and is 0.5 now")


def test_training_can_start_from_a_checkpoints_weights(finished_run, sample_data, tmp_path):
    weights = finished_run / "model_final.pth"
    cfg, data, state = setup(tiny_args(tmp_path, MODEL__WEIGHTS=weights))
    trainer = Trainer(cfg, data, state)
    expected = load_checkpoint(weights)["model"]
    assert all(torch.equal(v, expected[k]) for k, v in trainer.model.state_dict().items())
    assert trainer.start_iter == 0


def refused(capsys: pytest.CaptureFixture, *argv: str) -> str:
    """Run the command, expect exit code 2 and one message without a traceback; return it."""
    assert run(list(argv)) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    (line,) = [text for text in message.splitlines() if text.startswith("error: ")]
    return message[message.index(line) :]


def test_resume_with_nothing_to_resume_is_refused(sample_data, tmp_path, capsys):
    message = refused(capsys, "--config-file", leaf(), "--resume", *tiny_options(tmp_path))
    assert "holds no checkpoint" in message and "leave --resume out" in message


def test_evaluation_without_weights_is_refused(sample_data, tmp_path, capsys):
    message = refused(capsys, "--config-file", leaf(), "--eval-only", *tiny_options(tmp_path))
    assert "--eval-only needs weights" in message and "MODEL.WEIGHTS" in message


def test_weights_that_do_not_exist_are_named(sample_data, tmp_path, capsys):
    options = tiny_options(tmp_path, MODEL__WEIGHTS=tmp_path / "no.pth")
    message = refused(capsys, "--config-file", leaf(), "--eval-only", *options)
    assert "no.pth does not exist" in message


def test_weights_of_another_variant_are_refused_by_name(
    finished_run, sample_data, tmp_path, capsys
):
    options = tiny_options(tmp_path, MODEL__WEIGHTS=finished_run / "model_final.pth")
    baseline = leaf("brain_tumor_swin_baseline_nano")
    message = refused(capsys, "--config-file", baseline, "--eval-only", *options)
    assert "do not fit the model of this config" in message and "interaction" in message


def test_an_output_folder_that_cannot_be_written_is_refused(sample_data, tmp_path, capsys):
    (tmp_path / "file").touch()
    message = refused(capsys, "--config-file", leaf(), *tiny_options(tmp_path / "file" / "run"))
    assert "cannot be written" in message and "name another folder" in message


def test_a_second_run_into_the_same_folder_is_refused(finished_run, sample_data, capsys):
    message = refused(capsys, "--config-file", leaf(), *tiny_options(finished_run))
    assert "already holds a run" in message and "--resume" in message


def test_two_lengths_of_one_run_are_refused_with_both(sample_data, tmp_path, capsys):
    options = tiny_options(tmp_path, SOLVER__NUM_EPOCHS=3, SOLVER__MAX_ITER=7)
    message = refused(capsys, "--config-file", leaf(), *options)
    assert "SOLVER.MAX_ITER is 7" in message and "asks for 15 iterations" in message
    assert "SOLVER.NUM_EPOCHS 0" in message


def test_a_batch_that_the_processes_cannot_share_is_refused_before_they_start(tmp_path, capsys):
    options = tiny_options(tmp_path / "run", SOLVER__IMS_PER_BATCH=3)
    message = refused(capsys, "--config-file", leaf(), "--num-gpus", "2", *options)
    assert "SOLVER.IMS_PER_BATCH (3) must be a multiple" in message
    assert not (tmp_path / "run").exists()


def test_no_config_is_refused(capsys):
    assert "--config-file" in refused(capsys)


def test_missing_data_are_refused_with_the_sample_as_the_way_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    message = refused(capsys, "--config-file", leaf(), *tiny_options(tmp_path / "run"))
    assert "ulga sample brain_tumor" in message and str(tmp_path / "nowhere") in message


def test_an_image_that_breaks_in_the_middle_is_named_without_a_traceback(
    sample_root, tmp_path, capsys, monkeypatch
):
    root = tmp_path / "datasets"
    shutil.copytree(sample_root, root)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    images = sorted((root / "brain_tumor" / "images" / "train").iterdir())
    for image in images:
        image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    options = tiny_options(tmp_path / "run", DATALOADER__NUM_WORKERS=2)
    message = refused(capsys, "--config-file", leaf(), *options)
    assert any(image.name in message for image in images)
