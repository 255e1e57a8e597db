"""Names in files never reach a terminal, log, card or page as control characters or markup."""

from __future__ import annotations

import html
import html.parser
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import markdown
import numpy as np
import pytest
from conftest import tiny_args

from ulga_d2.cli.main import main as ulga
from ulga_d2.data.check.doctor import Settings, check_splits
from ulga_d2.data.check.finding import finding
from ulga_d2.data.check.report import as_text
from ulga_d2.data.record import LoadedSplit
from ulga_d2.data.report import DataReport, Faults
from ulga_d2.drawing.marks import put_text, text_width
from ulga_d2.engine.launch import main
from ulga_d2.errors import UserError, one_line, printable
from ulga_d2.evaluation.runs import Run, csv_table
from ulga_d2.model_zoo.card import model_card
from ulga_d2.terminal import csv_text, escape_record, show, table
from ulga_d2.weights.checkpoint import load_checkpoint
from ulga_d2.weights.share import SharedInfo

# Clears the screen; forges a line; turns the writing round; ends a string; C1; markup.
EVIL = "a\x1b[2J\x1b[31m\nerror: b\r\u202egnp\u2066\x00\x9b<script>x</script>![i](//x)|`$x^$"
NAME = EVIL.replace("\x00", "").replace("/", ":")  # a file's


def is_clean(text: str) -> bool:
    return all(letter == "\n" or letter.isprintable() for letter in text)


# Text


def test_printable_text_has_no_control_characters_and_tells_what_was_there():
    assert printable("naïve µ 文字 (a)") == "naïve µ 文字 (a)"
    assert printable("a\x1b\n\u202e\x00\udc80") == "a\\x1b\\n\\u202e\\x00\\udc80"
    assert printable(EVIL).isprintable()
    assert printable(printable(EVIL)) == printable(EVIL)


def test_an_error_has_a_line_for_each_of_its_parts_and_for_nothing_else():
    error = UserError(f"image {EVIL} is missing", "  one more line")
    assert is_clean(str(error)) and len(str(error).split("\n")) == 2
    assert one_line(ValueError("a\n  in \x1b")) == "a in \\x1b"


def test_the_command_prints_an_error_as_one_line(tmp_path, capsys):
    assert ulga(["data", "check", str(tmp_path / (NAME + ".yaml"))]) == 2
    text = capsys.readouterr().err
    assert is_clean(text) and text.count("\n") == 1 and text.startswith("error: ")


def test_faults_and_reports_of_readers_escape_places(caplog):
    faults = Faults()
    faults.add(EVIL, "is bad")
    faults.add("b", "is bad")
    with pytest.raises(UserError) as error:
        faults.stop_if_any()
    assert is_clean(str(error.value)) and len(str(error.value).split("\n")) == 3
    report = DataReport.for_classes((EVIL,))
    report.note("boxes clipped", EVIL)
    assert (report.summary() + report.oddities()).isprintable()


def test_show_keeps_line_breaks_alone(capsys):
    show("one\ntwo\x1b[2J")
    assert capsys.readouterr().out == "one\ntwo\\x1b[2J\n"


def test_a_cell_of_a_table_stays_in_its_row_and_column():
    plain = table([["a", 1.5], ["b", 2.5]], ["name", "value"], tablefmt="pipe")
    hostile = table([[EVIL, 1.5], ["b", 2.5]], ["name", "value"], tablefmt="pipe")
    assert is_clean(hostile)
    assert hostile.count("\n") == plain.count("\n")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in hostile.split("\n")} == {3}


@pytest.mark.parametrize(
    ("message", "arguments", "lines"),
    [("file %s", (EVIL,), 1), ("table\n%s", ("a\nb",), 3), (f"a\nb {EVIL}", (), 3)],
)
def test_a_log_line_cannot_be_forged_by_an_argument(message, arguments, lines):
    record = logging.LogRecord("a", logging.INFO, "", 1, message, arguments, None)
    assert escape_record(record)
    assert is_clean(record.getMessage())
    assert len(record.getMessage().split("\n")) == lines


def test_labels_of_pictures_show_escapes():
    drawn, expected = np.zeros((2, 30, 300, 3), np.uint8)
    put_text(drawn, "a\x1b\nb", 0, 0, (255, 255, 255))
    put_text(expected, "a\\x1b\\nb", 0, 0, (255, 255, 255))
    assert (drawn == expected).all() and drawn.any()
    assert text_width("\x1b") == text_width("\\x1b")


def test_a_spreadsheet_sees_no_formula(tmp_path):
    assert [csv_text(text) for text in ("=1+1", "@x", "a=1")] == ["'=1+1", "'@x", "a=1"]
    run = Run(tmp_path / "=HYPERLINK(1)", {}, (), {"bbox/AP": 1.0}, {})
    assert "'=HYPERLINK(1),'=HYPERLINK(1)," in csv_table({"=HYPERLINK(1)": [run]}, ["bbox/AP"])


# Commands


@pytest.fixture(scope="module")
def hostile_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the YAML of a COCO dataset whose every name is hostile.

    Readers refuse class names with control characters; here they let them through, so that the
    outputs have to stand for themselves, as with a checkpoint of unknown origin.
    """
    root = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        images, boxes = [], []
        for number in range(4):
            file = f"{split}{number}{NAME}.png"
            cv2.imwrite(str(root / "plain.png"), rng.integers(0, 255, (64, 64, 3), np.uint8))
            (root / "plain.png").rename(root / file)
            images.append({"id": number, "file_name": file, "width": 64, "height": 64})
            for box in ([4, 4, 30, 30], [9, 9, 90, 40], [5, 5, 0, 3]):
                one = {"id": len(boxes), "image_id": number, "bbox": box, "iscrowd": 0}
                boxes.append({**one, "category_id": 1 + len(boxes) % 2, "area": box[2] * box[3]})
        categories = [{"id": 1, "name": EVIL}, {"id": 2, "name": f"second {EVIL}"}]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    splits = "".join(f"  {s}: {{images: ., annotations: {s}.json}}\n" for s in ("train", "val"))
    (root / "set.yaml").write_text(f"name: hostile\nformat: coco\nroot: .\nsplits:\n{splits}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ulga_d2.data.formats.classes._REFUSED_KINDS", frozenset())
        patch.setattr("ulga_d2.data.formats.classes._DIRECTIONS", frozenset())
        yield root / "set.yaml"


@pytest.fixture(scope="module")
def hostile_run(hostile_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    changes = {"TRAIN": "('hostile_train',)", "TEST": "('hostile_val',)", "CUSTOM": hostile_set}
    main(tiny_args(folder, **{f"DATASETS__{key}": value for key, value in changes.items()}))
    return folder


def test_data_check_prints_and_draws_hostile_names(hostile_set, tmp_path, capfd):
    words = ["data", "check", str(hostile_set), "--out", str(tmp_path)]
    assert ulga(words) == 0
    out, err = capfd.readouterr()
    assert is_clean(out) and is_clean(err)
    assert "PROBLEM train: 4 boxes without area dropped" in out
    assert cv2.imread(str(tmp_path / "data_sheet.png")) is not None
    report = json.loads((tmp_path / "data_report.json").read_text())
    assert EVIL in report["splits"]["train"]["boxes_by_class"]


def test_a_file_name_forges_no_line_of_data_check():
    forged = "a\nclean: 0 errors, 0 problems\n.png"
    report = DataReport(found_images=1, found_boxes=1, images=1, boxes=Counter(a=1))
    loaded = LoadedSplit([], ("a",), report)
    fault = UserError("2 faults in the annotations:", f"  {forged}: bad", "  b.txt: bad")
    checkup = check_splits({"train": loaded, "val": fault}, Settings())
    note = finding("note", "train", "images", [forged])
    text = as_text("set", replace(checkup, findings=[*checkup.findings, note]))
    assert "\nclean: " not in text and text.count("a\\nclean: 0 errors") == 2
    assert "\n      b.txt: bad\n" in text


def test_the_log_of_a_training_is_clean(hostile_run):
    log = (hostile_run / "log.txt").read_text()
    assert is_clean(log)
    assert "class" in log and "\\x1b[2J" in log
    assert not re.search(r"(?m)^error: ", log)


def test_evaluate_compare_and_inspect_print_hostile_class_names(hostile_run, hostile_set, capfd):
    dataset = f"{hostile_set}:val"
    words = ["--dataset", dataset, "--bootstrap", "100"]
    assert ulga(["evaluate", str(hostile_run), *words]) == 0
    sides = [str(hostile_run), "--", str(hostile_run)]
    assert ulga(["compare", *sides, *words, "--permutations", "100"]) == 0
    assert ulga(["weights", "inspect", str(hostile_run / "model_final.pth")]) == 0
    out, err = capfd.readouterr()
    assert is_clean(out) and "\\x1b[2J" in out
    assert is_clean(err.replace("\r", ""))


class Tags(html.parser.HTMLParser):
    """Counts the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)


def test_a_report_page_has_no_element_and_no_control_character_of_a_name(hostile_run, tmp_path):
    assert ulga(["report", str(hostile_run), "--out", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert is_clean(page)
    assert Tags(page).found.count("script") == 2  # the page's own
    for name in re.findall(r'"name":"(.*?)","objects"', page):
        assert json.loads(f'"{name}"').isprintable()


def test_a_model_card_shows_names_and_runs_nothing_of_them(hostile_run):
    config = load_checkpoint(hostile_run / "model_final.pth")["config"]
    counts = {"images": 1, "without_boxes": 0, "boxes": 2, "sha256": "0"}
    info = SharedInfo(config, (EVIL, "[x](javascript:1)", "**b**"), 4, {}, {EVIL: counts})
    words = {"data": f"set {EVIL}", "licence": "CC | <b>0</b>", "intervals": {}}
    card = model_card("name", info, "file", "0" * 64, **words)
    assert is_clean(card)
    title, classes = card.split("\n")[0], card.split("\n")[2]
    rendered = markdown.markdown(card, extensions=["tables"])
    assert title == "# name"
    assert not {"script", "img", "b"} & {*Tags(rendered).found}
    shown = markdown.markdown(classes)
    assert Tags(shown).found == ["p", "code"]
    assert "**b**" in html.unescape(shown) and "[x](javascript:1)" in html.unescape(shown)
    assert printable(EVIL) in html.unescape(shown)
