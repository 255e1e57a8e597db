"""detectron2's installer, offline on a small wheel of the same make; what make checks first."""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import re
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

import ulga_d2
from ulga_d2.cli.main import main
from ulga_d2.errors import UserError
from ulga_d2.installation import detectron2_wheel
from ulga_d2.installation.detectron2_wheel import find_detectron2, install, read_version

ROOT = Path(__file__).parent.parent
WHEEL = "sal_detectron2-9.9-cp310-none-any.whl"
DIST_INFO = "sal_detectron2-9.9.dist-info"
CONTENTS = {
    "detectron2/__init__.py": '__version__ = "9.9"\n',
    "detectron2/config/defaults.py": "",
    "detectron2/_C.cpython-310-x86_64-linux-gnu.so": "not for this Python",
    "tools/__init__.py": "",
    "tools/train_net.py": "not asked for",
    f"{DIST_INFO}/METADATA": "Metadata-Version: 2.1\nName: sal-detectron2\nVersion: 9.9\n",
    f"{DIST_INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-none-any\n",
    f"{DIST_INFO}/top_level.txt": "detectron2\ntools\n",
    f"{DIST_INFO}/RECORD": "as published\n",
}


@pytest.fixture
def requirement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pinned requirement file, and pip told to look for its wheel in one folder only."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, text in CONTENTS.items():
            archive.writestr(name, text)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    digest = hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()
    return write_requirement(tmp_path, digest)


def write_requirement(folder: Path, digest: str, version: str = "9.9") -> Path:
    path = folder / "requirement.txt"
    path.write_text(f"# why\nsal-detectron2=={version} --hash=sha256:{digest}\n")
    return path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages folder in which the user has a package `tools`."""
    path = tmp_path / "site"
    (path / "tools").mkdir(parents=True)
    (path / "tools" / "mine.py").write_text("mine")
    return path


def files_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_only_the_plain_package_and_its_metadata_are_installed(requirement, site):
    package = install(site, requirement)
    assert package == site / "detectron2" and read_version(package) == "9.9"
    metadata = {"METADATA", "WHEEL", "RECORD", "INSTALLER", "top_level.txt"}
    assert files_in(site) == {
        "tools/mine.py",
        "detectron2/__init__.py",
        "detectron2/config/defaults.py",
        *(f"{DIST_INFO}/{name}" for name in metadata),
    }
    assert (site / DIST_INFO / "top_level.txt").read_text() == "detectron2\n"


def test_record_lists_what_lies_there_so_that_pip_can_uninstall_it(requirement, site):
    install(site, requirement)
    with (site / DIST_INFO / "RECORD").open(newline="") as file:
        record = {name: (digest, size) for name, digest, size in csv.reader(file)}
    assert record.keys() == files_in(site) - {"tools/mine.py"}
    assert record.pop(f"{DIST_INFO}/RECORD") == ("", "")
    for name, (digest, size) in record.items():
        data = (site / name).read_bytes()
        expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={expected}", len(data))


def test_one_that_can_be_imported_is_kept(site, capsys):
    (site / "detectron2").mkdir()
    (site / "detectron2" / "__init__.py").write_text('__version__ = "0.6"\n')
    before = files_in(site)
    assert main(["install-detectron2", "--target", str(site)]) == 0
    assert capsys.readouterr().out == (
        f"detectron2 0.6 is there already, in {site / 'detectron2'}; kept\n"
    )
    assert files_in(site) == before


def test_command_installs_once(requirement, site, monkeypatch, capsys):
    pinned = functools.partial(install, requirement=requirement)
    monkeypatch.setattr("ulga_d2.cli.install_detectron2.install", pinned)
    command = ["install-detectron2", "--target", str(site)]
    assert main(command) == 0 and main(command) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"detectron2 9.9 installed in {site / 'detectron2'}"
    assert second.endswith("kept")


def test_another_hash_is_refused_and_leaves_nothing(requirement, site, tmp_path):
    write_requirement(tmp_path, "0" * 64)
    with pytest.raises(UserError, match="does not have the pinned sha256 0000"):
        install(site, requirement)
    assert files_in(site) == {"tools/mine.py"}


def test_hash_is_checked_even_if_pip_does_not(requirement, site, tmp_path, monkeypatch):
    def careless_pip(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        shutil.copy(tmp_path / "index" / WHEEL, folder)
        return subprocess.CompletedProcess(command, 0, "", "")

    write_requirement(tmp_path, "0" * 64)
    monkeypatch.setattr(subprocess, "run", careless_pip)
    with pytest.raises(UserError, match="not the pinned 0000"):
        install(site, requirement)
    assert files_in(site) == {"tools/mine.py"}


def test_without_the_wheel_the_message_says_what_to_run(requirement, site, tmp_path):
    write_requirement(tmp_path, "0" * 64, version="7.7")
    with pytest.raises(UserError) as caught:
        install(site, requirement)
    message = str(caught.value)
    assert "could not download sal-detectron2==7.7 (No matching distribution found" in message
    assert "pip download" in message and "PIP_FIND_LINKS=FOLDER ulga install-detectron2" in message


def test_a_killed_run_leaves_no_half_package_and_the_next_one_finishes(
    requirement, site, monkeypatch
):
    def killed(self, target):
        if self.name == "detectron2":
            raise KeyboardInterrupt
        return rename(self, target)

    rename = Path.rename
    (site / ".ulga-detectron2-killed").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        install(site, requirement)
    assert find_detectron2(site) is None
    assert find_detectron2(install(site, requirement).parent) == site / "detectron2"
    assert not list(site.glob(".ulga*"))


def test_a_folder_of_the_users_is_not_replaced(requirement, site):
    (site / "detectron2").mkdir()
    (site / "detectron2" / "notes.txt").write_text("mine")
    assert find_detectron2(site) is None
    with pytest.raises(UserError, match="exists and is no package; move it away"):
        install(site, requirement)
    assert (site / "detectron2" / "notes.txt").read_text() == "mine"


def test_a_target_that_cannot_be_written_is_named(requirement, tmp_path):
    with pytest.raises(UserError, match="cannot write .*requirement.txt.*virtual environment"):
        install(requirement / "site", requirement)


def test_every_dependency_has_a_tested_version():
    text = (ROOT / "pyproject.toml").read_text()
    asked = re.findall(r'"([A-Za-z][\w.-]*)[><=]=', text.split("[project.scripts]")[0])
    pins = (ROOT / "constraints.txt").read_text()
    missing = [
        name for name in asked
        if name != "hatchling" and not re.search(rf"^{name}==", pins, re.MULTILINE | re.IGNORECASE)
    ]  # fmt: skip
    assert asked and not missing


def test_configs_are_data_of_the_package():
    packaged = Path(ulga_d2.__file__).parent / "configs"
    names = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert names and {path.name for path in packaged.glob("*.yaml")} == names
    assert (packaged / "_base_" / "swin.yaml").is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("broken", "message"),
    [("ensurepip", "apt-get install python3-venv"), ("version_info", "Python 3.10 or newer")],
)
def test_make_names_what_is_missing(tmp_path, broken, message):
    clone = tmp_path / "a clone"
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        clone.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, clone)
    (clone / "ulga_d2" / "installation").mkdir(parents=True)
    shutil.copy(detectron2_wheel.REQUIREMENT, clone / "ulga_d2" / "installation")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *{broken}*) exit 1;; esac\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    result = subprocess.run(
        ["make", "test", f"PYTHON={python}"], cwd=clone, capture_output=True, text=True
    )
    assert result.returncode == 2 and message in result.stdout + result.stderr
    assert not (clone / ".venv").exists()
