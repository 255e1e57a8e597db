"""Read a YAML file of plain data, where what is meant to harm its reader is refused; write one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ...io import parse_yaml
from .text import read_text


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds: lists, mappings, texts, numbers.

    Raises:
        UserError: the file cannot be read, or see `parse_yaml`.
    """
    return parse_yaml(read_text(str(path)), path)


def dump_yaml(content: Any) -> str:
    """Return plain data as the text of a YAML file; keys keep their order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
