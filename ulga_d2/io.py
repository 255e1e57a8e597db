"""Parse text files that anyone may have made: YAML and JSON, as plain data and within limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError

# Of a YAML text. PyYAML reads about 20,000 values a second; a config with 20,000 classes has
# 40,000. What an alias stands for counts each time.
MOST_CHARACTERS = 1_000_000
MOST_VALUES = 100_000
MOST_LEVELS = 50
MOST_DIGITS = 1_000  # of a whole number


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits, and without keys given twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a value as PyYAML does, and count it."""
        self._values += 1
        self._levels += 1
        if self._values > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        if self._levels > MOST_LEVELS:
            raise ValueError(f"nested too deeply, more than {MOST_LEVELS} levels")
        node = super().compose_node(parent, index)
        self._levels -= 1
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Compose a mapping as PyYAML does, and compare its keys."""
        node = super().compose_mapping_node(anchor)
        first: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line, value = key.start_mark.line + 1, self.construct_object(key)
            if value in first:
                raise ValueError(
                    f"the key {key.value[:80]!r} is given twice, in lines {first[value]} and "
                    f"{line}; keep one of them"
                )
            first[value] = line
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Refuse numbers that nobody reads as YAML does: 010 is 8, 1_0 is 10 and 1:30 is 90."""
        if len(node.value) > MOST_DIGITS:
            raise ValueError(f"a whole number of more than {MOST_DIGITS:,} characters")
        value = super().construct_yaml_int(node)
        if node.value not in (str(value), f"+{value}"):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"{node.value[:50]} would be read as the number {str(value)[:50]}; put it in "
                "quotes, or write the number",
                node.start_mark,
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str, place: str | Path) -> Any:
    """Return what a YAML text holds: lists, mappings, texts, numbers; None if it is empty.

    Args:
        text: one document.
        place: where it comes from, for messages.

    Raises:
        UserError: it is not valid YAML, is far too long or too deep, has a tag that is no plain
            data's, has a key twice, or aliases that stand for far more than is written.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(
            f"{place} has more than the {MOST_CHARACTERS:,} characters that are read of a YAML "
            "file; is it the right one?"
        )
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        values, levels = _extent(node, {})
        if values > MOST_VALUES or levels > MOST_LEVELS:
            raise ValueError(
                f"more than {MOST_VALUES:,} values or {MOST_LEVELS} levels once its aliases are "
                "written out"
            )
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        if "constructor for the tag" in problem:
            problem += "; YAML is plain data and can never run code: write the value without a tag"
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"{place} is not valid YAML: {problem}{line}") from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # Dates that do not exist, numbers of thousands of digits, tags that do not fit.
        raise UserError(f"{place} is not valid YAML: {str(error)[:200]}") from None


def _extent(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Count the values at and below a node, those of an alias each time, and their levels."""
    if id(node) not in known:
        known[id(node)] = (MOST_VALUES + 1, 1)  # for an alias within itself
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        extents = [_extent(part, known) for child in children for part in _parts(child)]
        values = sum(values for values, _ in extents)
        levels = max((levels for _, levels in extents), default=0)
        known[id(node)] = (1 + values, 1 + levels)
    return known[id(node)]


def _parts(child: Any) -> tuple[Any, ...]:
    return child if isinstance(child, tuple) else (child,)


def parse_json(text: str | bytes, place: str | Path) -> Any:
    """Return what a JSON text holds.

    Args:
        text: one document; bytes are UTF-8, -16 or -32.
        place: where it comes from, for messages.

    Raises:
        UserError: it is not valid JSON, gives a key of an object twice, is nested too deeply, or
            has a number of thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=without_repeats)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{place}, line {error.lineno}: not valid JSON ({error.msg}); fetch or "
            "export the file again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON ({error}); export the file again") from None


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a repeated key, `json` would silently keep the last value alone."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {ascii(twice)[:40]} stands twice in one object")
    return found
