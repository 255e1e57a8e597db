"""Strict readers, one annotation format a file."""
