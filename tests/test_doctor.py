"""`ulga doctor` and the `ulga` command, in a Python that has nothing but what a test puts there."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ulga_d2 import __version__
from ulga_d2.cli.main import COMMANDS, main
from ulga_d2.installation import machine
from ulga_d2.installation.detectron2_wheel import INSTALLER
from ulga_d2.installation.report import ERROR, NOTE, OK, WARNING, Fact, print_report

ROOT = Path(__file__).parent.parent
TORCH = """
from types import SimpleNamespace
__version__ = "2.14.1"
version = SimpleNamespace(cuda=None)
cuda = SimpleNamespace(is_available=lambda: False)
backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
zeros = lambda *shape: None
"""
TORCHVISION = """
from types import SimpleNamespace
__version__ = "0.29.2"
ops = SimpleNamespace(nms=lambda *args: None)
"""
WORKING = {
    "torch/__init__.py": TORCH,
    "torchvision/__init__.py": TORCHVISION,
    "cv2/__init__.py": "__version__ = '5.0.0'",
    "detectron2/__init__.py": '__version__ = "0.6"\n',
    "detectron2/config.py": "def get_cfg(): pass\n",
    **{f"detectron2/{name}.py": "" for name in ("data", "modeling", "evaluation", "engine")},
}
Doctor = Callable[..., tuple[int, list[str]]]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment without any package, not even pip."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


@pytest.fixture
def doctor(bare_python: Path, tmp_path: Path) -> Doctor:
    """Run the doctor in the bare Python, with these files on its path; return code and lines."""

    def run(files: dict[str, str] | None = None, **more_env: str) -> tuple[int, list[str]]:
        stubs = tmp_path / "stubs"
        for name, text in (files or {}).items():
            path = stubs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{stubs}:{ROOT}", **more_env}
        command = [str(bare_python), "-m", "ulga_d2.cli.main", "doctor"]
        result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert result.stderr == "" and "\033" not in result.stdout
        return result.returncode, result.stdout.splitlines()

    return run


def cure_of(lines: list[str], problem: str) -> str:
    """Return the cure under the one line that has `problem` in it."""
    (index,) = [i for i, line in enumerate(lines) if problem in line]
    assert lines[index].startswith(("error ", "warning ", "note ")), lines[index]
    assert lines[index + 1].startswith("        -> ")
    return lines[index + 1][len("        -> ") :]


def dist_info(name: str, version: str, *lines: str) -> dict[str, str]:
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    return {f"{name.replace('-', '_')}-{version}.dist-info/METADATA": text + "\n"}


def test_with_nothing_installed_it_says_what_to_install(doctor: Doctor, bare_python: Path):
    code, lines = doctor()
    assert code == 1
    assert cure_of(lines, "torch is missing") == f"{bare_python} -m pip install torch torchvision"
    assert cure_of(lines, "OpenCV is missing").endswith("pip install opencv-python-headless")
    assert cure_of(lines, "detectron2 is missing") == "ulga install-detectron2"
    assert cure_of(lines, "no brain_tumor in datasets/brain_tumor").startswith("ulga sample")
    assert lines[-1] == "Training cannot work here: 4 errors, 1 warning."
    for fact in ("Python 3.", "ulga_d2 ", "CPU: ", "memory: ", "disk: "):
        assert any(fact in line for line in lines), fact


def test_a_torch_that_does_not_import_is_told_from_a_missing_one(doctor: Doctor):
    broken = "raise OSError('libcudart.so.13: cannot open shared object file')"
    code, lines = doctor(WORKING | {"torch/__init__.py": broken})
    cure = cure_of(lines, "torch does not import: OSError: libcudart.so.13: cannot open")
    assert code == 1 and "--force-reinstall torch torchvision" in cure
    assert any("torchvision cannot be checked before torch imports" in line for line in lines)


def test_a_torch_that_kills_python_does_not_kill_the_doctor(doctor: Doctor):
    deadly = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    code, lines = doctor(WORKING | {"torch/__init__.py": deadly})
    assert code == 1 and cure_of(lines, "torch does not import: its import ended Python by SIGILL")


def test_a_torchvision_for_another_torch_is_named(doctor: Doctor):
    mismatch = "raise RuntimeError('operator torchvision::nms does not exist')"
    code, lines = doctor(WORKING | {"torchvision/__init__.py": mismatch})
    problem = "torchvision does not fit torch: RuntimeError: operator torchvision::nms does not"
    assert code == 1 and "--force-reinstall torch torchvision" in cure_of(lines, problem)
    assert any(line.startswith("ok      torch 2.14.1, built for CPU") for line in lines)


def test_a_broken_detectron2_is_named_with_its_place(doctor: Doctor, tmp_path: Path):
    old = WORKING | {"detectron2/data.py": "from PIL.Image import LINEAR"}
    code, lines = doctor(old | dist_info("detectron2", "0.6"))
    cure = cure_of(lines, "does not import: ModuleNotFoundError: No module named 'PIL'")
    assert code == 1 and cure.endswith("uninstall --yes detectron2 && ulga install-detectron2")
    assert any(f"detectron2 0.6 in {tmp_path / 'stubs' / 'detectron2'}" in line for line in lines)


@pytest.mark.parametrize(
    ("files", "origin"),
    [
        ({}, "of unknown origin (no package metadata)"),
        ({"INSTALLER": INSTALLER}, f"from the wheel sal-detectron2 0.7 by {INSTALLER}"),
        ({"INSTALLER": "pip"}, "from the package sal-detectron2 0.7"),
        (
            {"direct_url.json": '{"url": "URL", "vcs_info": {"commit_id": "02b5c4e1234"}}'},
            "from source, commit 02b5c4e1 of URL",
        ),
        (
            {"direct_url.json": '{"url": "file:///src/d2", "dir_info": {"editable": true}}'},
            "from the source folder /src/d2",
        ),
    ],
)
def test_the_origin_of_detectron2_is_told(doctor: Doctor, files: dict[str, str], origin: str):
    metadata = dist_info("sal-detectron2", "0.7", "Requires-Dist: numpy<2") if files else {}
    folder = "sal_detectron2-0.7.dist-info"
    _, lines = doctor(WORKING | metadata | {f"{folder}/{k}": v for k, v in files.items()})
    assert any(line.endswith(origin) for line in lines if "detectron2 0.6 in" in line)
    notes = [line for line in lines if "metadata asks for numpy<2: harmless" in line]
    assert len(notes) == (INSTALLER in files.values())


def test_a_dependency_that_is_missing_or_out_of_range_is_named(doctor: Doctor, tmp_path: Path):
    ranges = ("Requires-Dist: tqdm>=4.60", "Requires-Dist: omegaconf<2.4,>=2.1")
    extra = "Requires-Dist: timm>=1; extra == 'dev'"
    ours = dist_info("ulga_d2", "0.1.0", *ranges, "Requires-Dist: packaging>=23", extra)
    others = dist_info("omegaconf", "3.0") | dist_info("packaging", "26.3")
    packaging = Path(importlib.util.find_spec("packaging").origin).parent
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "packaging").symlink_to(packaging)
    _, lines = doctor(WORKING | ours | others)
    cure = cure_of(lines, "tqdm is missing; tqdm>=4.60 is asked for")
    assert cure.endswith("pip install 'tqdm>=4.60'")
    cure = cure_of(lines, "omegaconf 3.0 is out of range; omegaconf<2.4,>=2.1 is asked for")
    assert cure.endswith("pip install 'omegaconf<2.4,>=2.1'")
    assert not any("timm" in line for line in lines)


def test_versions_with_published_weaknesses_are_named_with_the_fix(doctor: Doctor, tmp_path: Path):
    packaging = Path(importlib.util.find_spec("packaging").origin).parent
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "packaging").symlink_to(packaging)
    _, lines = doctor(WORKING | dist_info("torch", "2.9.1") | dist_info("pillow", "12.1.0"))
    cure = cure_of(lines, "torch 2.9.1 is vulnerable (CVE-2026-24747: a checkpoint can run code")
    assert cure.endswith("pip install 'torch>=2.10' torchvision")
    cure = cure_of(lines, "pillow 12.1.0 is vulnerable (CVE-2026-25990: ")
    assert cure.endswith("pip install 'pillow>=12.3'")
    for name in ("torch", "pillow"):
        (folder,) = (tmp_path / "stubs").glob(f"{name}-*.dist-info")
        (folder / "METADATA").unlink()
        folder.rmdir()
    _, lines = doctor(WORKING | dist_info("torch", "2.10.0+cu130") | dist_info("pillow", "13.0.0"))
    assert not any("vulnerable" in line for line in lines)


def test_two_opencv_wheels_are_a_clash(doctor: Doctor):
    wheels = dist_info("opencv-python", "5.0") | dist_info("opencv-python-headless", "5.0")
    _, lines = doctor(WORKING | wheels)
    cure = cure_of(lines, "opencv-python and opencv-python-headless overwrite each other's files")
    assert "uninstall --yes opencv-python opencv-python-headless && " in cure


def test_data_sets_are_found(doctor: Doctor, tmp_path: Path):
    for folder in ("images/train", "labels/train", "images/val", "labels/val"):
        (tmp_path / "sets" / "brain_tumor" / folder).mkdir(parents=True)
    _, lines = doctor(DETECTRON2_DATASETS=str(tmp_path / "sets"))
    assert f"ok      data: brain_tumor (YOLO: train, val) in {tmp_path}/sets/brain_tumor" in lines


def test_this_environment_can_train(capfd: pytest.CaptureFixture[str]):
    code = main(["doctor"])
    out = capfd.readouterr().out
    assert code == 0, out
    assert "fits torch (ran an operator)" in out and "Training can work here: 0 errors" in out


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    facts = [Fact(OK, "fine"), Fact(ERROR, "broken", "mend it")]
    plain, coloured = io.StringIO(), Terminal()
    print_report(facts, plain)
    print_report(facts, coloured)
    assert plain.getvalue().splitlines() == [
        "ok      fine",
        "error   broken",
        "        -> mend it",
        "Training cannot work here: 1 error, 0 warnings.",
    ]
    assert "\033[31merror" in coloured.getvalue()


def test_devices_are_told():
    gpu = {"name": "NVIDIA H200", "bytes": 139 * 2**30}
    device = {"gpus": [gpu], "gpu_bf16": True, "cuda_warning": "", "mps": True}
    texts = [fact.text for fact in machine.device_facts(device, cores=2, cpu_bf16=True)]
    assert texts[0].endswith("cores, bf16")
    assert texts[1] == "GPU: NVIDIA H200, 139.0 GiB, bf16; training takes it by itself"
    assert texts[2] == "MPS: there; taken when asked for, MODEL.DEVICE mps"


@pytest.mark.parametrize(("free", "level"), [(50, OK), (1, WARNING), (0.1, ERROR)])
def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, free: float, level: str):
    usage = type("Usage", (), {"free": free * 2**30})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    (fact,) = machine.disk_facts(Path("."))
    assert fact.level == level and fact.text.startswith(f"disk: {free:.1f} GiB free in .")


def test_no_gpu_is_only_a_note():
    device = {"gpus": [], "gpu_bf16": False, "cuda_warning": "", "mps": False}
    if not Path("/proc/driver/nvidia/version").exists():
        assert machine.device_facts(device, cores=2, cpu_bf16=False)[-1].level == NOTE


def test_ulga_alone_prints_its_help(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert main(["docter"]) == 2
    assert capsys.readouterr().err == "error: unknown command docter; did you mean doctor?\n"


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"ulga_d2 {__version__}\n"
