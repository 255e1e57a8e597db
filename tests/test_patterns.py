"""Patterns for patients: matched like `re` does, and stopped when they never come to an end."""

from __future__ import annotations

import re
import time

import pytest

from ulga_d2.data.patterns import LONGEST_PATTERN, check_pattern, first_groups
from ulga_d2.errors import UserError

NAMES = ["p1_a.png", "site/p2_b.png", "none.png", "", "_x", "é\n_1", "\udcff_2"]


@pytest.mark.parametrize("pattern", ["^([^_]+)_", "(p[0-9])", "(?i)(P)", r"^(?:.*/)?(p\d*)_", "()"])
def test_what_is_found_is_what_re_finds(pattern):
    expected = [match and match[1] for match in map(re.compile(pattern).search, NAMES)]
    assert first_groups(pattern, NAMES, "own.yaml") == [found or None for found in expected]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"own\.yaml: patient '\(' is no pattern: missing \)"),
        ("(a)(b)", r"own\.yaml: patient '\(a\)\(b\)' has 2 groups; put the part of the path"),
        ("a", r"has 0 groups"),
        ("(" * LONGEST_PATTERN + "x", r"has 501 characters, more than 500"),
        ("(" * (LONGEST_PATTERN - 1), r"is no pattern"),
        ("(a{99999999999999999999})", r"is no pattern"),
    ],
)
def test_what_is_no_pattern_with_one_group_is_refused(pattern, message):
    with pytest.raises(UserError, match=message):
        check_pattern(pattern, "own.yaml")


@pytest.mark.parametrize("pattern", ["^((?:a+)+)$", "^((?:a|aa)+)$", "((?:.*)*x)y"])
def test_a_pattern_that_never_ends_is_stopped_with_the_name(pattern):
    endless = "a" * 60 + "b"
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"does not come to an end within 2 s \(on {endless}\)"):
        first_groups(pattern, ["aaaxy", "", endless, "aaa"], "own.yaml")
    assert time.monotonic() - start < 20


def test_many_names_are_matched_in_one_process():
    names = [f"folder/patient{number}_x.png" for number in range(30_000)]
    start = time.monotonic()
    found = first_groups("(patient[0-9]+)_", names, "own.yaml")
    assert found[-1] == "patient29999" and len(set(found)) == len(names)
    assert time.monotonic() - start < 20
