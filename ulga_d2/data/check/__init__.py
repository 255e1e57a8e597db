"""The data doctor: decode every image, compare the splits, weigh the boxes, before any training."""
