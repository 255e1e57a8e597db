"""Read a YAML file of plain data; what is meant to harm its reader is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ...errors import UserError, one_line
from .text import read_text

# Far more than any description or list of classes takes; PyYAML reads about this much a second.
_MOST_CHARACTERS = 200_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases and without keys that stand twice."""

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
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from None
    except (ValueError, TypeError, RecursionError) as error:
        # Dates that do not exist, numbers of thousands of digits, brackets without end.
        raise UserError(f"{path} is not valid YAML: {str(error)[:200]}") from None
