"""Folders are walked once for all readers, and image names resolve alike in all formats."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path

import pytest

from ulga_d2.data.formats.files import (
    AMENDED,
    BROKEN,
    HIDDEN,
    LOOP,
    SPECIAL,
    SWAPPED,
    TWICE,
    ImageFolder,
    files_by_stem,
    walk_folder,
)
from ulga_d2.data.report import DataReport, Faults
from ulga_d2.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n"


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def find(folder: Path, name: str, **options: bool) -> tuple[Path, DataReport, Faults]:
    report, faults = DataReport(), Faults()
    return ImageFolder(folder, report, faults).find(name, "line 1", **options), report, faults


NFD, NFC = (unicodedata.normalize(form, "Größe_é.png") for form in ("NFD", "NFC"))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("sub/a.png", "sub\\a.png"),
        ("sub/a.png", "/sub/a.png"),
        ("sub/a.png", "./other/../sub//A.png"),
        ("sub/a.png", "e:\\sub\\a.png"),
        ("sub/a.png", "c:sub/a.png"),
        ("a b.png", "a%20b.png"),
        ("a%20b.png", "a b.png"),
        (NFD, NFC),
        (NFC, NFD),
        ("straße.png", "STRASSE.PNG"),
        ("a.png", "A.PNG"),
        ("A.JPG", "a.jpg"),
        ("a.png", "a"),
        ("scan.1", "scan"),
        ("a.png", " a.png "),
        ("sub /a.png", "sub/a.png"),
        ("a.png", "images/a.png"),
        ("a.png", "set/Images/a.png"),
        ("a.png", "/mnt/disk/images/a.png"),
        ("sub/a.tif", "D:\\data\\images\\sub\\a.TIFF"),
    ],
)
def test_the_one_file_that_a_name_means_is_taken_and_noted(tmp_path, file, name):
    folder = tmp_path / "set" / "images"
    path = touch(folder / file, PNG)
    touch(folder / "a.txt")  # no image, so it is no candidate
    found, report, faults = find(folder, name)
    assert found == path
    faults.stop_if_any()
    assert report.reasons == {AMENDED: 1}
    assert report.places[AMENDED][0].startswith(f"line 1: {name} is ")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.png", "a.jpg"),
        ("a.jpeg", "a.dcm"),
        ("a.png.jpg", "a.png"),
        ("sub/a.png", "/x/sub/a.TIF"),
    ],
)
def test_a_suffix_that_no_file_has_is_swapped_and_noted_by_itself(tmp_path, file, name):
    path = touch(tmp_path / file)
    touch(tmp_path / "notes.txt")
    found, report, _ = find(tmp_path, name.replace("/x", f"/x/{tmp_path.name}"))
    assert found == path and report.reasons == {SWAPPED: 1}


@pytest.mark.parametrize("mask", ["3.png", "3.jpg.png", "3.dcm", "3.tif"])
@pytest.mark.parametrize("name", ["3.jpg", "3.JPEG", "images/3.jpg"])
def test_an_image_is_missing_where_others_have_its_suffix_and_a_mask_its_name(tmp_path, mask, name):
    folder = tmp_path / "images"
    for file in ("1.jpg", "2.jpg", mask):
        touch(folder / file)
    found, report, faults = find(folder, name)
    assert found == folder / name and not report.reasons
    faults.stop_if_any()


def test_two_suffixes_of_one_format_are_one_beside_a_mask(tmp_path):
    for file in ("1.jpg", "3.jpeg", "3.png"):
        touch(tmp_path / file)
    found, report, _ = find(tmp_path, "3.jpg")
    assert found == tmp_path / "3.jpeg" and report.reasons == {AMENDED: 1}


def test_a_file_of_the_very_name_is_taken_without_a_walk(tmp_path, monkeypatch):
    touch(tmp_path / "a%20b.png")
    touch(tmp_path / "a b.png")
    touch(tmp_path / ".hidden" / "c.png")
    monkeypatch.setattr("ulga_d2.data.formats.files.walk_folder", None)
    for name in ("a%20b.png", "a b.png", ".hidden/c.png", str(tmp_path / "a b.png")):
        found, report, _ = find(tmp_path, name)
        assert found == tmp_path / name
        assert not report.reasons


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["A.png", "a.PNG"], "a.png"),
        (["a.png", "a.jpg"], "a"),
        (["a.png", "a.tif"], "a.jpg"),
        (["a b.png", "a%20b.png"], "A%20b.png"),
        ([NFC, NFD], NFC.upper()),
    ],
)
def test_a_name_that_fits_two_files_is_a_fault(tmp_path, files, name):
    for file in files:
        touch(tmp_path / file)
    _, report, faults = find(tmp_path, name)
    with pytest.raises(UserError, match=r"line 1: .* could be .* and .*; write the name of one"):
        faults.stop_if_any()
    assert not report.reasons


def test_the_nearer_of_two_files_is_taken(tmp_path):
    path = touch(tmp_path / "A.jpg")
    touch(tmp_path / "a.png")
    assert find(tmp_path, "a.JPG")[0] == path


@pytest.mark.parametrize(
    "name",
    [
        "b.png",
        "val/a.png",
        "set/val/a.png",
        "/mnt/disk/val/a.png",
        "other/train/a.png",
        "a.png/",
        "a.v2",
        "",
        ".",
        "..",
        "a\0.png",
        "x" * 5000,
        "\ud800",
    ],
)
def test_a_name_that_means_no_file_of_the_folder_is_missing(tmp_path, name):
    folder = tmp_path / "set" / "train"
    touch(folder / "a.png")
    touch(tmp_path / "set" / "val" / "b.png")
    found, report, faults = find(folder, name)
    assert found == folder / name
    faults.stop_if_any()
    assert not report.reasons


def test_a_name_of_a_sibling_folder_of_the_same_name_is_missing(tmp_path):
    folder = tmp_path / "train" / "images"
    touch(folder / "a.png")
    touch(tmp_path / "val" / "images" / "b.png")
    for name in ("val/images/a.png", f"{tmp_path}/val/images/a.png", "/x/val/images/a.png"):
        assert find(folder, name)[0] == folder / name


def test_a_name_that_leads_out_of_the_folder_to_a_file_is_a_fault(tmp_path):
    secret = touch(tmp_path / "secret.png")
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("../secret.png", str(secret), "../images/../secret.png"):
        _, _, faults = find(folder, name)
        with pytest.raises(UserError, match=r"leads to a file outside .*images; write a name"):
            faults.stop_if_any()
    # A name without such a file is just missing; a link is how a user brings files in.
    find(folder, "../nothing.png")[2].stop_if_any()
    (folder / "linked.png").symlink_to(secret)
    assert find(folder, "linked.png")[0] == folder / "linked.png"
    inside = touch(folder / "a.png")
    assert os.path.samefile(find(folder, "../images/a.png")[0], inside)


def test_a_name_longer_than_any_path_is_missing_at_once(tmp_path):
    touch(tmp_path / "a.png")
    started = time.process_time()
    assert find(tmp_path, "a/" * 500_000 + "a.png")[0].name == "a.png"
    assert time.process_time() - started < 2


def test_a_stem_needs_no_suffix_but_another_case_is_noted(tmp_path):
    path = touch(tmp_path / "a.dicom")
    found, report, _ = find(tmp_path, "a", is_stem=True)
    assert (found, report.reasons) == (path, {})
    found, report, _ = find(tmp_path, "A", is_stem=True)
    assert (found, report.reasons) == (path, {AMENDED: 1})


def test_a_missing_file_comes_with_the_name_that_is_most_like_it(tmp_path):
    touch(tmp_path / "sub" / "case_017.png")
    touch(tmp_path / "case_16x.png")
    folder = ImageFolder(tmp_path, DataReport(), Faults())
    assert folder.suggestion("case_017.png") == "; did you mean sub/case_017.png?"
    for name in ("/data/u/some/where/else/CASE_017.png", "D:\\x\\case_017.jpg"):
        assert folder.suggestion(name) == "; did you mean sub/case_017.png?"
    assert folder.suggestion("case_16.png") == "; did you mean case_16x.png?"
    assert folder.suggestion("zzz") == ""


def test_100000_names_resolve_in_seconds(tmp_path):
    count = 100_000
    for number in range(count):
        os.close(os.open(tmp_path / f"image_{number:06d}.PNG", os.O_CREAT))
    report, faults = DataReport(), Faults()
    start = time.process_time()
    folder = ImageFolder(tmp_path, report, faults)
    for number in range(count):
        folder.find(f"image_{number:06d}.png", "file")
    assert time.process_time() - start < 20
    assert report.reasons == {AMENDED: count}
    start = time.process_time()
    for number in range(20):
        folder.suggestion(f"imag_{number}.png")
    assert time.process_time() - start < 5


def on_disk(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def test_everything_on_the_disk_is_read_or_counted_with_its_reason(tmp_path):
    folder = tmp_path / "images"
    read = [touch(folder / name) for name in ("a.png", "deep/b.JPG", "deep/er/c.tif")]
    read.append(touch(folder / "no_suffix", PNG))
    read.append(touch(folder / "film.ima", bytes(128) + b"DICM" + bytes(100)))
    for name in (".DS_Store", "Thumbs.db", "._a.png", ".ipynb_checkpoints/a-checkpoint.png"):
        touch(folder / name)
    for name in ("@eaDir/a.png/thumb.png", "__MACOSX/._a.png", "deep/lost+found/x.png"):
        touch(folder / name)
    for name in ("a.txt", "b.txt", "notes.docx", "empty", "$RECYCLE.BIN/a.png", "DICOMDIR"):
        touch(folder / name)
    (folder / "broken.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    report = DataReport()
    files = files_by_stem(folder, None, report)
    assert sorted(files.values()) == sorted(read)
    assert report.reasons == {
        HIDDEN: 9,
        BROKEN: 1,
        SPECIAL: 1,
        "files not read (.txt)": 2,
        "files not read (.docx)": 1,
        "files not read (no suffix)": 1,
    }
    assert len(read) + report.reasons.total() == on_disk(folder)


def test_linked_folders_are_followed_once_and_never_in_circles(tmp_path):
    folder, pool = tmp_path / "set" / "images", tmp_path / "pool"
    touch(folder / "a.png")
    touch(folder / "real" / "b.png")
    touch(pool / "c.png")
    touch(pool / "inner" / "d.png")
    (folder / "linked").symlink_to(pool)
    (folder / "linked_too").symlink_to(pool / "inner")
    (folder / "again").symlink_to(folder / "real")
    (folder / "self").symlink_to("self")
    (folder / "up").symlink_to(tmp_path)
    (folder / "real" / "loop").symlink_to(folder)
    (pool / "back").symlink_to(pool)
    walk = walk_folder(folder)
    names = [path.relative_to(folder).as_posix() for path in walk.files]
    assert names == ["a.png", "linked/c.png", "linked/inner/d.png", "real/b.png"]
    reasons = sorted((path.name, reason) for reason, path, _ in walk.skipped)
    assert reasons == [
        ("again", TWICE),
        ("back", LOOP),
        ("linked_too", TWICE),
        ("loop", LOOP),
        ("self", BROKEN),
        ("up", LOOP),
    ]


def test_links_that_double_with_each_level_are_walked_in_no_time(tmp_path):
    folders = [tmp_path / f"level{number:02d}" for number in range(40)]
    for folder in folders:
        folder.mkdir()
        touch(folder / "a.png")
    for folder, below in zip(folders, folders[1:], strict=False):
        (folder / "one").symlink_to(below)
        (folder / "two").symlink_to(below)
    assert len(walk_folder(folders[0]).files) == 40


def test_ten_thousand_suffixes_stay_a_short_report(tmp_path):
    for number in range(300):
        touch(tmp_path / f"a.s{number}")
    touch(tmp_path / "a.\x1b[31m")
    report = DataReport()
    files_by_stem(tmp_path, None, report)
    assert len(report.reasons) <= 21
    assert report.reasons.total() == 301
