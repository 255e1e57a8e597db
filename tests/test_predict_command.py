"""`ulga predict`: what it finds and writes, exit codes, shards, kills, and what stays private."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.dicom_files import dicom_of, write_dicom
from tests.predict_files import pixels, write_checkpoint, write_png
from ulga_d2.cli.main import main
from ulga_d2.cli.predict import FORMATS, prepare
from ulga_d2.inference.batch import KINDS, OUTPUT_NAMES
from ulga_d2.inference.predictor import Predictor

ALL = ("--save", *FORMATS)
SECONDS = 240  # within which a process ends, on a machine that has other work too
STATE = ".predict"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("weights")))


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_png(folder / f"{number:02d}.png", number, 40 + number, 64)
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 12 files, one of them of 3 frames and one that cannot be read."""
    folder = write_images(tmp_path_factory.mktemp("scans") / "in", 10)
    frames = [pixels(seed, 40, 56, np.uint16) for seed in range(3)]
    dataset = dicom_of(frames[0], NumberOfFrames=3)
    dataset.PixelData = b"".join(frame.tobytes() for frame in frames)
    dataset.save_as(folder / "03_film.dcm", enforce_file_format=True)
    (folder / "05_text.png").write_text("no image")
    return folder


def predict(*words: object) -> int:
    return main(["predict", *map(str, words), "--device", "cpu"])


def tree(out: Path) -> dict[str, bytes]:
    """Return the files of an output by name, without the state of the work."""
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {path.relative_to(out).as_posix(): path for path in files}
    return {name: p.read_bytes() for name, p in names.items() if not name.startswith(STATE)}


def listed(out: Path) -> list[str]:
    """Return the names of the predicted images."""
    meta = json.loads((out / "predictions_meta.json").read_text())
    return [image["file_name"] for image in meta["images"]]


def skipped(out: Path) -> dict[str, str]:
    meta = json.loads((out / "predictions_meta.json").read_text())
    return {item["file_name"]: item["reason"] for item in meta["info"]["skipped"]}


@pytest.fixture(scope="module")
def whole(model: str, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the output of one undisturbed process."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert predict(model, scans, "--out", out, *ALL, "--batch", 2) == 1
    return tree(out)


def refusal(capsys: pytest.CaptureFixture, *words: object) -> str:
    capsys.readouterr()
    assert predict(*words) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and "Traceback" not in said
    return said.partition("error: ")[2]


def test_the_command_writes_the_boxes_of_the_predictor(model, tmp_path, capsys):
    folder = write_images(tmp_path / "in", 3)
    out = tmp_path / "out"
    assert predict(model, folder, "--out", out) == 0
    assert "3 images, " in capsys.readouterr().out
    assert listed(out) == ["00.png", "01.png", "02.png"]
    results = json.loads((out / "predictions.json").read_text())
    predictor = Predictor(model, device="cpu")
    for number, found in enumerate(predictor(sorted(folder.iterdir())), 1):
        own = [item for item in results if item["image_id"] == number]
        assert len(own) == len(found) > 0
        for item, expected in zip(own, found.to_coco(number), strict=True):
            assert item["category_id"] == expected["category_id"]
            assert item["bbox"] == pytest.approx(expected["bbox"], abs=1e-3)
            assert item["score"] == pytest.approx(expected["score"], abs=1e-4)
    assert sorted(path.name for path in (out / "images").iterdir()) == listed(out)


def test_exit_codes_say_what_was_skipped(model, tmp_path, capsys):
    folder = write_images(tmp_path / "in", 2)
    assert predict(model, folder, "--out", tmp_path / "good", "--save", "json") == 0
    (folder / "bad.png").write_text("no image")
    assert predict(model, folder, "--out", tmp_path / "some", "--save", "json") == 1
    said = capsys.readouterr()
    assert (
        "2 images, " in said.out
        and "1 skipped (1 x cannot be decoded" in said.out
        and "skipped: image" in said.err
    )
    assert list(skipped(tmp_path / "some")) == ["bad.png"]
    strict = refusal(capsys, model, folder, "--out", tmp_path / "strict", "--strict")
    assert "--strict: " in strict and "bad.png" in strict


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["MODEL"], "give MODEL and at least one INPUT"),
        ([], "give MODEL and at least one INPUT"),
        (["none.pth", "IN"], "none.pth"),
        (["MODEL", "EMPTY"], "no image in .*files that are no images: 1 .md"),
        (["MODEL", "IN", "--save", "xml", "json"], "--save xml: there are images json csv"),
        (["MODEL", "IN", "--score", "high"], "--score is high; give 0 to 1, or best-f1"),
        (["MODEL", "IN", "--score", "2"], "score is 2.0; give 0 to 1"),
        (["MODEL", "IN", "--score", "best-f1"], "has no stored threshold for best_f1"),
        (["MODEL", "IN", "--shard", "4/3"], "--shard is 4/3; give I/N"),
        (["MODEL", "IN", "--every", "0"], "--every is 0; give 1 or more"),
        (["MODEL", "IN", "--resume", "--overwrite"], "give one"),
        (["MODEL", "IN/none*.png"], "no file matches the pattern"),
        (["--merge", "IN"], "holds no part of a prediction"),
        (["MODEL", "--merge", "IN"], "--merge takes folders alone"),
        (["--save", "json", "--merge", "IN"], "leave --save out"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_nothing_is_written(model, tmp_path, capsys, words, told):
    write_images(tmp_path / "in", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").write_text("")
    places = {"MODEL": model, "IN": str(tmp_path / "in"), "EMPTY": str(tmp_path / "empty")}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    said = refusal(capsys, *words, "--out", tmp_path / "out")
    assert re.search(told, said), said
    assert not (tmp_path / "out").exists()


def test_folders_patterns_lists_and_standard_input_are_inputs(model, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    write_images(folder, 2)
    write_images(folder / "sub", 1)
    write_png(folder / ".hidden.png")
    (folder / ".git").mkdir()
    write_png(folder / ".git" / "a.png")
    write_dicom(folder / "IM0001", pixels(0, 48, 48, np.uint16))
    (folder / "DICOMDIR").write_bytes((folder / "IM0001").read_bytes())
    (folder / "notes.txt").write_text("not a list")

    def names(number: int, *words: object) -> list[str]:
        out = tmp_path / f"out{number}"
        assert predict(model, *words, "--out", out, "--save", "json") == 0
        return listed(out)

    top = ["00.png", "01.png", "IM0001"]
    assert names(0, folder) == top
    assert names(1, folder, "--recursive") == [*top, "sub/00.png"]
    assert names(2, f"{folder}/**/*.png") == ["00.png", "01.png", "sub/00.png"]
    words = [f"{folder}/sub/00.png", "", f"{folder}/01.png\r", f"{folder}/./01.png"]
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + "\n".join(words).encode())
    assert names(3, tmp_path / "list.txt") == ["sub/00.png", "01.png"]
    with (tmp_path / "list.txt").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert names(4, "-") == ["sub/00.png", "01.png"]
    (tmp_path / "zeros.txt").write_bytes(f"{folder}/00.png\0{folder}/01.png\0".encode())
    assert names(5, tmp_path / "zeros.txt") == ["00.png", "01.png"]
    monkeypatch.chdir(tmp_path)
    assert names(6, "in", folder, "in/00.png") == top
    assert names(7, folder / "IM0001") == ["IM0001"]


def test_the_output_has_the_shape_of_the_input_and_no_two_files_one_name(model, tmp_path):
    folder = tmp_path / "in"
    for name in ("a.png", "a.jpg", "x/a.png", "y/a.png", "c.jpg", "c.png/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(folder / name, len(name))
    out = tmp_path / "out"
    assert predict(model, folder, "--recursive", "--out", out, "--save", "images", "yolo") == 0
    stems = ["a.jpg", "a.png", "c.jpg", "c.png/d", "x/a", "y/a"]
    for kind, suffix in (("images", ".png"), ("labels", ".txt")):
        found = sorted(path for path in tree(out) if path.startswith(kind))
        assert found == [f"{kind}/{stem}{suffix}" for stem in stems]


def test_the_output_folder_is_no_input(model, tmp_path, monkeypatch):
    write_images(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--overwrite"], ["--resume"]):
        assert predict(model, ".", "--recursive", "--out", "found", *words) == 0
        assert listed(tmp_path / "found") == ["00.png"]


def test_files_of_others_are_never_removed(model, tmp_path, capsys):
    folder, out = write_images(tmp_path / "in", 1), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for words in ([], ["--overwrite"], ["--resume"]):
        assert "holds other files" in refusal(capsys, model, folder, "--out", out, *words)
    (out / "mine.txt").unlink()
    assert predict(model, folder, "--out", out, *ALL) == 0
    before = tree(out)
    assert "holds an earlier prediction; --resume continues it, --overwrite" in refusal(
        capsys, model, folder, "--out", out
    )
    assert tree(out) == before
    assert {path.name for path in out.iterdir()} <= OUTPUT_NAMES
    (out / "mine.txt").write_text("mine")
    said = refusal(capsys, model, folder, "--out", out, "--overwrite")
    assert "would remove files that no prediction has written: mine.txt" in said
    assert tree(out) == {**before, "mine.txt": b"mine"}
    (out / "mine.txt").unlink()
    assert predict(model, folder, "--out", out, "--overwrite", "--save", "csv") == 0
    assert set(tree(out)) == {"predictions.csv", "contact_sheet.png"}


def test_a_file_in_the_place_of_the_output_folder_is_refused(model, tmp_path, capsys):
    folder = write_images(tmp_path / "in", 1)
    (tmp_path / "out").write_text("")
    assert "cannot be written" in refusal(capsys, model, folder, "--out", tmp_path / "out")


def test_a_finished_output_is_not_made_again(model, tmp_path, capsys):
    folder, out = write_images(tmp_path / "in", 2), tmp_path / "out"
    assert predict(model, folder, "--out", out) == 0
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert predict(model, folder, "--out", out, "--resume") == 0
    said = capsys.readouterr()
    assert "--resume: the prediction was complete" in said.err
    assert said.out.count("2 images, ") == 2
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


@pytest.mark.parametrize("damage", [b"", b"{", b"5", b'{"header": {}}', b"[" * 100_000])
def test_a_damaged_state_of_a_complete_output_is_named(model, tmp_path, capsys, damage):
    folder, out = write_images(tmp_path / "in", 2), tmp_path / "out"
    assert predict(model, folder, "--out", out, "--save", "json") == 0
    (out / STATE / "complete.json").write_bytes(damage)
    said = refusal(capsys, model, folder, "--out", out, "--save", "json", "--resume")
    assert "complete.json is damaged; give --overwrite" in said


@pytest.mark.parametrize("is_complete", [True, False])
def test_another_command_does_not_resume_an_output(model, tmp_path, capsys, is_complete):
    folder, out = write_images(tmp_path / "in", 3), tmp_path / "out"
    other = write_checkpoint(tmp_path / "other", seed=1)
    command = [model, folder, "--out", out, "--batch", 2, "--save", "json"]
    if is_complete:
        assert predict(*command) == 0
    else:
        assert predict(*command, "--shard", "1/1") == 0
        (part,) = (out / STATE).glob("part*")
        part.write_bytes(part.read_bytes()[:-30])
    write_png(tmp_path / "more.png")
    changes = [
        (["--score", "0.5"], "score_threshold (0.05, now 0.5)"),
        (["--batch", "3"], "--batch (2, now 3)"),
        (["--save", "csv"], "--save (['json'], now ['csv'])"),
        ([tmp_path / "more.png"], "list of images"),
    ]
    for words, told in changes:
        said = refusal(capsys, *command, *words, "--resume")
        assert "was begun with another" in said and told in said
    assert "model_sha256" in refusal(capsys, other, *command[1:], "--resume")
    assert predict(*command, "--resume") == 0


def shards(model: str, scans: Path, folders: list[Path], *words: object) -> None:
    for number, folder in enumerate(folders, 1):
        options = ("--out", folder, "--batch", 2, "--shard", f"{number}/{len(folders)}")
        assert predict(model, scans, *options, *words) == 0


def test_three_shards_in_three_folders_equal_one_process(model, scans, whole, tmp_path, capsys):
    folders = [tmp_path / name for name in "abc"]
    shards(model, scans, folders, *ALL)
    out = tmp_path / "out"
    said = refusal(capsys, "--merge", *folders[:2], "--out", out)
    assert "parts 3 of 3 are missing" in said
    assert "are the same part" in refusal(
        capsys, "--merge", *folders, shutil.copytree(folders[0], tmp_path / "copy"), "--out", out
    )
    (part,) = (folders[1] / STATE).glob("part*")
    content = part.read_bytes()
    for cut in (0, 10, len(content) - 1):
        part.write_bytes(content[:cut])
        said = refusal(capsys, "--merge", *folders, "--out", out)
        assert f"{part} is not complete; run its shard again with --resume" in said
    assert not out.exists()
    part.write_bytes(content[:-1])
    resumed = ("--out", folders[1], "--batch", 2, "--shard", "2/3", "--resume", *ALL)
    assert predict(model, scans, *resumed) == 0
    assert part.read_bytes() == content
    other = tmp_path / "d"
    shards(model, scans, [tmp_path / "e", tmp_path / "f", other], "--save", "csv")
    said = refusal(capsys, "--merge", *folders[:2], other, "--out", out)
    assert "belongs to another prediction" in said
    assert predict("--merge", *folders, "--out", out) == 1
    assert tree(out) == whole


def test_three_shards_in_one_folder_equal_one_process(model, scans, whole, tmp_path, capsys):
    out = tmp_path / "out"
    shards(model, scans, [out] * 3, *ALL)
    again = (model, scans, "--out", out, "--batch", 2, *ALL)
    assert "earlier prediction" in refusal(capsys, *again, "--shard", "2/3")
    assert "parts of 3, and not of 2" in refusal(capsys, *again, "--shard", "2/2")
    assert "parts of 3, and not of 1" in refusal(capsys, *again, "--resume")
    assert predict("--merge", out, "--out", out) == 1
    assert tree(out) == whole


def command_line(*words: object) -> list[str]:
    return ["predict", *map(str, words), "--device", "cpu"]


@pytest.mark.slow
def test_two_processes_of_torchrun_equal_one(model, scans, whole, tmp_path):
    out = tmp_path / "out"
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = command_line(model, scans, "--out", out, "--batch", 2, *ALL)
    command = [sys.executable, "-m", *launcher, "-m", "ulga_d2.cli.main", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.stdout.count("13 images, ") == done.stdout.count("1 skipped (") == 1, done.stderr[
        -2000:
    ]
    assert tree(out) == whole


def test_a_part_that_is_cut_anywhere_is_continued_to_the_same_output(model, scans, whole, tmp_path):
    out, dice = tmp_path / "out", random.Random(0)
    command = (model, scans, "--out", out, "--batch", 2, *ALL)
    assert predict(*command, "--shard", "1/1") == 0
    (part,) = (out / STATE).glob("part*")
    content = part.read_bytes()
    first_line = content.index(b"\n")
    cuts = [0, first_line // 2, first_line + 1, len(content) - 1, len(content)]
    for cut in [*cuts, *dice.sample(range(first_line, len(content)), 2)]:
        shutil.copytree(out, tmp_path / "cut")
        (tmp_path / "cut" / STATE / part.name).write_bytes(content[:cut])
        (tmp_path / "cut" / "images" / "00.png").write_bytes(b"half")
        (tmp_path / "cut" / "predictions.json.4321.tmp").write_bytes(b"half")
        resumed = [word if word != out else tmp_path / "cut" for word in command]
        code = predict(*resumed, "--resume")
        assert code == 1
        made = tree(tmp_path / "cut")
        if cut > first_line + 1:  # the picture was complete before the line was
            made["images/00.png"] = whole["images/00.png"]
        assert made == whole
        shutil.rmtree(tmp_path / "cut")


def test_a_part_that_holds_something_else_is_named(model, scans, tmp_path, capsys):
    out = tmp_path / "out"
    (out / STATE).mkdir(parents=True)
    (out / STATE / "part-1-of-1.jsonl").write_text("not a header\n")
    said = refusal(capsys, model, scans, "--out", out, "--resume")
    assert "part-1-of-1.jsonl is not complete" in said or "--overwrite" in said


KILLED = """
import os, random, signal, sys, time
from ulga_d2.cli.main import main
from ulga_d2.inference.detector import Detector
run = Detector._run
def slow(self, views):
    time.sleep(0.05)
    return run(self, views)
Detector._run = slow
dice, words = random.Random(int(sys.argv[1])), sys.argv[2:]
kills = 0
for attempt in range(6):
    pid = os.fork()
    if pid == 0:
        os._exit(main([*words, *(["--resume"] if attempt else [])]))
    time.sleep(0.1 + dice.random())
    os.kill(pid, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
print("kills:", kills, flush=True)
sys.exit(main([*words, "--resume"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_process_that_is_killed_again_and_again_ends_with_the_same_output(
    model, scans, whole, tmp_path, seed
):
    out = tmp_path / "out"
    words = command_line(model, scans, "--out", out, "--batch", 2, *ALL)
    command = [sys.executable, "-c", KILLED, str(seed), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 1, done.stderr[-2000:]
    assert int(done.stdout.split("kills:")[1].split()[0]) >= 2
    assert tree(out) == whole


CANARY = "XCANARYX"
ELEMENTS = {
    "PatientName": CANARY,
    "PatientID": CANARY,
    "PatientComments": CANARY * 20,
    "StudyDescription": CANARY,
    "InstitutionName": CANARY,
    "AccessionNumber": CANARY,
    "ImageComments": CANARY,
}


def test_nothing_of_a_header_and_no_absolute_path_is_written(model, tmp_path, capsys):
    folder = tmp_path / "PRIVATE_PLACE"
    folder.mkdir()
    write_dicom(folder / "a.dcm", pixels(0, 48, 48, np.uint16), **ELEMENTS)
    cut = write_dicom(folder / "cut.dcm", pixels(0, 48, 48, np.uint16), **ELEMENTS)
    cut.write_bytes(cut.read_bytes()[:-100])
    write_dicom(folder / "odd.dcm", pixels(0, 48, 48), PhotometricInterpretation=CANARY, **ELEMENTS)
    (folder / "text.png").write_text(CANARY)
    (folder / "bad\nname.png").write_text(CANARY)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    out = tmp_path / "out"
    assert predict(model, folder, "--recursive", "--out", out, *ALL) == 1
    assert listed(out) == ["a.dcm"]
    names = {"cut.dcm", "odd.dcm", "text.png", "bad\\nname.png", "loop"}
    assert set(skipped(out)) == names
    said = capsys.readouterr()
    assert CANARY not in said.out + said.err
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert CANARY.encode() not in content and b"PRIVATE_PLACE" not in content, path


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ("M I", "-- M I"),
        ("M --out X I J", "--out X -- M I J"),
        ("--out X M --half I", "--out X --half -- M I"),
        ("--save json yolo M I", "--save json yolo -- M.pth I.png"),
        ("M I --save json xml", "--save json xml -- M I"),
        ("M I --save xml", "--save xml -- M I"),
        ("--out=X M I", "--out=X -- M I"),
        ("M - --tta", "--tta -- M -"),
        ("--overlap -1 M I", "--overlap -1 -- M I"),
        ("M I -- --odd.png", "-- M I --odd.png"),
        ("--merge a b --out c", "--merge a b --out c"),
        ("--recursive M I --nonsense", "--recursive --nonsense -- M I"),
        ("-h", "-h"),
    ],
)
def test_model_and_inputs_may_stand_anywhere(words, result):
    files = {"M": "M.pth", "I": "I.png", "J": "J.png"}

    def named(text: str) -> list[str]:
        return [files.get(word, word) for word in text.split()]

    assert prepare(["predict", *named(words)]) == ["predict", *named(result)]


def test_options_between_model_and_inputs_are_understood(model, tmp_path, capsys):
    folder = write_images(tmp_path / "in", 1)
    before = ["--save", "json", "yolo", model, "--batch", 1, folder, "--out", tmp_path / "out"]
    assert predict(*before) == 0
    assert set(tree(tmp_path / "out")) >= {"predictions.json", "labels/00.txt", "data.yaml"}
    with pytest.raises(SystemExit, match="2"):
        predict(model, folder, "--out", tmp_path / "other", "--nonsense")
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err


def test_the_formats_of_the_command_are_those_that_are_written():
    assert FORMATS == KINDS


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from ulga_d2.cli.main import main\n"
        "try: main(['predict', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'cv2', 'detectron2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True)


def test_a_folder_of_equal_names_and_other_files_is_another_job(model, tmp_path, capsys):
    first, second = (write_images(tmp_path / name, 2) for name in ("a", "b"))
    write_png(second / "00.png", 9, 50, 60)
    out = tmp_path / "out"
    assert predict(model, first, "--out", out) == 0
    message = refusal(capsys, model, second, "--out", out, "--resume")
    assert "was begun with another list of images" in message


def test_shards_are_not_for_the_processes_of_torchrun(model, tmp_path, capsys, monkeypatch):
    folder = write_images(tmp_path / "in", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refusal(capsys, model, folder, "--out", tmp_path / "out", "--shard", "1/2")
    assert "--shard is for processes that are started one by one" in message


def test_a_continued_output_counts_the_images_of_this_call_alone(model, tmp_path, capsys):
    folder, out = write_images(tmp_path / "in", 4), tmp_path / "out"
    assert predict(model, folder, "--out", out, "--batch", 2) == 0
    assert "images/s" in capsys.readouterr().out
    assert predict(model, folder, "--out", out, "--batch", 2, "--resume") == 0
    said = capsys.readouterr().out
    assert "4 images, " in said and "images/s" not in said
