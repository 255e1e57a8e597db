"""Every numeric key of the config with values that no run can work with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CONFIGS, tiny_options
from detectron2.config import CfgNode

from tests.tiny_detectors import options
from ulga_d2 import get_cfg
from ulga_d2.config import leaf_keys, merge_config, value_of
from ulga_d2.data.formats.numbers import read_id
from ulga_d2.engine.checks import check_config, check_model
from ulga_d2.engine.optimizer import resolve_schedule
from ulga_d2.errors import UserError
from ulga_d2.inference.model import build_seeded_model

NAN, INF = float("nan"), float("inf")
GROUPS = sorted({key.rsplit(".", 1)[0] for key in leaf_keys(get_cfg()) if "." in key})
# Values of a kind that none of our keys takes; those of FEW depend on the key.
NEVER = {int: (2**64, -(2**64), NAN, "a"), float: (NAN, INF, -INF, 1e-320, 1e308, "a")}
FEW = {int: (-1, 10**9, 1.5), float: (-1.0,)}


def tiny_config() -> CfgNode:
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml"), options())
    return cfg


def with_value(cfg: CfgNode, key: str, value: Any) -> CfgNode:
    """Return a copy with a value that no merging has looked at."""
    own = cfg.clone()
    *nodes, name = key.split(".")
    node = own
    for part in nodes:
        node = node[part]
    node[name] = value
    return own


def forms(default: Any, table: dict[type, tuple[Any, ...]]) -> Iterator[Any]:
    """Yield the values of a table in the form of a key's default: alone, in a list, in rows."""
    if isinstance(default, (list, tuple)):
        for value in forms(default[0], table) if default else ():
            yield type(default)([value] * len(default))
    elif type(default) in table:
        yield from table[type(default)]


@pytest.mark.parametrize("group", [*GROUPS, ""])
def test_every_number_of_a_key_is_refused_or_gives_a_run(group):
    cfg = tiny_config()
    keys = [key for key in leaf_keys(cfg) if key.rpartition(".")[0] == group]
    for key in keys:
        default = value_of(cfg, key)
        for value in forms(default, NEVER):
            with pytest.raises(UserError, match=key):
                check_config(with_value(cfg, key, value))
        for value in [*forms(default, FEW), *([type(default)()] if is_list(default) else [])]:
            try_out(with_value(cfg, key, value))


def is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def try_out(cfg: CfgNode) -> None:
    """Set up what a run needs of a config; a UserError is an answer, too, and nothing else is."""
    try:
        check_config(cfg)
        check_model(cfg)
        resolve_schedule(cfg, 10)
    except UserError:
        return
    build_seeded_model(cfg)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SEED", str(2**64)], r"SEED is 18446744073709551616; .*below 2\*\*63"),
        (["SEED", "-2"], r"SEED is -2"),
        (["SOLVER.IMS_PER_BATCH", str(10**18)], r"IMS_PER_BATCH has 1000000000000000000; give at"),
        (["SOLVER.IMS_PER_BATCH", str(10**9)], r"IMS_PER_BATCH is 1000000000; give 1 or more, at"),
        (["SOLVER.MAX_ITER", str(2**70)], r"MAX_ITER has 1180591620717411303424"),
        (["SOLVER.MAX_ITER", str(2**31 - 1)], r"MAX_ITER is 2147483647; give 1 or more, at most"),
        (["SOLVER.NUM_EPOCHS", str(10**9)], r"NUM_EPOCHS is 1000000000; give 1 or more, at"),
        (["DATALOADER.NUM_WORKERS", str(10**9)], r"NUM_WORKERS is 1000000000; give 0 or more, at"),
        (["INPUT.SQUARE_SIZE", str(10**9)], r"SQUARE_SIZE is 1000000000; give a multiple of 32"),
        (
            ["INPUT.TILE.SIDE", str(10**9)],
            r"TILE\.SIDE is 1000000000; give 32 or more",
        ),
        (["MODEL.RETINANET.NUM_CLASSES", str(10**9)], r"NUM_CLASSES is 1000000000; give 1 or more"),
        (["MODEL.ULGA.CAT.NUM_CONCEPTS", str(10**9)], r"parameters, and 2,000,000,000 are taken"),
        (["MODEL.PIXEL_STD", "[1e-320, 1.0, 1.0]"], r"PIXEL_STD has 1e-320; give 0, or a size"),
        (["MODEL.PIXEL_STD", "[1e-20, 1.0, 1.0]"], r"PIXEL_STD is .*give three numbers from 0\.0"),
        (["MODEL.PIXEL_MEAN", "[1e20, 1.0, 1.0]"], r"PIXEL_MEAN is .*pixels from 0 to 255"),
        (["MODEL.WEIGHTS", "a\0b"], r"MODEL\.WEIGHTS has 'a\\x00b'; leave the control characters"),
        (["DATASETS.TRAIN", "('a\\0b',)"], r"DATASETS\.TRAIN has 'a\\x00b'; leave the control"),
        (["OUTPUT_DIR", "a\x1b[31m"], r"OUTPUT_DIR has 'a\\x1b\[31m'; leave the control"),
        (["SOLVER.BASE_LR", "nan"], r"BASE_LR takes a float, like .*; nan is a str"),
    ],
)
def test_an_impossible_option_is_refused_with_the_fix(words, message):
    cfg = get_cfg()
    with pytest.raises(UserError, match=message):
        merge_config(cfg, str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml"), [*options(), *words])
        check_config(cfg)
        check_model(cfg)


def test_epochs_of_a_dataset_that_make_too_many_iterations_are_refused():
    cfg = get_cfg()
    cfg.SOLVER.NUM_EPOCHS, cfg.SOLVER.IMS_PER_BATCH = 10**6, 1
    with pytest.raises(UserError, match="NUM_EPOCHS is 1000000, of 2000 iterations each"):
        resolve_schedule(cfg, 2000)


def test_a_path_with_a_nul_in_a_file_is_refused(tmp_path: Path):
    file = tmp_path / "nul.yaml"
    file.write_text('OUTPUT_DIR: "a\\0b"\nMODEL: {WEIGHTS: "x"}\n')
    cfg = get_cfg()
    merge_config(cfg, str(file), [])
    with pytest.raises(UserError, match=r"OUTPUT_DIR has 'a\\x00b'"):
        check_config(cfg)


@pytest.mark.parametrize("name", ["\u3000", "a\u00a0b", "\u202ftumour\u2009"])
def test_a_path_with_spaces_of_any_script_is_taken(name):
    cfg = tiny_config()
    cfg.OUTPUT_DIR = f"runs/{name}/x"
    check_config(cfg)


@pytest.mark.parametrize("name", ["a\x85b", "a\ud800b", "a\tb", "a\nb"])
def test_a_path_with_control_characters_or_halves_of_surrogates_is_refused(name):
    cfg = tiny_config()
    cfg.OUTPUT_DIR = name
    with pytest.raises(UserError, match="OUTPUT_DIR has"):
        check_config(cfg)


def test_category_ids_are_bound_as_annotation_files_are():
    largest = 10**18 - 1
    assert read_id(largest) == largest and read_id(largest + 1) is None
    cfg = tiny_config()
    cfg.DATASETS.CATEGORY_IDS = [2**31, largest, -largest, 0]
    check_config(cfg)
    for wrong in (largest + 1, True, 1.0, "a"):
        cfg.DATASETS.CATEGORY_IDS = [1, wrong]
        with pytest.raises(UserError, match=r"DATASETS\.CATEGORY_IDS .*the dataset's own ids"):
            check_config(cfg)


def test_the_largest_values_that_are_taken_are_taken():
    words = ["SEED", str(2**63 - 1), "SOLVER.MAX_ITER", str(10**9), "SOLVER.IMS_PER_BATCH", "65536"]
    cfg = get_cfg()
    leaf = str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml")
    merge_config(cfg, leaf, [*tiny_options(Path("x")), *words])
    check_config(cfg)
    build_seeded_model(cfg)
