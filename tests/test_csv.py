"""CSV files: rows whatever their writer's habits, and boxes in any of the common columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import HEIGHT, WIDTH, boxes_of, write_image

from ulga_d2.data.formats.csv_boxes import read_csv
from ulga_d2.data.formats.csv_file import read_rows
from ulga_d2.data.formats.files import AMENDED
from ulga_d2.data.record import EMPTIED, LoadedSplit
from ulga_d2.errors import UserError

CORNERS = "image,label,x1,y1,x2,y2\n"


def rows_of(folder: Path, content: str | bytes, *headers: tuple[str, ...]) -> list:
    path = folder / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(row.line_number, row.fields) for row in read_rows(path, expected_headers=headers)]


def read(folder: Path, content: str | bytes, **options: object) -> LoadedSplit:
    for name in ("a.png", "b.png"):
        write_image(folder / "images" / name)
    path = folder / "boxes.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(path, folder / "images", **options)


@pytest.mark.parametrize(
    "content",
    [
        "name,x\na,1\nb,2\n",
        "\ufeffname,x\r\na,1\r\nb,2",
        "name,x\ra,1\rb,2\r",
        " Name , X,\n a , 1,\n\n b,2\n",
        '"name";"x"\n"a";"1"\n"b";"2"\n',
        "name\tx\na\t1\nb\t2\n",
        "name,x\n,,\na,1,,\nb,2\n",
    ],
)
def test_rows_do_not_depend_on_the_habits_of_writers(tmp_path, content):
    assert [fields for _, fields in rows_of(tmp_path, content, ("name", "x"))] == [
        ("a", "1"),
        ("b", "2"),
    ]


def test_a_row_knows_the_line_that_it_starts_in(tmp_path):
    content = 'name,x\n\n"a\nand more",1\n\nb,2\n'
    assert rows_of(tmp_path, content, ("name", "x")) == [(3, ("a\nand more", "1")), (6, ("b", "2"))]


def test_the_header_of_nih_with_unquoted_brackets_is_longer_than_its_rows(tmp_path):
    unquoted = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
    quoted = ("Image Index", "Finding Label", "Bbox [x,y,w,h]", "", "", "")
    row = "00000003_000.png,Mass,1.5,2,3,4\n"
    fields = ("00000003_000.png", "Mass", "1.5", "2", "3", "4")
    official = f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n{row}"
    assert rows_of(tmp_path, official, unquoted, quoted) == [(2, (*fields, "", "", ""))]
    saved_again = f'Image Index,Finding Label,"Bbox [x,y,w,h]",,,\n{row}'
    assert rows_of(tmp_path, saved_again, unquoted, quoted) == [(2, fields)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.csv is empty"),
        ("\n \n,,\n", r"a\.csv is empty"),
        ("name,y\na,1\n", r"the first line must be name,x, but is name,y; fetch"),
        ("name,x\na\n", r"a\.csv, line 2: 1 cells instead of 2; complete the row or delete it"),
        ("name,x\na,1,5\n", r"line 2: 3 cells instead of 2; .*write a decimal point, not a comma"),
        ('name,x\n"a,1\n' + "b,2\n" * 40_000, r"line 2: field larger .*are the quotes closed"),
        (b"n\0a\0", r"is not a text file in UTF-8"),
    ],
)
def test_faulty_tables_stop_with_the_line_and_the_cure(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        rows_of(tmp_path, content, ("name", "x"))


@pytest.mark.parametrize(
    "content",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,20,ring,4,2,12,12\nb.png,,,,,,,",
        "image_id,x,y,width,height,label\na,4.0,2,8,10,ring\nb,,,,,\n",
        "image;label;x1;y1;x2;y2\r\n.\\a.png;ring;4;2;12;12\r\nb.png;;;;;\r\n",
        "path,left,top,right,bottom,category,image_width,image_height\n"
        "a.png,4,2,12,12,ring,40.0,20\nb.png,,,,,,40,20\n",
    ],
)
def test_boxes_are_read_from_any_of_the_common_columns(tmp_path, content):
    loaded = read(tmp_path, content)
    assert [boxes_of(record) for record in loaded.records] == [[[4, 2, 12, 12]], []]
    assert loaded.class_names == ("ring",)
    assert (loaded.records[0]["height"], loaded.records[0]["width"]) == (HEIGHT, WIDTH)
    assert loaded.report.reasons == ({AMENDED: 1} if "\\" in content else {})


def test_columns_of_other_names_are_told_apart(tmp_path):
    content = "bild,x,y,b,h,klasse\na.png,4,2,8,10,ring\n"
    with pytest.raises(UserError, match=r"no column is 'image, class, width' in the first line"):
        read(tmp_path, content)
    columns = {"image": "bild", "width": "B", "class": "klasse"}
    assert boxes_of(read(tmp_path, content, columns=columns).records[0]) == [[4, 2, 12, 12]]
    with pytest.raises(UserError, match="the columns path, image could all be 'image'"):
        read(tmp_path, "path,image,x1,y1,x2,y2,class\n")


def test_one_class_needs_no_column(tmp_path):
    content = "image,x1,y1,x2,y2\na.png,4,2,12,12\n"
    assert len(read(tmp_path, content, class_names=("cell",)).records[0]["annotations"]) == 1
    with pytest.raises(UserError, match="no column is 'class'"):
        read(tmp_path, content, class_names=("cell", "other"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,ring,12,2,4,12", r"line 2: x2, y2 \(4, 12\) lie before x1, y1 .*width and height"),
        ("a.png,ring,nan,2,12,12", r"line 2: x1 is empty"),
        ("a.png,ring,4,2,1e400,12", r"line 2: x2 '1e400' is not a number"),
        ("a.png,ring,4,2,inf,12", r"line 2: x2 'inf' is not a number"),
        ("a.png,ring,True,2,4,12", r"line 2: x1 'True' is not a number"),
        ("a.png,ring,1_0,2,40,12", r"line 2: x1 '1_0' is not a number"),
        ("a.png,ring,4,2,12,", r"line 2: y2 is empty; write the number or delete the box"),
        ('a.png,ring,"4,5",2,12,12', r"line 2: x1 '4,5' is not a number; write a decimal point"),
        ("a.png,ring,four,2,12,12", r"line 2: x1 'four' is not a number; write a plain number"),
        (",ring,4,2,12,12", r"line 2: names no image"),
        ("a.png,none,4,2,12,12", r"unknown classes 'none' \(1 boxes\); there are ring"),
        ("a.png,,4,2,12,12", r"unknown classes '' \(1 boxes\)"),
        ("c.png,ring,4,2,12,12", r"1 images that .*boxes.csv names are missing .*c\.png"),
    ],
)
def test_faulty_rows_stop_with_the_line_and_the_cure(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, f"{CORNERS}{row}\n", class_names=("ring", "dot"))


@pytest.mark.parametrize(
    ("rows", "boxes", "reason"),
    [
        ("a.png,ring,4,2,4,12", [], "boxes without area dropped"),
        ("a.png,ring,0,0,0,0", [], "boxes without area dropped"),
        ("a.png,ring,-2,2,12,12", [[0, 2, 12, 12]], "boxes clipped to the image"),
        (
            "a.png,ring,4,2,12,12\na.png,ring,4,2,12,12",
            [[4, 2, 12, 12]],
            "exact duplicates dropped",
        ),
        (
            "a.png,ring,4,2,12,12\na.png,,,,,",
            [[4, 2, 12, 12]],
            "rows without box of images that have boxes skipped",
        ),
    ],
)
def test_single_bad_boxes_are_mended_or_dropped_and_counted(tmp_path, rows, boxes, reason):
    loaded = read(tmp_path, f"{CORNERS}{rows}\n", class_names=("ring", "dot"))
    assert [boxes_of(record) for record in loaded.records] == ([boxes] if boxes else [])
    assert loaded.report.reasons == {reason: 1} | ({} if boxes else {EMPTIED: 1})
    assert "line" in loaded.report.places[reason][0]


def test_another_size_than_the_image_has_is_refused(tmp_path):
    header = "image,label,x1,y1,x2,y2,image_width,image_height\n"
    with pytest.raises(UserError, match=r"line 2: says height 40 and width 20.*are swapped"):
        read(tmp_path, f"{header}a.png,ring,1,2,3,4,20,40\n")
    with pytest.raises(UserError, match=r"line 3: gives another image size than .*line 2"):
        read(tmp_path, f"{header}a.png,ring,1,2,3,4,40,20\na.png,ring,1,2,3,4,,\n")


def test_names_may_be_in_an_old_encoding(tmp_path):
    loaded = read(tmp_path, f"{CORNERS}a.png,r\xf6hre,1,2,3,4\n".encode("cp1252"))
    assert loaded.class_names == ("r\xf6hre",)
