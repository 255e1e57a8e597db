"""Annotations as people have them: typed loosely, in other units, with masks alone, by table."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_files import boxes_of, write_image
from PIL import Image
from pycocotools import mask as run_lengths

from tests.dicom_files import write_dicom
from ulga_d2.cli.main import main as ulga
from ulga_d2.data.custom import custom_class_names, load_custom
from ulga_d2.data.formats.files import AMENDED, BROKEN, HIDDEN, SWAPPED
from ulga_d2.data.formats.images import AROUND_MASK, STARTS_AT_ONE, USELESS_MASK
from ulga_d2.data.formats.numbers import read_flag, read_id, read_number, stated_size
from ulga_d2.data.formats.units import (
    MAYBE_CENTERS,
    MAYBE_PERCENT,
    doubtful_unit,
    wrong_unit,
)
from ulga_d2.data.record import EMPTIED, KEPT_EMPTIED, LoadedSplit
from ulga_d2.errors import UserError

WIDTH, HEIGHT = 128, 96
BOXES = [[10, 20, 30, 25], [64, 8, 21, 40], [90, 50, 38, 46], [0, 0, 22, 33]]  # x, y, w, h
CATEGORY = {"id": 1, "name": "cell", "supercategory": ""}


def coco_content(
    boxes: list = BOXES, *, image: Callable | None = None, annotation: Callable | None = None
) -> dict:
    """Return a COCO file of one box an image; the functions edit each entry."""
    content: dict = {"images": [], "annotations": [], "categories": [dict(CATEGORY)]}
    for number, bbox in enumerate(boxes):
        entry = {"id": number + 1, "file_name": f"a{number}.png", "width": WIDTH, "height": HEIGHT}
        item = {"id": number + 1, "image_id": number + 1, "category_id": 1, "bbox": list(bbox)}
        if image:
            image(number, entry)
        if annotation:
            annotation(number, item)
        content["images"].append(entry)
        content["annotations"].append(item)
    return content


def write_set(
    folder: Path,
    contents: dict[str, dict | str],
    *,
    kind: str = "coco",
    more: str = "",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    images: int = len(BOXES),
) -> Path:
    """Write images a0.png, ... and the annotations of each split; return the description."""
    lines = ["name: own", f"format: {kind}", "root: .", *more.splitlines(), "splits:"]
    for split, content in contents.items():
        for number in range(images):
            write_image(folder / split / f"a{number}.png", *size)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{split}.annotations").write_text(text)
        lines.append(f"  {split}: {{images: {split}, annotations: {split}.annotations}}")
    (folder / "own.yaml").write_text("\n".join(lines) + "\n")
    return folder / "own.yaml"


def load(folder: Path, content: dict | str, **options: object) -> LoadedSplit:
    return load_custom(write_set(folder, {"train": content}, **options), "train")


def corners(boxes: list = BOXES) -> list:
    return [[[x, y, x + w, y + h]] for x, y, w, h in boxes]


def found(loaded: LoadedSplit) -> list:
    return [boxes_of(record) for record in loaded.records]


@pytest.mark.parametrize("flag", [0, 0.0, False, None, "0", "false", "False", " 0 ", ""])
def test_every_spelling_of_no_crowd_is_no_crowd(tmp_path, flag):
    loaded = load(tmp_path, coco_content(annotation=lambda n, item: item.update(iscrowd=flag)))
    assert [item["iscrowd"] for r in loaded.records for item in r["annotations"]] == [0] * 4
    assert found(loaded) == corners() and not loaded.report.reasons


@pytest.mark.parametrize("flag", [1, 1.0, True, "1", "true"])
def test_every_spelling_of_a_crowd_is_a_crowd(tmp_path, flag):
    loaded = load(tmp_path, coco_content(annotation=lambda n, item: item.update(iscrowd=flag)))
    assert [item["iscrowd"] for r in loaded.records for item in r["annotations"]] == [1] * 4


@pytest.mark.parametrize("flag", [2, -1, 0.5, "yes", "2", [], [0], {}, float("nan")])
def test_any_other_crowd_flag_is_refused_with_its_record(tmp_path, flag):
    content = coco_content(annotation=lambda n, item: item.update(iscrowd=flag) if n == 2 else None)
    with pytest.raises(UserError, match=r"annotation 3: iscrowd .* is neither 0 nor 1"):
        load(tmp_path, content)


def test_ids_may_be_text_or_whole_floats(tmp_path):
    content = coco_content(
        image=lambda n, entry: entry.update(id=f"case-{n}"),
        annotation=lambda n, item: item.update(image_id=f"case-{n}", id=f"x{n}", category_id=1.0),
    )
    loaded = load(tmp_path, content)
    assert found(loaded) == corners()
    assert [record["image_id"] for record in loaded.records] == [f"case-{n}" for n in range(4)]
    assert loaded.category_ids == (1,)


def test_the_text_and_the_number_of_an_id_are_one_and_results_keep_the_files_own(tmp_path):
    content = coco_content(
        image=lambda n, entry: entry.update(id=str(n)),
        annotation=lambda n, item: item.update(image_id=float(n), category_id="7"),
    )
    content["categories"][0]["id"] = 7
    loaded = load(tmp_path, content)
    assert found(loaded) == corners()
    assert [record["image_id"] for record in loaded.records] == ["0", "1", "2", "3"]
    assert loaded.category_ids == (7,)


def test_category_ids_that_are_text_are_numbered_and_noted(tmp_path):
    content = coco_content(annotation=lambda n, item: item.update(category_id="ab"[n % 2]))
    content["categories"] = [{"id": "b", "name": "ring"}, {"id": "a", "name": "dot"}]
    loaded = load(tmp_path, content)
    assert loaded.class_names == ("dot", "ring") and loaded.category_ids == (1, 2)
    assert [r["annotations"][0]["category_id"] for r in loaded.records] == [0, 1, 0, 1]
    assert list(loaded.report.reasons) == [
        "category ids that are text; results give them as 1, 2, ... in order"
    ]


@pytest.mark.parametrize(
    "size",
    [
        {"width": "128", "height": "96"},
        {"width": 128.0, "height": "96.0"},
        {"width": 0, "height": 0},
        {"width": None, "height": None},
        {"width": "", "height": 0},
        {"width": "nan", "height": None},
    ],
)
def test_sizes_may_be_text_or_missing_in_coco(tmp_path, size):
    loaded = load(tmp_path, coco_content(image=lambda n, entry: entry.update(size)))
    assert found(loaded) == corners() and not loaded.report.reasons


@pytest.mark.parametrize("height", ["96px", 96.5, -96, True, [96], float("inf")])
def test_a_size_that_is_no_number_is_refused_with_its_image(tmp_path, height):
    content = coco_content(image=lambda n, entry: entry.update(height=height))
    with pytest.raises(UserError, match=r"image 1: height and width are .*, not whole numbers"):
        load(tmp_path, content)


def test_numbers_of_a_box_may_be_text(tmp_path):
    loaded = load(tmp_path, coco_content([list(map(str, box)) for box in BOXES]))
    assert found(loaded) == corners()


def test_names_that_differ_in_blanks_are_one_class(tmp_path):
    content = coco_content(annotation=lambda n, item: item.update(category_id=1 + n % 2))
    content["categories"] += [{"id": 2, "name": " cell "}]
    loaded = load(tmp_path, content)
    assert loaded.class_names == ("cell",) and loaded.category_ids == (1,)
    assert found(loaded) == corners()
    reason = "class names with spaces around them, which are removed"
    assert loaded.report.reasons == {reason: 1}
    assert "category 2: ' cell '" in loaded.report.places[reason][0]


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nb", "a\x00b", "a\u202eb", "\ud800", "a\u2028b"])
@pytest.mark.parametrize("kind", ["coco", "csv", "via"])
def test_control_characters_in_class_names_are_refused_and_never_shown_raw(tmp_path, kind, name):
    if kind == "coco":
        content: dict | str = coco_content()
        content["categories"][0]["name"] = name
    elif kind == "csv":
        if name in ("a\x00b", "\ud800"):
            pytest.skip("no text file holds it")
        content = f'image,class,x1,y1,x2,y2\na0.png,"{name}",1,2,30,40\n'
    else:
        shape = {"name": "rect", "x": 1, "y": 2, "width": 30, "height": 40}
        region = {"shape_attributes": shape, "region_attributes": {"class": name}}
        content = {"a0.png": {"filename": "a0.png", "regions": [region]}}
    with pytest.raises(UserError, match="the class name .* holds control characters") as error:
        load(tmp_path, content, kind=kind)
    assert name not in str(error.value) and str(error.value).isprintable()


def parents(*owned: int) -> dict:
    """Return a file whose category "lesion" is the parent of "cyst", with boxes of the `owned`."""
    content = coco_content(
        annotation=lambda n, item: item.update(category_id=owned[n % len(owned)])
    )
    content["categories"] = [
        {"id": 1, "name": "lesion", "supercategory": "none"},
        {"id": 2, "name": "cyst", "supercategory": "lesion"},
    ]
    return content


def test_a_parent_category_is_a_class_in_all_splits_if_it_has_boxes_in_one(tmp_path):
    path = write_set(tmp_path, {"train": parents(1, 2), "val": parents(2)})
    for split in ("train", "val"):
        assert load_custom(path, split).class_names == ("lesion", "cyst")
        assert custom_class_names(path, split) == ("lesion", "cyst")
    path = write_set(tmp_path, {"train": parents(2), "val": parents(2)})
    for split in ("train", "val"):
        assert load_custom(path, split).class_names == ("cyst",)


@pytest.mark.parametrize("bbox", [[], None, "none"])
@pytest.mark.parametrize("kind", ["polygons", "runs", "compressed"])
def test_the_box_of_an_object_with_a_mask_alone_follows_from_the_mask(tmp_path, bbox, kind):
    def edit(number: int, item: dict) -> None:
        x, y, w, h = item["bbox"]
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        mask[y : y + h, x : x + w] = 1
        runs = run_lengths.encode(mask)
        flat = np.flatnonzero(np.diff(np.r_[0, mask.ravel(order="F"), 0])).tolist()
        item["segmentation"] = {
            "polygons": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            "runs": {
                "size": [HEIGHT, WIDTH],
                "counts": np.diff([0, *flat, WIDTH * HEIGHT]).tolist(),
            },
            "compressed": {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()},
        }[kind]
        if bbox == "none":
            del item["bbox"]
        else:
            item["bbox"] = bbox

    loaded = load(tmp_path, coco_content(annotation=edit))
    assert found(loaded) == corners()
    assert loaded.report.reasons == {AROUND_MASK: 4}


def test_an_object_whose_only_mask_is_useless_never_makes_a_negative(tmp_path):
    def edit(number: int, item: dict) -> None:
        if number == 1:
            item |= {"bbox": [], "segmentation": [[5, 5, 9, 9]]}

    loaded = load(tmp_path, coco_content(annotation=edit))
    assert len(loaded.records) == 3
    assert loaded.report.reasons[USELESS_MASK] == loaded.report.reasons[EMPTIED] == 1


def test_an_image_that_lost_all_its_boxes_is_left_out_unless_it_is_told_to_stay(tmp_path):
    boxes = [[10, 20, 0, 25], [64, 8, 21, 40], [500, 500, 9, 9], [0, 0, 22, 33]]
    content = coco_content(boxes)
    content["annotations"][0]["image_id"] = 2  # of an image with a sound box; 1 has none by right
    loaded = load(tmp_path, content)
    assert [Path(record["file_name"]).name for record in loaded.records] == [
        "a0.png",
        "a1.png",
        "a3.png",
    ]
    assert loaded.report.reasons[EMPTIED] == 1 and EMPTIED in loaded.report.drop_reasons
    assert loaded.report.places[EMPTIED][0].endswith("a2.png")
    kept = load(tmp_path, content, more="keep_emptied_images: true")
    assert len(kept.records) == 4 and kept.report.reasons[KEPT_EMPTIED] == 1
    with pytest.raises(UserError, match="keep_emptied_images is 'yes, please'; write true or fa"):
        load(tmp_path, content, more="keep_emptied_images: yes, please")


@pytest.mark.parametrize("kind", ["coco", "csv", "corners", "via"])
def test_fractions_in_place_of_pixels_are_refused_by_name(tmp_path, kind):
    boxes = [[x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT] for x, y, w, h in BOXES]
    with pytest.raises(UserError, match=r"all 4 boxes lie within 0\.\.1, .* fractions of the im"):
        load(tmp_path, *content_of(kind, boxes), kind="csv" if kind == "corners" else kind)


def content_of(kind: str, boxes: list) -> tuple[dict | str]:
    """Return annotations of any kind that give boxes of x, y, width, height."""
    if kind == "coco":
        return (coco_content(boxes),)
    if kind == "via":
        entries = {}
        for number, box in enumerate(boxes):
            shape = dict(zip(("x", "y", "width", "height"), box, strict=True), name="rect")
            region = {"shape_attributes": shape, "region_attributes": {"class": "cell"}}
            entries[str(number)] = {"filename": f"a{number}.png", "regions": [region]}
        return (entries,)
    rows = ["image,class,x,y,width,height" if kind == "csv" else "image,class,x1,y1,x2,y2"]
    for number, (x, y, w, h) in enumerate(boxes):
        box = (x, y, w, h) if kind == "csv" else (x, y, x + w, y + h)
        rows.append(f"a{number}.png,cell,{','.join(map(str, box))}")
    return ("\n".join(rows) + "\n",)


def many_boxes(count: int, width: int, height: int) -> list[list[int]]:
    rng = np.random.default_rng(3)
    boxes = []
    for _ in range(count):
        w, h = (int(side) for side in rng.integers(20, 60, 2))
        boxes.append([int(rng.integers(0, width - w)), int(rng.integers(0, height - h)), w, h])
    return boxes


@pytest.mark.parametrize("kind", ["coco", "csv"])
def test_corners_in_place_of_sides_are_refused_by_name(tmp_path, kind):
    boxes = many_boxes(20, WIDTH, HEIGHT)
    sound = load(tmp_path / "sound", *content_of(kind, boxes), kind=kind, images=20)
    assert len(sound.records) == 20
    wrong = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    with pytest.raises(UserError, match=r"boxes lie partly past .* numbers are x1, y1, x2, y2"):
        load(tmp_path / "wrong", *content_of(kind, wrong), kind=kind, images=20)


def test_centers_in_place_of_corners_are_refused_by_name(tmp_path):
    boxes = [[x + w / 2, y + h / 2, w, h] for x, y, w, h in many_boxes(40, WIDTH, HEIGHT)]
    with pytest.raises(UserError, match=r"x, y are the center of a box"):
        load(tmp_path, coco_content(boxes), images=40)


def test_percent_in_place_of_pixels_are_refused_by_name(tmp_path):
    boxes = many_boxes(30, 640, 480)
    percent = [[x / 6.4, y / 4.8, w / 6.4, h / 4.8] for x, y, w, h in boxes]
    content = coco_content(
        percent, image=lambda n, entry: entry.update(file_name="a0.png", width=640, height=480)
    )
    content["images"] = content["images"][:1]
    for item in content["annotations"]:
        item["image_id"] = 1
    with pytest.raises(UserError, match=r"within 0\.\.100 .* numbers are percent"):
        load(tmp_path, content, images=1, size=(640, 480))


def test_sound_boxes_prove_no_other_unit():
    sizes = [(480, 640)] * 60
    boxes = [(x, y, x + w, y + h) for x, y, w, h in many_boxes(60, 640, 480)]
    assert wrong_unit(boxes, sizes, gives_sides=True) is None
    # Small boxes near a corner, overhanging boxes, a whole pixel, and clicks without area.
    assert wrong_unit([(0, 0, 60, 90)] * 60, sizes, gives_sides=True) is None
    assert (
        wrong_unit([(600, 400, 660, 490), *boxes], [*sizes, (480, 640)], gives_sides=True) is None
    )
    assert wrong_unit([(0, 0, 1, 1)] * 60, sizes) is None
    assert wrong_unit([(0.5, 0.5, 0.5, 0.5)] * 60, sizes) is None
    assert wrong_unit([], []) is None
    # Slivers at the origin, such as clipped boxes, are no fractions.
    assert wrong_unit([*boxes, *[(0, 0, 0.5, 0.5)] * 3], [*sizes, *sizes[:3]]) is None
    # A few fractions among pixels are an accident of two tools, and named.
    mixed = [*boxes, *[(0.1, 0.2, 0.4, 0.6), (0.6, 0.1, 0.9, 0.4), (0.3, 0.5, 0.6, 0.95)]]
    number, fault = wrong_unit(mixed, [(480, 640)] * 63)
    assert number == 60 and "3 of 63 boxes lie within 0..1" in fault


def test_boxes_that_may_have_another_unit_are_noted_and_not_refused():
    marks = [(5 + n % 15, 5 + n % 12, 70 + n % 28, 72 + n % 26) for n in range(50)]
    assert wrong_unit(marks, [(480, 640)] * 50) is None
    assert doubtful_unit(marks, [(480, 640)] * 50) == (MAYBE_PERCENT, list(range(50)))
    amodal = [(300, 200, 340, 240)] * 10 + [(600, 200, 660, 240), (610, 300, 650, 350)]
    sizes = [(480, 640)] * 12
    assert wrong_unit(amodal, sizes, gives_sides=True) is None
    assert doubtful_unit(amodal, sizes, gives_sides=True) == (MAYBE_CENTERS, [10, 11])
    assert doubtful_unit(amodal, sizes) == (MAYBE_CENTERS, [])
    assert doubtful_unit([], []) == (MAYBE_CENTERS, [])


def test_boxes_that_seem_to_count_from_one_are_noted(tmp_path):
    boxes = [[1 + 4 * n, 1 + n, 20, 20] for n in range(9)] + [[101, 70, 28, 27]] * 3
    loaded = load(tmp_path, coco_content(boxes), images=12)
    assert loaded.report.reasons[STARTS_AT_ONE] == 3
    from_zero = [[x - 1, y - 1, w, h] for x, y, w, h in boxes]
    assert not load(tmp_path, coco_content(from_zero), images=12).report.reasons


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("images/a0.png", "images\\a0.png"),
        ("sub/a0.png", "/sub/a0.png"),
        (unicodedata.normalize("NFD", "Größe_é.png"), unicodedata.normalize("NFC", "Größe_é.png")),
        ("a0.png", "A0.PNG"),
        ("a 0.png", "a%200.png"),
        ("a0.tif", "train/a0.tiff"),
    ],
)
@pytest.mark.parametrize("kind", ["coco", "csv", "via"])
def test_the_name_of_an_image_is_resolved_in_every_format(tmp_path, kind, file, name):
    (content,) = content_of(kind, BOXES[:1])
    text = content if isinstance(content, str) else json.dumps(content)
    text = text.replace("a0.png", name if kind == "csv" else json.dumps(name)[1:-1])
    path = write_set(tmp_path, {"train": text}, kind=kind, images=0)
    write_image(tmp_path / "train" / file, WIDTH, HEIGHT)
    loaded = load_custom(path, "train")
    assert [record["file_name"] for record in loaded.records] == [str(tmp_path / "train" / file)]
    assert loaded.report.reasons == {AMENDED: 1}


def test_a_mask_is_never_taken_for_the_missing_image_that_it_belongs_to(tmp_path):
    content = coco_content(image=lambda n, entry: entry.update(file_name=f"a{n}.jpg"))
    path = write_set(tmp_path, {"train": content})  # a0.png, ... are the masks
    for number in range(3):
        write_image(tmp_path / "train" / f"a{number}.jpg", WIDTH, HEIGHT)
    with pytest.raises(UserError, match=r"1 images .* missing .*a3\.jpg; did you mean a3\.png\?"):
        load_custom(path, "train")


def test_data_check_reports_names_whose_suffix_no_file_has_as_a_problem(tmp_path, capsys):
    content = coco_content(image=lambda n, entry: entry.update(file_name=f"a{n}.jpg"))
    assert ulga(["data", "check", str(write_set(tmp_path, {"train": content}))]) == 0
    assert f"PROBLEM train: 4 {SWAPPED}" in capsys.readouterr().out


def test_a_missing_image_comes_with_the_file_that_may_be_meant(tmp_path):
    content = coco_content(image=lambda n, entry: entry.update(file_name=f"sub/b{n}.png"))
    path = write_set(tmp_path, {"train": content}, images=0)
    write_image(tmp_path / "train" / "b0.png")
    with pytest.raises(UserError, match=r"sub/b0\.png; did you mean b0\.png\?"):
        load_custom(path, "train")


def test_two_names_of_one_file_are_refused(tmp_path):
    content = coco_content(BOXES[:2])
    content["images"][1]["file_name"] = "A0.PNG"
    with pytest.raises(UserError, match=r"image 2: names .*a0\.png, as .*image 1 does; merge"):
        load(tmp_path, content)


@pytest.mark.parametrize("empty", ["nan,nan,nan,nan", "None,,NaN,null", ",,,", "NA,N/A,<NA>,nan"])
def test_a_row_of_no_numbers_is_an_image_without_boxes(tmp_path, empty):
    rows = f"image,xmin,ymin,xmax,ymax,label\na0.png,{empty},nan\na1.png,1,2,30,40,cell\n"
    loaded = load(tmp_path, rows, kind="csv", images=2)
    assert loaded.class_names == ("cell",)
    assert found(loaded) == [[], [[1, 2, 30, 40]]] and not loaded.report.reasons


def test_nan_is_never_the_class_of_a_box(tmp_path):
    rows = "image,x1,y1,x2,y2,label\na0.png,1,2,30,40,nan\na1.png,1,2,30,40,cell\n"
    with pytest.raises(UserError, match=r"unknown classes 'nan' \(1 boxes\); there are cell"):
        load(tmp_path, rows, kind="csv")


def test_two_spellings_of_one_image_in_a_table_are_one_image(tmp_path):
    rows = "image,x1,y1,x2,y2,label\na0.png,1,2,30,40,cell\nA0.PNG,5,6,30,40,cell\n"
    loaded = load(tmp_path, rows, kind="csv", images=1)
    assert found(loaded) == [[[1, 2, 30, 40], [5, 6, 30, 40]]]
    assert loaded.report.reasons == {AMENDED: 1}


def test_the_table_of_vindr_cxr_is_read_as_it_is(tmp_path):
    rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    rows += [f"case{n},No finding,14,R{9 + n % 2},,,," for n in (0, 0, 1)]
    rows += ["case2,Nodule/Mass,8,R9,10.5,20,40,45", "case2,Nodule/Mass,8,R10,11,21,41,44"]
    rows += ["case3,Aortic enlargement,0,R8,64,8,85,48", "case3,No finding,14,R9,,,,"]
    path = write_set(tmp_path, {"train": "\n".join(rows) + "\n"}, kind="csv", images=0)
    (tmp_path / "train").mkdir()
    for number in range(4):
        film = np.full((HEIGHT, WIDTH), 40 * number, np.uint16)
        write_dicom(tmp_path / "train" / f"case{number}.dicom", film)
    (tmp_path / "train" / "read_me.txt").write_text("x")
    loaded = load_custom(path, "train")
    assert loaded.class_names == ("Aortic enlargement", "Nodule/Mass")
    assert found(loaded) == [[], [], [[10.5, 20, 40, 45], [11, 21, 41, 44]], [[64, 8, 85, 48]]]
    assert loaded.report.reasons == {
        "rows without box of images that have boxes skipped": 1,
        "files not read (.txt)": 1,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "annotations": [1], "annotations": []}', "key 'annotations' stands twice"),
        ('{"images": [{"id": 1, "id": 2}]}', "the key 'id' stands twice in one object"),
        ("[" * 200_000, "not valid JSON"),
        ('{"a":' * 100_000, "not valid JSON"),
        ("1" * 5000, "not valid JSON"),
    ],
)
@pytest.mark.parametrize("kind", ["coco", "via"])
def test_json_that_says_two_things_or_never_ends_is_refused(tmp_path, kind, text, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, text, kind=kind)


def test_ten_thousand_categories_and_as_many_boxes_on_one_image_are_read_in_seconds(tmp_path):
    boxes = [[5.5 + number % 50, 5, 30, 30] for number in range(10_000)]
    content = coco_content(
        boxes, annotation=lambda n, item: item.update(image_id=1, category_id=2 * n)
    )
    content["images"] = content["images"][:1]
    # Every other one is without boxes, so each could be the parent of the others.
    content["categories"] = [{"id": n, "name": f"class {n}"} for n in range(20_000)]
    path = write_set(tmp_path, {"train": content}, images=1)
    start = time.process_time()
    loaded = load_custom(path, "train")
    assert time.process_time() - start < 10
    assert len(loaded.class_names) == 20_000 and loaded.report.boxes.total() == 10_000


def test_images_that_only_the_folder_knows_are_counted(tmp_path):
    path = write_set(tmp_path, {"train": coco_content(BOXES[:1])}, images=2)
    train = tmp_path / "train"
    for name in ("notes.txt", ".ipynb_checkpoints/a0-checkpoint.png", "Thumbs.db"):
        (train / name).parent.mkdir(exist_ok=True)
        (train / name).write_bytes(b"x")
    pool = tmp_path / "pool"
    write_image(pool / "far.png")
    (train / "linked").symlink_to(pool)
    Image.new("L", (9, 9)).save(train / "no_suffix", format="PNG")
    report = load_custom(path, "train").report
    assert report.reasons == {
        "hidden and system files skipped, with all files in such folders": 2,
        "files not read (.txt)": 1,
        "images in the folder that the split does not use": 3,
    }


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((4, 4.0), (4.5, 4.5), ("4", 4.0), (" -4.5e1 ", -45.0), (".5", 0.5), ("4.", 4.0)),
        *((value, None) for value in (True, None, "", "nan", "inf", "1_0", "0x1", "4,5", [4], {})),
        *((value, None) for value in (float("nan"), float("inf"), 10**400, "1e400", "٣", "1" * 99)),
    ],
)
def test_a_number_is_a_number_or_its_text(value, number):
    assert read_number(value) == number


def test_sizes_flags_and_ids_have_one_rule():
    assert stated_size("96", 128.0) == (96, 128)
    assert stated_size(0, 128) is stated_size(None, None) is stated_size("", "0") is None
    for value in ("x", -1, 1.5, True, float("nan")):
        with pytest.raises(ValueError, match="not whole numbers"):
            stated_size(value, 10)
    assert [read_flag(v) for v in (None, False, "false", 1, "1", True)] == [0, 0, 0, 1, 1, 1]
    assert [read_flag(v) for v in (2, "x", 0.5, [], float("nan"))] == [None] * 5
    assert [read_id(v) for v in (17, 17.0, "17", " 17 ", "-3", "017", "a b ")] == [
        *(17, 17, 17, 17, -3, "017", "a b")
    ]
    assert [read_id(v) for v in (True, None, 1.5, "", " ", [], float("nan"), 10**30)] == [None] * 8


@pytest.mark.parametrize("text", [f"{1 / 3:.40f}", f"{1 / 3:.380f}"])
def test_a_number_of_many_decimals_is_a_number(text):
    assert read_number(text) == pytest.approx(1 / 3)
    assert read_number("1" * 401) is None


def test_an_emptied_image_is_counted_once(tmp_path):
    report = load(tmp_path, coco_content([*BOXES[:3], [5, 5, 0, 0]])).report
    assert report.reasons == {EMPTIED: 1, "boxes without area dropped": 1}


@pytest.mark.parametrize("kind", ["voc", "yolo"])
@pytest.mark.parametrize("tree", [("images", "labels"), ("all", "all"), (".", "labels")])
def test_the_folder_of_annotations_is_counted_once(tmp_path, kind, tree):
    images, labels = (tmp_path / "set" / name for name in tree)
    write_image(images / "a.png", WIDTH, HEIGHT)
    labels.mkdir(exist_ok=True)
    box = "<xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>60</ymax>"
    text = f"<annotation><object><name>cell</name><bndbox>{box}</bndbox></object></annotation>"
    suffix = "xml" if kind == "voc" else "txt"
    (labels / f"a.{suffix}").write_text(text if kind == "voc" else "0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "train.txt").write_text("a.png\n")
    for name in (f"._a.{suffix}", "extra.json", f"a.{suffix}.bak"):
        (labels / name).write_text("x")
    (labels / f"gone.{suffix}").symlink_to("nowhere")
    key = "annotations" if kind == "voc" else "labels"
    (tmp_path / "own.yaml").write_text(
        f"name: own\nformat: {kind}\nroot: .\nclass_names: [cell]\nsplits:\n"
        f"  train: {{images: set/{tree[0]}, {key}: set/{tree[1]}, list: train.txt}}\n"
    )
    loaded = load_custom(tmp_path / "own.yaml", "train")
    assert found(loaded)[0] and loaded.report.reasons == {
        HIDDEN: 1,
        BROKEN: 1,
        "files not read (.json)": 1,
        "files not read (.bak)": 1,
    }
