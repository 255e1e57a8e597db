"""Read a YAML file of plain data; what is meant to harm its reader is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ...errors import UserError
from .text import read_text

# Far more than any description or list of classes takes; PyYAML reads about this much a second.
_MOST_CHARACTERS = 200_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without aliases, keys that stand twice, and numbers in disguise."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # A few aliases of aliases stand for a text of any length.
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"*{event.anchor} is not read: write the value itself", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = ", ".join(str(key.value) for key, _ in node.value)
            raise yaml.constructor.ConstructorError(
                None, None, f"one of the keys {keys[:200]} stands twice", node.start_mark
            )
        return mapping

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        # 010 is 8, 1_0 is 10 and 1:30 is 90; where they are names, nobody means that.
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


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds: lists, mappings, texts, numbers.

    Raises:
        UserError: the file cannot be read, is far too long, is not valid YAML, uses an alias or a
            tag, or has a key twice.
    """
    text = read_text(str(path))
    if len(text) > _MOST_CHARACTERS:
        raise UserError(
            f"{path} has {len(text):,} characters, more than the {_MOST_CHARACTERS:,} that are "
            "read of a YAML file; is it the right one?"
        )
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        # Dates that do not exist, numbers of thousands of digits, brackets without end.
        raise UserError(f"{path} is not valid YAML: {str(error)[:200]}") from None
