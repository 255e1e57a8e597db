"""Conceptual attention transformation (CAT), after the idea of arXiv:2412.18778."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers.init import init_weights
from ..layers.linear import Linear

# Factor of likeness. With normal likenesses of unit variance, a concept picks exp(-2 ** 2), 2 %, of
# the tokens; a factor of 1 leaves 37 %, an average of much of the map.
SHARPNESS = 2.0


class Concepts(NamedTuple):
    """What CAT found on a map of N tokens.

    Attributes:
        forward_map: (B, K, N), how much each token gave to a concept; sums to 1 over tokens.
        tokens: (B, K, d), the concept tokens.
        backward_map: (B, N, K), how much each concept gives to a token; sums to 1 over concepts.
        values: (B, K, d), what the concepts give; `backward_map @ values` is the aligned map.
    """

    forward_map: Tensor
    tokens: Tensor
    backward_map: Tensor
    values: Tensor


class ConceptualAttentionTransformation(nn.Module):
    """Let K concepts pick tokens of the map, then give each token its mixture of concepts.

        S = 2 zc W_A                                                    likeness, N x K
        A = softmax over tokens of S                                    forward flow, K x N
        T = LN((A zc) W_V + b_V) + E                                    concept tokens, K x d
        M = softmax over concepts of S + (zc W_q + b_q)(T W_k + b_k)^T / sqrt(d)   backward, N x K
        G = M (T W_v + b_v)                                             aligned map, N x d

    with zc = z minus its mean over the map; without that, all concepts would share the mean and
    come out almost equal. The factor 2 lets a concept pick a few percent of the tokens, so that
    something small is not lost in an average. The way back starts at the concepts that a token is
    like (S), not at the same even mixture for all, and learns to ask others for what they hold.

    Computed in a cheaper order that gives the same numbers: pooled first and projected after, and
    both terms of M's logits as one product of tokens with K folded keys. Nothing of size N x d is
    ever made.

    Source: arXiv:2412.18778 for the idea (concept tokens, "backward flow" by attention maps, a new
    projection). Written from the paper's abstract and published summaries, without access to its
    full text; the authors' module may differ in detail, and corrections are welcome. Ours:
    everything else, after the tokenizer and projector of Visual Transformers (arXiv:2006.03677).

    Args:
        dim: channels C of the tokens.
        num_concepts: concept tokens K.
        concept_ratio: width d of a concept token over C.

    Shape:
        input (B, H, W, C); see `Concepts` for the output; any H, W >= 1.
    """

    def __init__(self, dim: int, *, num_concepts: int, concept_ratio: float) -> None:
        super().__init__()
        self.concept_dim = width = max(1, round(dim * concept_ratio))
        self.concept_query = nn.Parameter(torch.empty(num_concepts, dim))
        self.pool_proj = Linear(dim, width)
        self.norm = nn.LayerNorm(width)
        self.concept_embed = nn.Parameter(torch.empty(num_concepts, width))
        self.query = Linear(dim, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.concept_embed, std=0.02)
        with torch.no_grad():
            self.concept_query.copy_(_spread_directions(num_concepts, dim))

    def forward(self, z: Tensor) -> Concepts:
        """Return the concepts of a map and how its tokens are made of them."""
        z = z.flatten(1, 2)  # (B, N, C)
        mean = z.mean(dim=1, keepdim=True).transpose(1, 2)  # (B, C, 1)
        likes = SHARPNESS * self.concept_query  # (K, C)
        forward_map = _softmax(z @ likes.t(), dim=1).transpose(1, 2)  # (B, K, N)
        tokens = self.norm(self.pool_proj(forward_map @ z - mean.transpose(1, 2)))
        tokens = tokens + self.concept_embed  # (B, K, d)
        keys = self.key(tokens) * self.concept_dim**-0.5  # (B, K, d)
        folded = keys @ self.query.weight + likes  # (B, K, C)
        offset = keys @ self.query.bias[:, None] - folded @ mean  # (B, K, 1)
        logits = z @ folded.transpose(1, 2) + offset.transpose(1, 2)  # (B, N, K)
        return Concepts(forward_map, tokens, _softmax(logits, dim=-1), self.value(tokens))


def _spread_directions(count: int, dim: int) -> Tensor:
    """Return random rows of length 1, (count, dim), that point to no common side.

    Short rows would pool the whole map alike. Rows with a common part would pool alike on an image
    whose tokens vary along few directions.
    """
    rows = torch.randn(count, dim)
    if count > 1:
        rows = rows - rows.mean(dim=0)
    return nn.functional.normalize(rows, dim=-1)


def _softmax(logits: Tensor, dim: int) -> Tensor:
    """Softmax in float32 at least, whatever the logits' type, returned in theirs."""
    at_least = torch.promote_types(logits.dtype, torch.float32)
    return logits.softmax(dim=dim, dtype=at_least).to(logits.dtype)
