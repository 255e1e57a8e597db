"""Texts that anyone may have made are parsed as plain data, within limits of time and size."""

from __future__ import annotations

import time

import pytest
import yaml

from ulga_d2.config import changed_settings, parse_config, stated_category_ids
from ulga_d2.errors import UserError
from ulga_d2.io import parse_json, parse_yaml

DOUBLING = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
CHAIN = "- &a0 [x]\n" + "".join(f"- &a{i} [*a{i - 1}]\n" for i in range(1, 200))


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, 2.5, true, null, 2001-12-14]\nc: {d: 'e'}\n",
        "base: &base {x: 1, y: 2}\nother: {<<: *base, x: 3}\nsame: *base\n",
        "",
        "- a\n- b\n",
    ],
)
def test_plain_yaml_is_read_as_pyyaml_reads_it(text):
    assert parse_yaml(text, "x.yaml") == yaml.safe_load(text)


def test_the_class_names_of_the_largest_public_datasets_are_read():
    names = {number: f"class {number}" for number in range(13_204)}
    assert parse_yaml(yaml.safe_dump({"names": names}), "data.yaml") == {"names": names}
    config = {"DATASETS": {"CLASS_NAMES": [*names.values()] * 2, "CATEGORY_IDS": [*names] * 2}}
    assert parse_config(yaml.safe_dump(config), "model.pth") == config


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (DOUBLING, "once its aliases are written out"),
        (CHAIN, "once its aliases are written out"),
        ("a: &a [*a]", "once its aliases are written out"),
        ("a: &a {b: *a}", "once its aliases are written out"),
        ("[" * 20_000, "nested too deeply"),
        ("[" + "1," * 400_000 + "]", "more than 100,000 values"),
        ("# long\n" * 200_000, "has more than the 1,000,000 characters"),
        ("a: 1\na: 2", "the key 'a' is given twice, in lines 1 and 2"),
        ("1: a\ntrue: b", "given twice"),
        ("a: !!python/name:os.system", "never run code"),
        ("a: " + "9" * 5000, "more than 1,000 characters"),
        ("a: " + ":".join(["1"] * 99_000), "more than 1,000 characters"),
        ("a: " + ":".join(["1"] * 250) + ".5", "not valid YAML"),
        ('a: !!int ""', "not valid YAML"),
        ('a: !!float ""', "not valid YAML"),
        ("? {a: 1}\n: 2", "unhashable"),
        ("a: !!int x", "not valid YAML"),
        ("a: 1\n--- \nb: 2", "not valid YAML"),
    ],
)
def test_yaml_made_to_harm_is_refused_within_seconds(text, told):
    start = time.perf_counter()
    with pytest.raises(UserError, match=rf"^x\.yaml .*({told})"):
        parse_yaml(text, "x.yaml")
    assert time.perf_counter() - start < 15


@pytest.mark.parametrize(
    "read",
    [
        lambda text: parse_config(text, "a.pth"),
        lambda text: stated_category_ids(text, 2),
        lambda text: list(changed_settings(text, "SEED: 1")),
        lambda text: list(changed_settings("SEED: 1", text)),
    ],
)
@pytest.mark.parametrize("text", [DOUBLING, "[1]", "a: 1\na: 2", "!!python/name:os.system"])
def test_the_config_in_a_checkpoint_is_read_by_the_same_rules(read, text):
    with pytest.raises(UserError):
        read(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 20_000, "9" * 5000, "{", b"\xff"])
def test_json_that_cannot_be_parsed_is_refused_with_its_name(text):
    with pytest.raises(UserError, match=r"^x\.json.*not valid JSON"):
        parse_json(text, "x.json")
