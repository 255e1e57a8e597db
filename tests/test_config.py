"""Every shipped YAML, and what a user reads about a wrong one."""

from __future__ import annotations

import inspect
import itertools
import time
from pathlib import Path

import pytest
import yaml
from conftest import CONFIGS
from detectron2.config import get_cfg as get_detectron2_cfg
from fvcore.common.config import CfgNode as PlainCfgNode

from ulga_d2 import add_ulga_config, get_cfg
from ulga_d2.backbone.build import head_levels
from ulga_d2.backbone.dat import DAT
from ulga_d2.backbone.swin import SwinTransformer
from ulga_d2.backbone.vit import ViT
from ulga_d2.config import changed_settings, leaf_keys, merge_config
from ulga_d2.engine.checks import NO_EFFECT, check_config, check_model
from ulga_d2.engine.launch import run
from ulga_d2.errors import UserError
from ulga_d2.interaction.acp import AggressiveConvPooling
from ulga_d2.interaction.cat import ConceptualAttentionTransformation

LEAVES = sorted(path for path in CONFIGS.glob("*.yaml"))
NAMED_LEAVES = [path for path in LEAVES if path.stem != "demo"]
NINE_ALIASES = "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in itertools.pairwise("abcdefghij")
)
VARIANTS = {"baseline": [], "acp": ["acp"], "cat": ["cat"], "ulga": ["acp", "cat"]}


def load(path: Path | str, *opts: str):
    cfg = get_cfg()
    merge_config(cfg, str(path), list(opts))
    check_config(cfg)
    check_model(cfg)
    return cfg


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_every_leaf_loads_safely_and_builds(path):
    cfg = load(path)  # builds it on the meta device
    assert len(cfg.MODEL.ANCHOR_GENERATOR.SIZES) == len(head_levels(cfg)[1])


@pytest.mark.parametrize("path", NAMED_LEAVES, ids=lambda path: path.stem)
def test_a_leafs_name_agrees_with_its_contents(path):
    name = path.stem.removesuffix("_nano")
    data_set, backbone, variant = name.rsplit("_", 2)
    cfg = load(path)
    assert cfg.MODEL.MASK_ON is data_set.endswith("_mask")
    data_set = data_set.removesuffix("_mask")
    is_custom = data_set == "custom"  # its data are named on the command line
    assert list(cfg.DATASETS.TRAIN) == ([] if is_custom else [f"{data_set}_train"])
    assert cfg.MODEL.BACKBONE.NAME == f"build_retinanet_ulga_{backbone}_fpn_backbone"
    assert cfg.MODEL.ULGA.INTERACTIONS == VARIANTS[variant]
    stem = path.stem.replace("custom", "{dataset}") if is_custom else path.stem
    assert cfg.OUTPUT_DIR == f"output/{stem}"


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_no_yaml_states_the_number_of_classes_or_needs_a_tag(path):
    merged = PlainCfgNode.load_yaml_with_base(str(path), allow_unsafe=False)
    assert "NUM_CLASSES" not in str(merged)
    assert "CLASS_NAMES" not in str(merged)


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("VIT", ViT),
        ("SWIN", SwinTransformer),
        ("DAT", DAT),
        ("ACP", AggressiveConvPooling),
        ("CAT", ConceptualAttentionTransformation),
    ],
)
def test_a_nodes_keys_are_the_constructors_arguments(node, module):
    keys = {key.lower() for key in get_cfg().MODEL.ULGA[node]}
    assert keys <= set(inspect.signature(module.__init__).parameters)


def test_get_cfg_can_be_called_twice_and_registers_once():
    first, second = get_cfg(), get_cfg()
    assert list(leaf_keys(first)) == list(leaf_keys(second))


def test_add_ulga_config_changes_no_key_of_detectron2s_own():
    theirs = get_detectron2_cfg()
    ours = theirs.clone()
    add_ulga_config(ours)
    for key in leaf_keys(theirs):
        one, other = theirs, ours
        for name in key.split("."):
            one, other = one[name], other[name]
        assert one == other, key


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.EPOCHS", "3"], r"unknown config key SOLVER\.EPOCHS; .*SOLVER\.NUM_EPOCHS"),
        (["MODEL.ULGA.ACP.LAYERS", "3"], r"MODEL\.ULGA\.ACP\.NUM_LAYERS"),
        (["MODEL.ULGA.SWIN.MLP_RATIO", "7"], r"MLP_RATIO takes a float, like 4\.0; 7 is a int"),
        (["MODEL.ULGA.INTERACTIONS", "[acp]"], r"takes a list, like \['acp', 'cat'\]"),
        (["SOLVER.BASE_LR"], r"come in pairs of KEY VALUE"),
        (["SEED", "-1"], r"SEED is -1; .* give 0 or more"),
        (
            ["DATALOADER.ASPECT_RATIO_GROUPING", "True"],
            r"ASPECT_RATIO_GROUPING is True; it must be False",
        ),
        (["INPUT.SQUARE_SIZE", "100"], r"SQUARE_SIZE is 100; give a multiple of 32"),
        (["SOLVER.LR_SCHEDULER_NAME", "Step"], r"is 'Step'; give WarmupMultiStepLR or"),
        (["MODEL.BACKBONE.NAME", "swin"], r"MODEL\.BACKBONE\.NAME is 'swin', which nothing"),
        (["MODEL.ULGA.INTERACTIONS", "['apc']"], r"the unknown name 'apc'; .* did you mean acp"),
        (["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value"], r"CLIP_TYPE is 'value'; only 'full_model'"),
        (["MODEL.META_ARCHITECTURE", "Retina"], r"META_ARCHITECTURE is 'Retina', which nothing"),
        (["MODEL.FPN.NORM", "GM"], r"MODEL\.FPN\.NORM is 'GM'; give GN, LN"),
        (["MODEL.RETINANET.NORM", "gn"], r"MODEL\.RETINANET\.NORM is 'gn'; give GN, LN"),
        (["MODEL.FPN.FUSE_TYPE", "mean"], r"FUSE_TYPE is 'mean'; give sum or avg"),
        (
            ["MODEL.ANCHOR_GENERATOR.SIZES", "[[32], [64]]"],
            r"SIZES has 2 rows; .*\(p3, p4, p5, p6, p7\)",
        ),
        (["SOLVER.AMP.ENABLED", "off"], r"AMP\.ENABLED is 'off'; give True, False, or None"),
        (["INPUT.RANDOM_FLIP", "horizontally"], r"RANDOM_FLIP is 'horizontally'; give none or"),
        (["INPUT.INTENSITY", "widow"], r"INTENSITY is 'widow'.*give full, window or percentile"),
        (["INPUT.INTENSITY", "window"], r"INTENSITY is 'window' with .*RANGE \[\]; give \[low, hi"),
        (["INPUT.INTENSITY_RANGE", "[0, 9]"], r"'auto' with .*RANGE \[0, 9\]; give \[\] as the"),
        (["INPUT.TILE.SIDE", "31"], r"TILE\.SIDE is 31; give 32 or more pixels, or 0"),
        (["INPUT.TILE.SIDE", "-64"], r"TILE\.SIDE is -64; give 32 or more"),
        (
            ["INPUT.TILE.OVERLAP", "0.95"],
            r"TILE\.OVERLAP is 0\.95; give a share of SIDE",
        ),
        (["INPUT.TILE.MIN_VISIBLE", "0.0"], r"MIN_VISIBLE is 0\.0; give more than 0, at most 1"),
        (["INPUT.TILE.EMPTY_SHARE", "-0.1"], r"EMPTY_SHARE is -0\.1; give 0 or more"),
        (["INPUT.SCALE_RANGE", "[1.2, 0.8]"], r"SCALE_RANGE is \[1\.2, 0\.8\]; give two factors"),
        (["SOLVER.MAX_ITER", "0"], r"MAX_ITER is 0; give 1 or more"),
        (["SOLVER.BASE_LR_END", "1.0"], r"BASE_LR_END is 1\.0; .* no more than SOLVER\.BASE_LR"),
        (["SOLVER.BASE_LR", "0.0"], r"BASE_LR is 0\.0; give a rate above 0"),
        (["SOLVER.STEPS", "(20, 20)"], r"STEPS is \(20, 20\); give iterations that grow"),
        (["SOLVER.STEP_FRACTIONS", "[0.5, 1.0]"], r"STEP_FRACTIONS is \[0\.5, 1\.0\]; give shares"),
        (
            ["OUTPUT_DIR", "s3://bucket/run"],
            r"OUTPUT_DIR is s3://.*; give a folder of this machine",
        ),
        (["INPUT.MIN_SIZE_TEST", "600"], r"MIN_SIZE_TEST is 600, and follows from .*SQUARE_SIZE"),
        (["SOLVER.MOMENTUM", "0.8"], r"SOLVER\.MOMENTUM has no effect here.*AdamW"),
        (["TEST.AUG.MIN_SIZES", "(0,)"], r"MIN_SIZES is \(0,\); give the shorter sides"),
    ],
)
def test_a_wrong_option_is_refused_with_the_cure(opts, message):
    with pytest.raises(UserError, match=message):
        load(CONFIGS / "brain_tumor_swin_ulga.yaml", *opts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MODEL:\n  ULGA:\n    INTERACTION: []\n", r"did you mean MODEL\.ULGA\.INTERACTIONS"),
        ("MODEL: [1\n", r"not valid YAML"),
        ("- a\n", r"must hold nested `KEY: value` lines"),
        ("_BASE_: nothing.yaml\n", r"nothing\.yaml"),
        ("SEED: 1\nOUTPUT_DIR: x\nSEED: 2\n", r"key 'SEED' is given twice, in lines 1 and 3; keep"),
        (
            "SOLVER:\n  BASE_LR: 0.1\n  'BASE_LR': 0.2\n",
            r"'BASE_LR' is given twice, in lines 2",
        ),
        ("SOLVER: {STEPS: (1,), STEPS: (2,)}\n", r"'STEPS' is given twice, in lines 1 and 1"),
        ("a: &a [x, x]\n" + NINE_ALIASES, r"once its aliases are written out"),
        ("a: &a {<<: *a}\n", r"not valid YAML|nested too deeply|more than|tag"),
        ("[" * 200_000, r"nested too deeply"),
        ("{a: " * 50_000, r"nested too deeply"),
        ("a: [" + "1, " * 110_000 + "]", r"more than 100,000 values"),
        ("# " + "x" * 1_000_000, r"1,000,002 bytes .* 1,000,000 are read at most"),
        ("SEED: 1" + "0" * 5000, r"not valid YAML: a whole number of more than 1,000"),
        ("", r"must hold nested `KEY: value` lines"),
        ("\0\0\0", r"not valid YAML|no text"),
        ("5\n", r"must hold nested `KEY: value` lines"),
    ],
)
def test_a_wrong_file_is_refused_with_the_cure(tmp_path, content, message):
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    start = time.process_time()
    with pytest.raises(UserError, match=message) as caught:
        load(file)
    assert str(file) in str(caught.value)
    assert time.process_time() - start < 20


def test_a_key_given_twice_in_a_base_is_refused_with_the_bases_name(tmp_path):
    (tmp_path / "base.yaml").write_text("MODEL:\n  FPN: {NORM: GN}\n  FPN: {NORM: LN}\n")
    (tmp_path / "own.yaml").write_text("_BASE_: base.yaml\n")
    with pytest.raises(UserError, match=r"base\.yaml .*the key 'FPN' is given twice, in lines 2"):
        load(tmp_path / "own.yaml")


def test_a_base_is_found_among_the_packages_own_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "folder" / "own.yaml"
    own.parent.mkdir()
    own.write_text("_BASE_: configs/custom_swin_ulga_nano.yaml\nSEED: 5\nOUTPUT_DIR: mine\n")
    cfg, base = load(own), load("configs/custom_swin_ulga_nano.yaml")
    base.SEED, base.OUTPUT_DIR = 5, "mine"
    assert cfg.dump() == base.dump()
    (own.parent / "configs").mkdir()
    (own.parent / "configs" / "custom_swin_ulga_nano.yaml").write_text("SEED: 3\n")
    beside = get_cfg()
    merge_config(beside, str(own), [])
    assert beside.MODEL.BACKBONE.NAME == get_cfg().MODEL.BACKBONE.NAME


@pytest.mark.parametrize("path", LEAVES[::7], ids=lambda path: path.stem)
def test_bases_are_merged_as_fvcore_merges_them(path):
    theirs = get_cfg()
    theirs.merge_from_file(str(path), allow_unsafe=False)
    ours = get_cfg()
    merge_config(ours, str(path), [])
    assert ours.dump() == theirs.dump()


def test_a_config_of_another_version_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text("VERSION: 1\n")
    with pytest.raises(UserError, match=r"own\.yaml: it has VERSION 1; convert it to version 2"):
        load(tmp_path / "own.yaml")


def test_bases_that_are_large_together_are_refused(tmp_path):
    names = [f"{number}.yaml" for number in range(7)]
    for name in names:
        (tmp_path / name).write_text("SEED: 1\n#" + "x" * 150_000)
    (tmp_path / "own.yaml").write_text(f"_BASE_: {names}\n")
    with pytest.raises(UserError, match=r"bytes with its bases"):
        load(tmp_path / "own.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00S", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08"])
def test_a_file_that_is_no_text_is_refused(tmp_path, content):
    (tmp_path / "own.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"own\.yaml(: it is no text in UTF-8| is not valid YAML)"):
        load(tmp_path / "own.yaml")


def test_a_folder_is_no_config(tmp_path):
    with pytest.raises(UserError, match="is a folder; give a YAML file"):
        load(tmp_path)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {0}']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object/new:os.system ['touch {0}']",
    ],
)
def test_a_python_tag_is_refused_and_never_executed(tmp_path, tag, capsys):
    canary = tmp_path / "canary"
    file = tmp_path / "tag.yaml"
    file.write_text(f"OUTPUT_DIR: {tag.format(canary)}\n")
    assert run(["--config-file", str(file)]) == 2
    message = capsys.readouterr().err
    assert "never run code" in message and "Traceback" not in message
    assert not canary.exists()


def test_a_misspelt_leaf_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"did you mean .*brain_tumor_swin_ulga\.yaml"):
        load(CONFIGS / "brain_tumor_swin_ulgaa.yaml")


def test_the_written_config_is_plain_yaml():
    assert yaml.safe_load(get_cfg().dump())["MODEL"]["ULGA"]["INTERACTIONS"] == []


def test_every_key_that_has_no_effect_is_one_of_detectron2s():
    assert NO_EFFECT.keys() <= set(leaf_keys(get_detectron2_cfg()))


def test_our_own_leaf_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load("configs/brain_tumor_swin_ulga.yaml")
    assert cfg.MODEL.ULGA.INTERACTIONS == ["acp", "cat"]


def test_changed_settings_are_those_that_both_versions_know():
    before = "SOLVER: {BASE_LR: 0.1, MAX_ITER: 5}\nOLD: 1\n"
    after = "SOLVER: {BASE_LR: 0.2, MAX_ITER: 5}\nNEW: {KEY: 0}\n"
    assert list(changed_settings(before, after)) == [("SOLVER.BASE_LR", 0.1, 0.2)]
