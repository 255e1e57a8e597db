"""RSNA Pneumonia: the challenge's files in, records out."""

from __future__ import annotations

import pytest
from chest_files import ids_of, write_rsna
from data_files import boxes_of

from ulga_d2.data.formats.files import HIDDEN
from ulga_d2.data.record import EMPTIED
from ulga_d2.data.release import SAMPLE_FILE, UNLIKE_RELEASE
from ulga_d2.data.rsna_pneumonia import UNLISTED, load_rsna_pneumonia
from ulga_d2.errors import UserError

SICK, HEALTHY = ids_of("train", 2)
ROWS = [
    f"{SICK},264.0,152.0,213.0,379.0,1",
    f"{SICK},562.0,152.0,256.0,453.0,1",
    f"{HEALTHY},,,,,0",
    f"{ids_of('val', 1)[0]},1.0,2.0,3.0,4.0,1",
    f"{ids_of('test', 1)[0]},,,,,0",
]


def test_positives_have_a_box_a_row_and_negatives_stay_without(tmp_path):
    loaded = load_rsna_pneumonia(write_rsna(tmp_path, ROWS), "train")
    assert loaded.class_names == ("Lung Opacity",)
    records = {record["image_id"]: record for record in loaded.records}
    assert boxes_of(records[SICK]) == [[264, 152, 477, 531], [562, 152, 818, 605]]
    assert records[HEALTHY]["annotations"] == []
    assert records[SICK]["file_name"] == str(tmp_path / "stage_2_train_images" / f"{SICK}.dcm")
    assert (records[SICK]["height"], records[SICK]["patient_id"]) == (1024, SICK)
    assert loaded.report.places[UNLIKE_RELEASE] == [
        "boxes: 3 here, 9,555 there",
        "images: 4 here, 26,684 there",
    ]


def test_detailed_classes_are_joined_without_inflating(tmp_path):
    details = [
        f"{SICK},Lung Opacity",
        f"{SICK},Lung Opacity",
        f"{HEALTHY},No Lung Opacity / Not Normal",
    ]
    loaded = load_rsna_pneumonia(write_rsna(tmp_path, ROWS, details), "train")
    assert {r["image_id"]: r["detailed_class"] for r in loaded.records} == {
        SICK: "Lung Opacity",
        HEALTHY: "No Lung Opacity / Not Normal",
    }
    assert loaded.report.boxes.total() == 2


@pytest.mark.parametrize(
    ("details", "message"),
    [
        ([f"{SICK},Normal", f"{SICK},Lung Opacity"], r"is 'Lung Opacity' here and 'Normal' before"),
        ([f"{SICK},Abnormal"], r"unknown classes 'Abnormal' \(1 boxes\); there are Lung Opacity"),
    ],
)
def test_faulty_detailed_classes_stop(tmp_path, details, message):
    with pytest.raises(UserError, match=message):
        load_rsna_pneumonia(write_rsna(tmp_path, ROWS, details), "train")


def test_a_detailed_class_against_the_target_is_listed(tmp_path):
    loaded = load_rsna_pneumonia(write_rsna(tmp_path, ROWS, [f"{SICK},Normal"]), "train")
    assert loaded.report.reasons["detailed classes that contradict the target"] == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{SICK},,,,,1", r"line 7: x is empty; write the number"),
        (f"{HEALTHY},1,2,3,4,0", r"Target is 0, but there is a box"),
        (f"{HEALTHY},1,2,3,4,1", rf"{HEALTHY} has Target 0 and 1"),
        (f"{SICK},1,2,3,4,2", r"Target is '2', not 0 or 1"),
        (f'{SICK},"1,5",2,3,4,1', r"'1,5' is not a number; write a decimal point"),
        (",1,2,3,4,1", r"has no patientId"),
    ],
)
def test_a_faulty_row_stops_with_its_line(tmp_path, row, message):
    write_rsna(tmp_path, ROWS)
    with (tmp_path / "stage_2_train_labels.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(UserError, match=message):
        load_rsna_pneumonia(tmp_path, "train")


def test_repeated_negatives_and_unlisted_images_are_counted(tmp_path):
    write_rsna(tmp_path, [*ROWS, ROWS[2]])
    images = tmp_path / "stage_2_train_images"
    unlisted = ids_of("train", 3)[2]
    (images / f"{unlisted}.dcm").write_bytes((images / f"{SICK}.dcm").read_bytes())
    (tmp_path / SAMPLE_FILE).write_text("{}")
    loaded = load_rsna_pneumonia(tmp_path, "train")
    assert len(loaded.records) == 2
    assert loaded.report.reasons == {
        "repeated rows of images without boxes skipped": 1,
        UNLISTED: 1,
    }
    assert (loaded.report.found_images, loaded.report.dropped_images) == (3, 1)


def test_hidden_files_are_no_images(tmp_path):
    images = write_rsna(tmp_path, ROWS) / "stage_2_train_images"
    for path in [*images.iterdir()]:
        (images / f"._{path.name}").write_bytes(b"of another system")
    loaded = load_rsna_pneumonia(tmp_path, "train")
    assert len(loaded.records) == 2
    assert loaded.report.reasons[HIDDEN] == 4


def test_a_positive_that_lost_its_boxes_is_no_negative(tmp_path):
    row = f"{SICK},264.0,152.0,0.0,379.0,1"
    loaded = load_rsna_pneumonia(write_rsna(tmp_path, [row, *ROWS[2:]]), "train")
    assert [record["image_id"] for record in loaded.records] == [HEALTHY]
    assert loaded.report.reasons[EMPTIED] == 1


def test_the_unlabelled_test_images_are_never_read(tmp_path):
    write_rsna(tmp_path, ROWS)
    (tmp_path / "stage_2_test_images").mkdir()
    (tmp_path / "stage_2_test_images" / "x.dcm").write_bytes(b"")
    loaded = [load_rsna_pneumonia(tmp_path, split) for split in ("train", "val", "test")]
    assert [len(split.records) for split in loaded] == [2, 1, 1]
