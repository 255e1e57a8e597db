"""Data sets as detectron2 records: one file a data set, one reader an annotation format."""
