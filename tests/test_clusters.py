"""What is drawn as one: a patient's images, runs of slices, or each image by itself."""

from __future__ import annotations

import pytest

from ulga_d2.errors import UserError
from ulga_d2.evaluation.clusters import cluster_numbers, clusters_in_words, default_clusters


def record(name, *classes, **more):
    annotations = [{"category_id": number} for number in classes]
    return {"image_id": name, "file_name": f"val/{name}.jpg", "annotations": annotations} | more


def test_images_stand_alone():
    assert cluster_numbers([record("a"), record("b"), record("c")], "image").tolist() == [0, 1, 2]


def test_patients_are_numbered_as_they_first_come():
    owners = ["x", "y", "x", "z", "y"]
    records = [record(str(n), patient_id=owner) for n, owner in enumerate(owners)]
    assert cluster_numbers(records, "patient").tolist() == [0, 1, 0, 2, 1]


def test_patient_is_the_default_only_where_every_image_has_one():
    known, unknown = record("1", patient_id="x"), record("2")
    assert default_clusters([known, known]) == "patient"
    assert default_clusters([known, unknown]) == "image"


def test_a_run_holds_consecutive_numbers_of_one_class_and_one_prefix():
    records = [
        record("s10", 0),
        record("s19", 0, 0),
        record("s20", 0),  # the next ten
        record("s12", 1),  # another class
        record("t12", 0),  # another prefix
        record("s010", 0),  # leading zeros are the same number
        record("s1-3", 0),  # only the last number counts
        record("s1-4", 0),
    ]
    assert cluster_numbers(records, "run:10").tolist() == [0, 0, 1, 2, 3, 0, 4, 4]


def test_folders_do_not_share_runs():
    a, b = record("7", 0), record("7", 0, file_name="other/7.jpg")
    assert cluster_numbers([a, b], "run:10").tolist() == [0, 1]


def test_images_without_objects_are_alone_whatever_their_name():
    records = [record("no_tumor_1"), record("no_tumor_2"), record("scan"), record("3", 0)]
    assert cluster_numbers(records, "run:10").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("how", ["run", "run:", "run:0", "run:-3", "run:2.5", "patients", "10"])
def test_an_unknown_way_is_refused_with_the_known_ones(how):
    with pytest.raises(UserError, match=r"patient, image and run:K"):
        cluster_numbers([record("1", 0)], how)


def test_a_missing_patient_is_named_with_the_cure():
    with pytest.raises(UserError, match=r"val/b\.jpg.*--cluster image.*run:K"):
        cluster_numbers([record("a", patient_id="x"), record("b")], "patient")


def test_a_name_without_a_number_is_refused_where_runs_are_asked_for():
    with pytest.raises(UserError, match=r"run:10.*val/scan\.jpg has no number"):
        cluster_numbers([record("scan", 0)], "run:10")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("image", "3 images, each drawn by itself"),
        ("patient", "3 images, drawn by patient (2 of them)"),
        ("run:5", "3 images in 2 clusters: runs of 5 consecutive numbers"),
    ],
)
def test_the_way_is_told_in_words(how, words):
    records = [record(str(n), 0, patient_id=n // 5) for n in (3, 4, 5)]
    assert clusters_in_words(how, cluster_numbers(records, how)).startswith(words)
