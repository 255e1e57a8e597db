"""Enhanced interaction: ACP, then CAT, fused with the tokens before attention sees them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.init import init_weights
from ..layers.linear import Linear, linear
from .cat import Concepts


class _TwoParts(nn.Module):
    """ACP and CAT in their order, each of them optional."""

    def __init__(self, *, acp: nn.Module | None, cat: nn.Module | None) -> None:
        super().__init__()
        self.acp = acp
        self.cat = cat

    def parts(self, x: Tensor) -> tuple[Tensor, Concepts | None]:
        """Return ACP's map and CAT's concepts, for `forward` and for figures of what they see."""
        z = x if self.acp is None else self.acp(x)
        return z, None if self.cat is None else self.cat(z)


class EnhancedInteraction(_TwoParts):
    """Give each token what ACP saw around it and what CAT says it is made of.

        z = acp(x)          or x without ACP
        g = cat(z)          absent without CAT
        u = x + [x; z; g] W + b
        y = u |x| / |u|     token by token

    Interaction turns a token and keeps its length. Without that, lengths grew 9- to 23-fold in
    training, attention's logits with their square, and the last stage looked at single tokens.

    The parts that are there are joined by one linear that is never given a concatenation: each
    part meets its own columns of W, and g's columns meet the K concept values before these are
    spread over the map. A part left out is simply absent.

    Source: the order and the "new projection" are arXiv:2412.18778's, as its abstract and published
    summaries describe them; the residual form and the kept length are ours.

    Args:
        dim: channels C of the tokens.
        acp: (B, H, W, C) to the same, or None.
        cat: (B, H, W, C) to `Concepts`, or None. With neither, x is fused with itself: the control
            that has the fusion's parameters and nothing to fuse.
        zero_init: start with W = 0 and b = 0, so that y = x.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(
        self, dim: int, *, acp: nn.Module | None, cat: nn.Module | None, zero_init: bool
    ) -> None:
        super().__init__(acp=acp, cat=cat)
        self.has_map = acp is not None or cat is None  # a second map beside x: z, or x itself
        widths = [dim, dim if self.has_map else 0, cat.concept_dim if cat is not None else 0]
        self.widths = widths
        self.fuse = Linear(sum(widths), dim)
        self.fuse.apply(init_weights)
        if zero_init:
            nn.init.zeros_(self.fuse.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens after interaction."""
        z, concepts = self.parts(x)
        to_x, to_z, to_g = self.fuse.weight.split(self.widths, dim=1)
        # Each product is added as it is made: no sum passes over the map by itself.
        update = linear(x, to_x, self.fuse.bias).flatten(0, 2)  # (B * N, C)
        if self.has_map:
            update = torch.addmm(update, z.flatten(0, 2), to_z.t())
        if concepts is not None:
            values = linear(concepts.values, to_g)  # (B, K, C)
            update = update.view(x.shape[0], -1, x.shape[-1])  # (B, N, C)
            update = torch.baddbmm(update, concepts.backward_map, values)
        return _with_length_of(x, x + update.view_as(x))


class GatedInteraction(_TwoParts):
    """The same parts, joined by a gated sum instead of a linear.

        u = x + a * (z - x) + b * g
        y = u |x| / |u|     token by token

    Cheaper than the linear and without its C x C weights; needs concepts as wide as the tokens.

    Args:
        dim: channels C of the tokens.
        acp: (B, H, W, C) to the same, or None.
        cat: (B, H, W, C) to `Concepts` with d = C, or None.
        zero_init: start with a = b = 0, so that y = x; else with 1/2 (ours).

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(
        self, dim: int, *, acp: nn.Module | None, cat: nn.Module | None, zero_init: bool
    ) -> None:
        super().__init__(acp=acp, cat=cat)
        start = torch.full((dim,), 0.0 if zero_init else 0.5)
        self.acp_gate = nn.Parameter(start.clone()) if acp is not None else None
        self.cat_gate = nn.Parameter(start.clone()) if cat is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens after interaction."""
        z, concepts = self.parts(x)
        y = x if self.acp_gate is None else x + self.acp_gate * (z - x)
        if concepts is not None:
            g = concepts.backward_map @ (concepts.values * self.cat_gate)
            y = y + g.view_as(x)
        return _with_length_of(x, y)


def _with_length_of(x: Tensor, y: Tensor) -> Tensor:
    """Scale each token of y (B, H, W, C) to the length of x's; y = x comes back bit for bit."""
    length = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    return y * (torch.linalg.vector_norm(x, dim=-1, keepdim=True) / length.clamp_min(1e-6))


class DepthwiseInteraction(nn.Module):
    """The control of plain local convolution: x + W DW(x) + b; no pooling, no concepts.

    What this gains over the baseline, a 3x3 convolution before attention explains.

    Args:
        dim: channels C of the tokens.
        zero_init: start with W = 0, so that the output is x.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(self, dim: int, *, zero_init: bool) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.pointwise = Linear(dim, dim)
        self.pointwise.apply(init_weights)
        if zero_init:
            nn.init.zeros_(self.pointwise.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens with their 3x3 neighbourhood mixed in."""
        local = self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, H, W, C)
        return x + self.pointwise(local)
