"""YAML of plain data: no objects, each key once, and no aliases that grow without end."""

from __future__ import annotations

from typing import Any

import yaml

MOST_VALUES = 10_000  # of one text; detectron2's whole config has some 300
MOST_CHARACTERS = 1_000_000


class UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that is given twice and a text of many values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a value as PyYAML does, and count it."""
        self._values += 1
        if self._values > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Compose a mapping as PyYAML does, and compare its keys."""
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if (key.tag, key.value) in first:
                raise ValueError(
                    f"the key {key.value[:80]!r} is given twice, in lines "
                    f"{first[key.tag, key.value]} and {line}; keep one of them"
                )
            first[key.tag, key.value] = line
        return node


def parse_yaml(text: str) -> Any:
    """Return what a YAML text holds: mappings, lists, texts, numbers; None for an empty one.

    Raises:
        yaml.YAMLError: no valid YAML, or a tag that stands for an object.
        ValueError: more than `MOST_CHARACTERS` or `MOST_VALUES`, those of an alias counted each
            time that it is used; a key that is given twice; a value that does not fit its tag.
        RecursionError: nested too deeply.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{len(text):,} characters, and {MOST_CHARACTERS:,} are read at most")
    loader = UniqueKeyLoader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    if _size(node, {}) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values once its aliases are written out")
    try:
        return loader.construct_document(node)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"a tag does not fit its value ({error}); write it without a tag"
        ) from None


def _size(node: Any, sizes: dict[int, int]) -> int:
    """Count the values below a YAML node, those of an alias each time that it is used."""
    if id(node) not in sizes:
        sizes[id(node)] = MOST_VALUES + 1  # for an alias within itself
        children = node.value if isinstance(node.value, list) else []
        parts = [part for child in children for part in _parts(child)]
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]


def _parts(child: Any) -> tuple[Any, ...]:
    return child if isinstance(child, tuple) else (child,)
