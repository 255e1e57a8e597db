"""Every config key this project adds to detectron2's, and the safe way to merge files."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_TYPE_MISMATCH = re.compile(
    r"Type mismatch \(<class '(\w+)'> vs\. <class '(\w+)'>\) "
    r"with values \((.*) vs\. (.*)\) for config key: (\S+)"
)


def add_keys(cfg: CfgNode) -> None:
    """Add this project's keys to a detectron2 config, in place; a second call changes nothing."""
    if "ULGA" in cfg.MODEL:
        return
    _add_model_keys(cfg)
    _add_vit_keys(cfg)
    _add_swin_keys(cfg)
    _add_input_keys(cfg)
    _add_solver_keys(cfg)


def _node() -> CfgNode:
    from detectron2.config import CfgNode

    return CfgNode()


def _add_model_keys(cfg: CfgNode) -> None:
    ulga = cfg.MODEL.ULGA = _node()
    # What lets tokens interact before self-attention: [] (the plain backbone), [acp], [cat],
    # [acp, cat] (the full model), or one of the two controls, [depthwise] and [fuse].
    ulga.INTERACTIONS = []
    # The stages whose blocks get the interaction.
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
    # Number K of concept tokens (the paper varies it and gives no value; ours).
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
    # Decomposed relative positions in the logits.
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


def _add_input_keys(cfg: CfgNode) -> None:
    # Every batch is padded to this square (pixels, a multiple of 32): the interactions and the
    # attention see the whole map, so a result must not depend on the size of an image's batch
    # mates.
    cfg.INPUT.SQUARE_SIZE = 512
    # Training scales the image's longest side by a random factor from this range of SQUARE_SIZE,
    # then crops what sticks out; testing uses exactly SQUARE_SIZE.
    cfg.INPUT.SCALE_RANGE = [0.8, 1.25]


def _add_solver_keys(cfg: CfgNode) -> None:
    # Length of the training in epochs; 0 takes SOLVER.MAX_ITER as given.
    cfg.SOLVER.NUM_EPOCHS = 0
    # With NUM_EPOCHS: where the step schedule drops the rate (SOLVER.STEPS, as shares of the run).
    cfg.SOLVER.STEP_FRACTIONS = [22 / 30, 27 / 30]
    # Micro-batches whose gradients are added up before one optimizer step.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # How many of the latest checkpoints stay on disk.
    cfg.SOLVER.CHECKPOINT_KEEP = 2
    # Resolved from the data when a run is set up and written to config.yaml; no YAML states it.
    cfg.DATASETS.CLASS_NAMES = []


def set_defaults(cfg: CfgNode) -> None:
    """Give detectron2's own keys the defaults that our trainer works with, in place."""
    # "auto" takes CUDA where there is one, else the CPU; "mps" is taken only when asked for.
    cfg.MODEL.DEVICE = "auto"
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


def merge_config(cfg: CfgNode, config_file: str, opts: list[str]) -> None:
    """Merge a YAML file (with its `_BASE_` files) and "KEY VALUE" pairs into `cfg`, in place.

    Files are read by the safe YAML loader only: a tag that would build a Python object is refused.
    A `configs/NAME.yaml` that is not there is looked for among the package's own.

    Raises:
        UserError: a missing file, bad YAML, an unknown key (with the nearest valid one), or a value
            of another type than the default's.
    """
    _merge_file(cfg, config_file)
    if len(opts) % 2:
        raise UserError(
            f"config options come in pairs of KEY VALUE, but {len(opts)} words were given: "
            f"{' '.join(opts)}"
        )
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        with _readable(cfg, f"option {key} {value}"):
            cfg.merge_from_list([key, value])


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    from detectron2.utils.file_io import PathManager

    if not PathManager.isfile(config_file):
        own = Path(__file__).parent / "configs" / config_file.removeprefix("configs/")
        if not own.is_file():
            raise UserError(f"config file {config_file} does not exist; {_near_files(config_file)}")
        config_file = str(own)
    with _readable(cfg, config_file):
        cfg.merge_from_file(config_file, allow_unsafe=False)


def _near_files(config_file: str) -> str:
    folder = os.path.dirname(config_file) or "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    names = [name for name in names if name.endswith(".yaml")]
    near = difflib.get_close_matches(os.path.basename(config_file), names, n=1)
    return f"did you mean {os.path.join(folder, near[0])}?" if near else "see configs/ for ours."


@contextlib.contextmanager
def _readable(cfg: CfgNode, place: str) -> Iterator[None]:
    """Turn what yacs and PyYAML raise into one `UserError` that names the place and the cure."""
    import yaml

    try:
        yield
    except yaml.constructor.ConstructorError as error:
        raise UserError(
            f"{place}: {error.problem} ({str(error.problem_mark).strip()}). Configs are plain data "
            "and never run code: write the value itself, without a tag."
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{place}: not valid YAML: {error}") from None
    except (AttributeError, TypeError):
        raise UserError(f"{place}: not a config; it must hold nested `KEY: value` lines") from None
    except (KeyError, ValueError, AssertionError, OSError) as error:
        # str() of a KeyError would put its message in quotes.
        message = error.args[0] if isinstance(error, KeyError) else str(error)
        unknown = re.search(r"Non-existent(?: config)? key: (\S+)", message)
        if unknown:
            message = _unknown_key_message(cfg, unknown.group(1))
        wrong_type = _TYPE_MISMATCH.search(message)
        if wrong_type:
            message = "{4} takes a {0}, like {2}; {3} is a {1}".format(*wrong_type.groups())
        raise UserError(f"{place}: {message}") from None


def _unknown_key_message(cfg: CfgNode, key: str) -> str:
    # The full path first, then the last word alone: SOLVER.EPOCHS is nearer to SOLVER.NUM_EPOCHS
    # than its letters say.
    keys = list(leaf_keys(cfg))
    near = difflib.get_close_matches(key, keys, n=3, cutoff=0.6)
    if not near:
        last = key.rsplit(".", 1)[-1]
        near = [k for k in keys if last in k.rsplit(".", 1)[-1]][:3]
    cure = f"did you mean {' or '.join(near)}?" if near else "see ulga_d2/config.py for our keys."
    return f"unknown config key {key}; {cure}"


def leaf_keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    """Yield the full dotted name of every key of `cfg`."""
    for name, value in cfg.items():
        if hasattr(value, "items"):
            yield from leaf_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def value_of(cfg: CfgNode, key: str) -> Any:
    """Return the value of a dotted key, or an empty dict where there is none."""
    value: Any = cfg
    for name in key.split("."):
        value = value.get(name, {})
    return value
