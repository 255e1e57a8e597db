"""CCellBio (cancerous tumors, chimeric cell clusters), in a layout that is ours.

The paper introduces this set, and a published summary calls it a cancer-tumor set for concealed
object detection. Its authors announce its release, but its files, layout and class list were not
available to this project. This reader is therefore a guess: images by split and one COCO file a
split, with any class names. A Pascal VOC tree in the same folder is read too, so that the blood
cells of BCCD can stand in. Corrections are welcome.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .find import check_root
from .options import DEFAULT_OPTIONS, DatasetOptions
from .record import LoadedSplit

TREE = "{train,val,test}/*.png with annotations/{train,val,test}.json (COCO)"
VOC_TREE = "JPEGImages/, Annotations/*.xml and ImageSets/Main/{train,val,test}.txt (Pascal VOC)"


def load_ccellbio(root: Path, split: str, options: DatasetOptions = DEFAULT_OPTIONS) -> LoadedSplit:
    """Read one split in place.

    Args:
        root: the data set's folder, usually `$DETECTRON2_DATASETS/ccellbio`.
        split: "train", "val" or "test".
        options: none counts.

    Raises:
        UserError: the data or the split is missing, or a file is not what it should be.
    """
    check_root(root, "CCellBio")
    json_file = root / "annotations" / f"{split}.json"
    names_file = root / "ImageSets" / "Main" / f"{split}.txt"
    if json_file.is_file() == names_file.is_file():
        both = "both trees" if json_file.is_file() else "neither tree"
        raise UserError(
            f"{root} has the {split} split in {both}; exactly one of these must be there:\n"
            f"  {TREE}\n  {VOC_TREE}"
        )
    if json_file.is_file():
        from .formats.coco import read_coco

        files = [json_file.with_name(f"{name}.json") for name in ("train", "val", "test")]
        others = [file for file in files if file.is_file()]
        return read_coco(json_file, root / split, others)
    from .formats.voc import read_image_set, read_voc

    names = read_image_set(names_file)
    return read_voc(root / "Annotations", root / "JPEGImages", names)
