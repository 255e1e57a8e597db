"""NIH Chest X-ray: the release's files in, records out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from chest_files import QUOTED_BOX_HEADER, patients_of, write_entries, write_film, write_nih
from data_files import boxes_of

from ulga_d2.data.nih_chest_xray import CLASS_NAMES, load_nih_chest_xray
from ulga_d2.data.options import DatasetOptions
from ulga_d2.data.release import SAMPLE_FILE, UNLIKE_RELEASE
from ulga_d2.data.sample.write import MANIFEST
from ulga_d2.errors import UserError

A, B = patients_of("train", 2)
ROWS = [
    f"{A}_000.png,Infiltrate,225.5,547,86.75,79.25",
    f"{A}_000.png,Mass,225.5,547,86.75,79.25",
    f"{A}_003.png,Nodule,10,20,30,40",
    f"{B}_001.png,Effusion,100,200,300,400",
    f"{patients_of('val', 1)[0]}_000.png,Pneumonia,1,2,3,4",
    f"{patients_of('test', 1)[0]}_000.png,Cardiomegaly,1,2,3,4",
]


def load(root: Path, split: str = "train", **options):
    return load_nih_chest_xray(root, split, DatasetOptions(**options))


@pytest.mark.parametrize(
    ("header", "folder", "end"),
    [
        ("Image Index,Finding Label,Bbox [x,y,w,h],,,\n", "images", "\n"),
        (QUOTED_BOX_HEADER, "images_004/images", "\n"),
        ("\ufeffImage Index,Finding Label,Bbox [x,y,w,h],,,\n", ".", "\r\n"),
    ],
)
def test_the_box_file_becomes_records(tmp_path, header, folder, end):
    write_nih(tmp_path, [row + end.strip("\n") for row in ROWS], header=header, folder=folder)
    loaded = load(tmp_path)
    assert loaded.class_names == CLASS_NAMES
    first, second, third = loaded.records
    assert first["file_name"] == str(tmp_path / folder / f"{A}_000.png")
    assert (first["patient_id"], second["patient_id"], third["patient_id"]) == (A, A, B)
    assert (first["height"], first["width"]) == (1024, 1024)
    # equal boxes of two classes are both true
    assert boxes_of(first) == [[225.5, 547, 312.25, 626.25]] * 2
    names = [CLASS_NAMES[item["category_id"]] for item in first["annotations"]]
    assert names == ["Infiltration", "Mass"]
    assert boxes_of(third) == [[100, 200, 400, 600]]


def test_files_that_are_neither_images_nor_documents_of_the_release_are_counted(tmp_path):
    write_nih(tmp_path, ROWS)
    for name in ("notes.txt", "images/extra.jpg", "images/renamed.png"):
        (tmp_path / name).write_bytes(b"x")
    before = load(tmp_path).report.reasons
    assert {key: before[key] for key in before if key.startswith("files not read")} == {
        "files not read (.jpg)": 1,
        "files not read (.png)": 1,
    }


def test_a_patient_is_in_one_split_and_every_box_in_some(tmp_path):
    write_nih(tmp_path, ROWS)
    splits = {split: load(tmp_path, split) for split in ("train", "val", "test")}
    counts = [len(loaded.records) for loaded in splits.values()]
    assert counts == [3, 1, 1]
    assert sum(loaded.report.found_boxes for loaded in splits.values()) == len(ROWS)


def test_numbers_unlike_the_releases_are_noted_with_both_but_not_for_a_sample(tmp_path):
    write_nih(tmp_path, ROWS)
    report = load(tmp_path).report
    assert report.places[UNLIKE_RELEASE] == [
        "boxes: 6 here, 984 there",
        "images with boxes: 5 here, 880 there",
    ]
    assert SAMPLE_FILE == MANIFEST
    (tmp_path / SAMPLE_FILE).write_text("{}")
    assert load(tmp_path).report.reasons == Counter()


def test_negatives_are_a_fixed_sample_of_the_splits_own_patients(tmp_path):
    write_nih(tmp_path, ROWS)
    healthy = [f"{patient}_009.png" for patient in patients_of("train", 8)]
    other = f"{patients_of('val', 1)[0]}_009.png"
    write_entries(
        tmp_path,
        dict.fromkeys([*healthy, other], "No Finding")
        | {f"{B}_007.png": "Hernia|Mass", f"{B}_001.png": "Effusion"},
    )
    (tmp_path / "images_001/images" / f"{B}_001.png").unlink()
    few, more = (load(tmp_path, nih_negatives=number) for number in (3, 5))
    chosen = [{r["image_id"] for r in part.records if not r["annotations"]} for part in (few, more)]
    assert [len(names) for names in chosen] == [3, 5]
    assert chosen[0] < chosen[1] <= set(healthy)
    assert few.report.empty_images == 3 and len(few.records) == 6
    assert load(tmp_path, "val", nih_negatives=1).report.empty_images == 1
    with pytest.raises(UserError, match=r"NIH_NEGATIVES is 9, but .* holds 8 images of train"):
        load(tmp_path, nih_negatives=9)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{A}_000.png,Hernia,1,2,3,4", r"unknown classes 'Hernia' \(1 boxes\); there are Atelec"),
        (f"{A}_000.png,mass,1,2,3,4", r"unknown classes 'mass'"),
        (f"{A}_000.png,Mass,1,2,3,", r"line 8: h is empty; write the number"),
        (f'{A}_000.png,Mass,"1,5",2,3,4', r"'1,5' is not a number; write a decimal point"),
        (f"{A}_000.png,Mass,1,2,x,4", r"line 8: w 'x' is not a number"),
        ("a.png,Mass,1,2,3,4", r"line 8: 'a\.png' is no image name such as 00000001_000\.png"),
        (f"{A}_000.png,Mass,1,2,3", r"line 8: 5 cells instead of 6"),
    ],
)
def test_a_faulty_row_stops_with_its_line(tmp_path, row, message):
    write_nih(tmp_path, ROWS)
    with (tmp_path / "BBox_List_2017.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_odd_boxes_are_dropped_or_mended_and_counted(tmp_path):
    rows = [
        f"{A}_000.png,Mass,{box}"
        for box in ("1,2,0,4", "1,2,-3,4", "2000,2,3,4", "-5,0,10,10", "1,2,3,4")
    ]
    report = load(write_nih(tmp_path, [*rows, rows[-1]])).report
    del report.reasons[UNLIKE_RELEASE]
    assert report.reasons == {
        "boxes without area dropped": 2,
        "boxes outside the image dropped": 1,
        "boxes clipped to the image": 1,
        "exact duplicates dropped": 1,
    }


def test_a_few_unusable_images_are_dropped_with_their_boxes_and_many_refused(tmp_path):
    rows = [f"{A}_{number:03d}.png,Mass,1,2,3,4" for number in range(200)]
    write_nih(tmp_path, rows, folder="first")
    (tmp_path / "first" / f"{A}_000.png").unlink()
    (tmp_path / "first" / f"{A}_001.png").write_bytes(b"no image")
    report = load(tmp_path).report
    assert (report.dropped_images, report.dropped_boxes, report.images) == (2, 2, 198)
    (tmp_path / "first" / f"{A}_002.png").unlink()
    with pytest.raises(
        UserError, match=r"3 images that .* missing or unreadable, of 200 \(more than 1 %\)"
    ):
        load(tmp_path)


def test_images_of_another_size_are_refused_unless_it_is_a_sample(tmp_path):
    write_nih(tmp_path, ROWS)
    write_film(tmp_path / "images" / f"{A}_003.png", mode="RGBA", side=512)
    with pytest.raises(
        UserError,
        match=r"says height 1024 and width 1024, but .* has 512 and 512; .*put back the image",
    ):
        load(tmp_path)
    (tmp_path / SAMPLE_FILE).write_text("{}")
    assert len(load(tmp_path).records) == 3


def test_missing_or_ambiguous_files_are_named_with_the_cure(tmp_path):
    with pytest.raises(UserError, match=r"does not exist.*ulga sample nih_chest_xray"):
        load(tmp_path / "nih_chest_xray")
    with pytest.raises(UserError, match=r"holds no BBox_List_2017\.csv; put the release's there"):
        load(tmp_path)
    write_nih(tmp_path, ROWS)
    write_film(tmp_path / "copy" / f"{A}_000.png")
    with pytest.raises(UserError, match="have one name, so which one has the boxes is unclear"):
        load(tmp_path)
