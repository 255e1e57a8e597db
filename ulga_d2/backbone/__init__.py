"""Backbones for detectron2, made of the common block and handed-in interactions."""
