"""Concept tokens at initialisation: they must differ, on real images and in a real backbone."""

from __future__ import annotations

import gzip
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import torch
from conftest import CONFIGS
from torch import Tensor
from torch.nn import functional as F

from ulga_d2 import get_cfg
from ulga_d2.analysis.similarity import rank_share
from ulga_d2.backbone.swin import SwinTransformer
from ulga_d2.config import merge_config
from ulga_d2.interaction.cat import Concepts, ConceptualAttentionTransformation

SAMPLES = Path(matplotlib.get_data_path()) / "sample_data"
STAGES = 4


def photograph() -> np.ndarray:
    """Return the portrait that matplotlib ships: (H, W, 3), 0 to 255."""
    return cv2.imread(str(SAMPLES / "grace_hopper.jpg"))[:, :, ::-1].astype(np.float32)


def brain_slice() -> np.ndarray:
    """Return the magnetic resonance slice of a head that matplotlib ships: (256, 256, 3)."""
    raw = np.frombuffer(gzip.decompress((SAMPLES / "s1045.ima.gz").read_bytes()), np.uint16)
    return np.repeat(raw.reshape(256, 256, 1) * np.float32(255 / raw.max()), 3, axis=2)


def network_input(pixels: np.ndarray, size: int = 256) -> Tensor:
    pixels = cv2.resize(np.ascontiguousarray(pixels), (size, size), interpolation=cv2.INTER_AREA)
    return (torch.from_numpy(pixels).permute(2, 0, 1)[None] - 115.0) / 58.0


def mean_cosine(tokens: Tensor) -> float:
    """Return the mean cosine between each two of (K, d) tokens."""
    unit = F.normalize(tokens, dim=-1)
    return (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)].mean().item()


def uncentred_tokens(cat: ConceptualAttentionTransformation, z: Tensor, found: Concepts) -> Tensor:
    """Return the tokens that pooling without centring would give: the trap."""
    pooled = found.forward_map[0] @ z[0].flatten(0, 1)
    return cat.norm(cat.pool_proj(pooled)) + cat.concept_embed


def blocks(names: list[str], image: Tensor, seed: int) -> list[tuple[float, float, float]]:
    """Return what the concepts of each block of a nano Swin are like.

    The mean cosine between concept tokens, the same without centring, and the rank of the maps.
    """
    torch.manual_seed(seed)
    cfg = get_cfg()
    merge_config(cfg, str(CONFIGS / "brain_tumor_swin_ulga_nano.yaml"), [])
    cfg.MODEL.ULGA.INTERACTIONS = names
    model = SwinTransformer(cfg).eval()
    found = []

    def measure(module: ConceptualAttentionTransformation, inputs: tuple, out: Concepts) -> None:
        ours = mean_cosine(out.tokens[0])
        uncentred = mean_cosine(uncentred_tokens(module, inputs[0], out))
        found.append((ours, uncentred, rank_share(out.backward_map[0].T)))

    for module in model.modules():
        if isinstance(module, ConceptualAttentionTransformation):
            module.register_forward_hook(measure)
    with torch.no_grad():
        model(image)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pixels", [photograph, brain_slice])
@pytest.mark.parametrize("names", [["cat"], ["acp", "cat"]], ids=["cat", "ulga"])
def test_concepts_do_not_collapse_at_initialisation_on_a_real_image(names, pixels, seed):
    found = blocks(names, network_input(pixels()), seed)
    assert len(found) == 2 * STAGES
    ours, uncentred, ranks = (np.array(column) for column in zip(*found, strict=True))
    assert ours.max() < 0.2
    assert ours.mean() + 0.1 < uncentred.mean()  # what centring is for
    assert ranks.min() > 0.4  # 1/16 if all concepts had one map


def test_the_rows_that_pool_are_of_length_1_and_share_no_direction():
    cat = ConceptualAttentionTransformation(32, num_concepts=16, concept_ratio=1.0)
    assert torch.allclose(cat.concept_query.norm(dim=1), torch.ones(16))
    assert cat.concept_query.mean(0).norm() < 0.05
    single = ConceptualAttentionTransformation(32, num_concepts=1, concept_ratio=1.0)
    assert single.concept_query.norm().item() == pytest.approx(1.0)
