"""What a user can choose about the data sets, as the DATASETS keys of the config say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetOptions:
    """The choices of a run; each data set heeds its own.

    Attributes:
        nih_negatives: how many "No Finding" images each split of NIH Chest X-ray gets besides the
            images with boxes.
        cod10k_classes: 1 (everything camouflaged is "foreground") or 69 (sub-classes).
        cod10k_noncam: keep COD10K's images without a camouflaged object, as negatives.
        folds_file: a file of `folds.py` that says which images are training and validation; ""
            leaves that to the data set.
        fold: the fold of that file that is validation.
    """

    nih_negatives: int = 0
    cod10k_classes: int = 1
    cod10k_noncam: bool = False
    folds_file: str = ""
    fold: int = 0


DEFAULT_OPTIONS = DatasetOptions()
