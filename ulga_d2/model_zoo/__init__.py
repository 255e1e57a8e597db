"""Configs and trained weights by name, as in detectron2's own zoo."""

from .api import get, get_checkpoint_url, get_config, get_config_file

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]
