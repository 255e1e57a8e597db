"""Deterministic sample data sets, written in the official layout of the data set they stand for."""

from .write import write_sample

__all__ = ["write_sample"]
