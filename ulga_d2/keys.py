"""Every config key this project adds to detectron2's, with its default."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def add_keys(cfg: CfgNode) -> None:
    """Add this project's keys to a detectron2 config, in place; a second call changes nothing."""
    if "ULGA" in cfg.MODEL:
        return
    _add_model_keys(cfg)
    _add_vit_keys(cfg)
    _add_swin_keys(cfg)
    _add_dat_keys(cfg)
    _add_dataset_keys(cfg)
    _add_loader_keys(cfg)
    _add_input_keys(cfg)
    _add_solver_keys(cfg)
    _add_test_keys(cfg)


def _node() -> CfgNode:
    from detectron2.config import CfgNode

    return CfgNode()


def _add_model_keys(cfg: CfgNode) -> None:
    ulga = cfg.MODEL.ULGA = _node()
    # What lets tokens interact before self-attention: [] (the plain backbone), [acp], [cat],
    # [acp, cat] (the full model), or one of the two controls, [depthwise] and [fuse].
    ulga.INTERACTIONS = []
    # The stages whose blocks get the interaction; all blocks of a ViT are in stage4.
    ulga.STAGES = ["stage2", "stage3", "stage4", "stage5"]
    # Recompute each block's activations in the backward pass: less memory, a third more time.
    ulga.GRADIENT_CHECKPOINTING = False

    ulga.ACP = _node()
    # Rounds of depthwise convolution and max-pooling, 1 to 4 (the paper: 2 is usually best).
    ulga.ACP.NUM_LAYERS = 2
    # Side of the depthwise kernel, odd (ours).
    ulga.ACP.KERNEL_SIZE = 3
    # Stride of each pooling: 2 halves the map a round, 1 keeps it (ours).
    ulga.ACP.POOL_STRIDE = 2

    ulga.CAT = _node()
    # Number K of concept tokens (ours; the paper varies it, by values unknown to us).
    ulga.CAT.NUM_CONCEPTS = 16
    # Width of a concept token as a share of the channels, in (0, 1] (ours).
    ulga.CAT.CONCEPT_RATIO = 1.0

    ulga.FUSE = _node()
    # How tokens, ACP and CAT are joined: "concat" (one linear over all) or "sum" (gated sum)
    # (ours).
    ulga.FUSE.MODE = "concat"
    # Start the fusion at zero, so that the block starts as the plain one (ours; for pretrained
    # weights).
    ulga.FUSE.ZERO_INIT = False

    # Factors of the focal loss of anchors on objects, one a class in the order of the class names;
    # background keeps 1. [] = 1 for all (ours).
    cfg.MODEL.RETINANET.CLASS_WEIGHTS = []


def _add_vit_keys(cfg: CfgNode) -> None:
    vit = cfg.MODEL.ULGA.VIT = _node()
    # ViT-S, patches of 16 pixels.
    vit.EMBED_DIM = 384
    vit.DEPTH = 12
    vit.NUM_HEADS = 6
    # Hidden width of the MLP over its input width (raise it for the parameter-matched control).
    vit.MLP_RATIO = 4.0
    # Side of an attention window in tokens (ViTDet: 14); 0 = every block attends to the whole map,
    # which below some 640 pixels is also the cheaper, since windows pad the map.
    vit.WINDOW_SIZE = 0
    # With windows: how many blocks attend to the whole map, evenly spread (ViTDet: 4 of 12).
    vit.NUM_GLOBAL = 4
    # Decomposed relative positions in the logits; a block keeps one number for each head and pair
    # of tokens, 400 MB an image at 1024 pixels without windows.
    vit.REL_POS = False
    # Side of the position tables in tokens: INPUT.SQUARE_SIZE / 16. Other maps get them resized.
    vit.GRID_SIZE = 32
    # Stochastic depth, growing linearly from 0 to this over the blocks.
    vit.DROP_PATH_RATE = 0.1


def _add_swin_keys(cfg: CfgNode) -> None:
    swin = cfg.MODEL.ULGA.SWIN = _node()
    # Swin-T; the channels of stage2, which double from stage to stage.
    swin.EMBED_DIM = 96
    # Blocks in stage2..stage5.
    swin.DEPTHS = [2, 2, 6, 2]
    # Attention heads in stage2..stage5.
    swin.NUM_HEADS = [3, 6, 12, 24]
    # Side of an attention window, in tokens.
    swin.WINDOW_SIZE = 7
    # Hidden width of the MLP over its input width (raise it for the parameter-matched control).
    swin.MLP_RATIO = 4.0
    # Stochastic depth, growing linearly from 0 to this over the blocks.
    swin.DROP_PATH_RATE = 0.1


def _add_dat_keys(cfg: CfgNode) -> None:
    dat = cfg.MODEL.ULGA.DAT = _node()
    # DAT++ T; the channels of stage2, which double from stage to stage.
    dat.EMBED_DIM = 64
    # Blocks in stage2..stage5, in turns of neighbourhood and deformable attention; stage5 has only
    # deformable attention.
    dat.DEPTHS = [2, 4, 18, 2]
    # Attention heads in stage2..stage5.
    dat.NUM_HEADS = [2, 4, 8, 16]
    # Groups of heads that sample points of their own, in stage2..stage5.
    dat.NUM_GROUPS = [1, 2, 4, 8]
    # Side of a token's neighbourhood, in tokens, odd.
    dat.WINDOW_SIZE = 7
    # Side of the offset networks' kernels in stage2..stage5, odd and above the stride.
    dat.OFFSET_KERNEL = [9, 7, 5, 3]
    # Tokens from one sampled point to the next in stage2..stage5.
    dat.OFFSET_STRIDE = [8, 4, 2, 1]
    # Where the points start: "zero" = at the reference points (ours), "default" = scattered, as
    # torch's initial weights put them (released).
    dat.OFFSET_INIT = "zero"
    # The reference points: "centred" in the cells of an even grid (ours), or as "released", which
    # released weights need.
    dat.REF_POINTS = "centred"
    # What the offset networks see: the tokens after the interaction, "enhanced", or before it,
    # "plain"; without interactions the two are the same.
    dat.OFFSET_INPUT = "enhanced"
    # Side of stage2's map for which its position tables have an entry a distance: image side / 4,
    # 56 for 224 pixels. The tables of other stages go with it; other maps read between entries.
    dat.GRID_SIZE = 56
    # Hidden width of the MLP over its input width (raise it for the parameter-matched control).
    dat.MLP_RATIO = 4.0
    # Stochastic depth, growing linearly from 0 to this over the blocks.
    dat.DROP_PATH_RATE = 0.1


def _add_dataset_keys(cfg: CfgNode) -> None:
    # The YAML file of a custom dataset (datasets/README.md); its splits are NAME_SPLIT. Its train
    # and val are used where TRAIN and TEST name none of its splits. Stored as an absolute path.
    cfg.DATASETS.CUSTOM = ""
    # NIH Chest X-ray: how many images without a finding each split gets besides those with boxes.
    cfg.DATASETS.NIH_NEGATIVES = 0
    # COD10K: 1 class ("foreground") or its 69 sub-classes.
    cfg.DATASETS.COD10K_CLASSES = 1
    # COD10K: keep the images without anything camouflaged, as negatives.
    cfg.DATASETS.COD10K_NONCAM = False
    # A file of `ulga data split`: NAME_val is its fold FOLD, NAME_train all others.
    cfg.DATASETS.FOLDS_FILE = ""
    cfg.DATASETS.FOLD = 0
    # Resolved from the data when a run is set up and written to config.yaml; no YAML states it.
    cfg.DATASETS.CLASS_NAMES = []
    # The datasets' own category ids, in the order of CLASS_NAMES; resolved with them.
    cfg.DATASETS.CATEGORY_IDS = []


def _add_loader_keys(cfg: CfgNode) -> None:
    # With workers: seconds after which a batch that does not come ends the run. Network storage may
    # be slow; nothing is lost by waiting longer.
    cfg.DATALOADER.TIMEOUT = 600
    # Training images without a box that an epoch draws, as a multiple of the images with boxes in
    # it (with RepeatFactorTrainingSampler, their repeats included); at most all of them, once.
    # None = every one, once.
    cfg.DATALOADER.NEGATIVE_RATIO = None


def _add_input_keys(cfg: CfgNode) -> None:
    # Every batch is padded to this square (pixels, a multiple of 32): the interactions and the
    # attention see the whole map, so a result must not depend on the size of an image's batch
    # mates.
    cfg.INPUT.SQUARE_SIZE = 512
    # Training scales the image's longest side by a random factor from this range of SQUARE_SIZE,
    # then crops what sticks out; testing uses exactly SQUARE_SIZE.
    cfg.INPUT.SCALE_RANGE = [0.8, 1.25]
    # Which stored values become black and white: "full" = the range that the file declares,
    # "window" = INTENSITY_RANGE as stored values (DICOM: after the modality LUT, Hounsfield units
    # for instance), "percentile" = INTENSITY_RANGE as percentiles of each image. "auto" = a
    # training chooses one of them from its images (docs/data_report.md) and writes it, with its
    # numbers, into config.yaml and checkpoints; inference uses these.
    cfg.INPUT.INTENSITY = "auto"
    # [low, high] of "window" and "percentile"; [] with the other two.
    cfg.INPUT.INTENSITY_RANGE = []
    # Which frame of a DICOM file or page of a TIFF that has several is read in training and
    # evaluation, from 0; None refuses such files. Files of one frame take no notice of it, and
    # `ulga predict` takes every frame.
    cfg.INPUT.FRAME = None
    tile = cfg.INPUT.TILE = _node()
    # Side of the tiles that large images are cut into, in training and inference, in pixels of the
    # original image; 0 = whole images. A tile's longest side is resized to SQUARE_SIZE.
    tile.SIDE = 0
    # Share of SIDE that neighboring tiles have in common, at least.
    tile.OVERLAP = 0.2
    # Inference: beside the tiles, show the whole image, too, for objects larger than a tile.
    tile.WHOLE_IMAGE = False
    # Training: a box is a target where at least this share of its area is visible; else what is
    # visible of it is ignored, neither target nor background.
    tile.MIN_VISIBLE = 0.5
    # Training: number of tiles without a target that an epoch draws, as a share of those with one.
    # All tiles with a target are in every epoch.
    tile.EMPTY_SHARE = 0.5


def _add_solver_keys(cfg: CfgNode) -> None:
    # Length of the training in epochs; 0 takes SOLVER.MAX_ITER as given.
    cfg.SOLVER.NUM_EPOCHS = 0
    # With NUM_EPOCHS: where the step schedule drops the rate (SOLVER.STEPS, as shares of the run).
    cfg.SOLVER.STEP_FRACTIONS = [22 / 30, 27 / 30]
    # Micro-batches whose gradients are added up before one optimizer step.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Evaluate and share a running mean of the weights (torch's AveragedModel): off by default.
    cfg.SOLVER.EMA = _node()
    cfg.SOLVER.EMA.ENABLED = False
    # Each step moves the mean by 1 - DECAY of the way to the weights.
    cfg.SOLVER.EMA.DECAY = 0.999
    # How many of the latest checkpoints stay on disk.
    cfg.SOLVER.CHECKPOINT_KEEP = 2


def _add_test_keys(cfg: CfgNode) -> None:
    # With TEST.EVAL_PERIOD: the figure whose best evaluation leaves model_best.pth, on the first
    # set of DATASETS.TEST. Chosen on a set, the best is too good to be reported on that set.
    cfg.TEST.BEST_METRIC = "bbox/AP"
    # What finds a lesion in the FROC figures: "iou" = IoU 0.5, "centre" = a detection's centre in
    # the lesion's box.
    cfg.TEST.FROC_HIT = "iou"
    nms = cfg.TEST.NMS = _node()
    # RetinaNet: "hard" drops a box that overlaps a better one by more than NMS_THRESH_TEST.
    # Soft-NMS lowers its score instead: "linear" by the factor 1 - IoU above NMS_THRESH_TEST,
    # "gaussian" by the factor exp(-IoU^2 / SIGMA).
    nms.METHOD = "hard"
    nms.SIGMA = 0.5
    # RetinaNet: boxes of different classes suppress each other, too.
    nms.CLASS_AGNOSTIC = False
    # Lowest score of each class, in the order of the class names, beside SCORE_THRESH_TEST; [] =
    # none.
    cfg.TEST.CLASS_SCORE_THRESH = []
    # Stop after so many evaluations in a row without a new best; 0 = never.
    cfg.TEST.PATIENCE = 0


def set_defaults(cfg: CfgNode) -> None:
    """Give detectron2's own keys the defaults that our trainer works with, in place."""
    # CUDA where there is one, else the CPU; a config may say "auto" for the same. "mps" is taken
    # only when asked for.
    cfg.MODEL.DEVICE = default_device()
    # bf16 autocast: True, False, or None = on where the device computes in bf16.
    cfg.SOLVER.AMP.ENABLED = None
    # Iterations between checkpoints; 0 = once an epoch.
    cfg.SOLVER.CHECKPOINT_PERIOD = 0
    # Sampling and augmentation are functions of (SEED, position), so a seed is always set.
    cfg.SEED = 0
    # Healthy images are part of the data.
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    # Grouping by aspect ratio would make an image's batch depend on loader history.
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False


def default_device() -> str:
    """Return "cuda" where this machine has a GPU that torch can use, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
