"""ACP and CAT as docs/method.md writes them, line by line: the oracles of the cheap forms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ulga_d2 import get_cfg
from ulga_d2.interaction.acp import AggressiveConvPooling
from ulga_d2.interaction.build import build_interaction_layer
from ulga_d2.interaction.cat import ConceptualAttentionTransformation


def config(*opts: object):
    """Return our default config with keys below MODEL.ULGA changed: config("FUSE.MODE", "sum")."""
    cfg = get_cfg()
    cfg.merge_from_list([f"MODEL.ULGA.{o}" if i % 2 == 0 else o for i, o in enumerate(opts)])
    return cfg


def build(names: list[str], dim: int, *opts: object) -> nn.Module:
    torch.manual_seed(0)
    return build_interaction_layer(config("INTERACTIONS", names, *opts))(dim, "stage3")


def randomised(module: nn.Module) -> nn.Module:
    """Give every parameter a random value in float64, so that no term of a formula is idle."""
    generator = torch.Generator().manual_seed(1)
    module.double()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.double) * 0.3
    return module


def plain_acp(acp: AggressiveConvPooling, x: Tensor) -> Tensor:
    y, total = x.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)
    for conv, norm, gate in zip(acp.convs, acp.norms, acp.gates, strict=True):
        local = F.conv2d(y, conv.weight, conv.bias, padding=conv.padding, groups=y.shape[1])
        mean = local.mean(1, keepdim=True)
        variance = local.var(1, keepdim=True, unbiased=False)
        local = (local - mean) / torch.sqrt(variance + norm.eps)
        local = local * norm.weight[:, None, None] + norm.bias[:, None, None]
        y = F.max_pool2d(y + F.gelu(local), 3, stride=acp.pool_stride, padding=1)
        up = F.interpolate(y, size=x.shape[1:3], mode="bilinear", align_corners=False)
        total = total + gate[:, None, None] * up
    return total.permute(0, 2, 3, 1)


def plain_cat(cat: ConceptualAttentionTransformation, z: Tensor) -> tuple[Tensor, ...]:
    """Return A (K x N), T (K x d), M (N x K) and G (N x d) of one map, projected before pooling."""
    z = z.flatten(0, 1)
    zc = z - z.mean(0)
    likeness = 2 * zc @ cat.concept_query.T
    a = likeness.softmax(0).T
    pooled = a @ (zc @ cat.pool_proj.weight.T) + cat.pool_proj.bias
    t = F.layer_norm(pooled, (cat.concept_dim,), cat.norm.weight, cat.norm.bias)
    t = t + cat.concept_embed
    q = zc @ cat.query.weight.T + cat.query.bias
    k = t @ cat.key.weight.T + cat.key.bias
    m = (likeness + q @ k.T / cat.concept_dim**0.5).softmax(1)
    return a, t, m, m @ (t @ cat.value.weight.T + cat.value.bias)


def with_length_of(x: Tensor, y: Tensor) -> Tensor:
    return y * (x.square().sum(-1, keepdim=True) / y.square().sum(-1, keepdim=True)).sqrt()
