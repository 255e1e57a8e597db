"""A trained detector on new images: preprocessing, prediction, tiles, and what is written."""
