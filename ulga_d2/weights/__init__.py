"""Weights from the world: read without running code, renamed, resized, with a report."""
