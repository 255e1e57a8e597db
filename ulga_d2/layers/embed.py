"""From pixels to tokens, and to fewer tokens (of Swin, arXiv:2103.14030, where not said else)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .init import init_weights
from .linear import Linear


class PatchEmbed(nn.Module):
    """Turn each patch of pixels into a token.

    Images whose sides are no multiple of the patch are padded with zeros at the right and bottom.

    Args:
        dim: channels C of a token.
        patch_size: side P of a patch in pixels.
        in_channels: channels of the image.
        has_norm: normalise the tokens (Swin does, ViT does not).

    Shape:
        input (B, in_channels, H, W), output (B, ceil(H / P), ceil(W / P), C).
    """

    def __init__(self, dim: int, *, patch_size: int, in_channels: int, has_norm: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim) if has_norm else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """Return the tokens of an image."""
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % self.patch_size, 0, -height % self.patch_size))
        # Tokens side by side in memory: the residual stream of all blocks keeps this order.
        x = self.proj(image).permute(0, 2, 3, 1).contiguous()
        return self.norm(x)  # (B, H / P, W / P, C)


class PatchMerging(nn.Module):
    """Join each 2x2 square of tokens into one of twice the channels.

    A map of odd sides is padded with zeros at the right and bottom.

    Args:
        dim: channels C of the incoming tokens.

    Shape:
        input (B, H, W, C), output (B, ceil(H / 2), ceil(W / 2), 2C).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return the merged tokens."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        # Down the columns of a square first, then across: the order of Swin's released weights.
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))  # (B, H / 2, W / 2, 2C)


class ConvStem(nn.Module):
    """Turn pixels into tokens of stride 4 by two 3x3 convolutions, each normalised.

    Source: DAT++, arXiv:2309.01430.

    Args:
        dim: channels C of a token, even.
        in_channels: channels of the image.

    Shape:
        input (B, in_channels, H, W), output (B, ceil(H / 4), ceil(W / 4), C); any H, W >= 1.
    """

    def __init__(self, dim: int, *, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, dim // 2, kernel_size=3, stride=2, padding=1)
        self.norm1 = nn.LayerNorm(dim // 2)
        self.conv2 = nn.Conv2d(dim // 2, dim, kernel_size=3, stride=2, padding=1)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """Return the tokens of an image."""
        x = F.gelu(self.norm1(self.conv1(image).permute(0, 2, 3, 1)))  # (B, H / 2, W / 2, C / 2)
        return self.norm2(self.conv2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class ConvDownsample(nn.Module):
    """Halve the map and double the channels by a 3x3 convolution, normalised.

    Source: DAT++, arXiv:2309.01430.

    Args:
        dim: channels C of the incoming tokens.

    Shape:
        input (B, H, W, C), output (B, ceil(H / 2), ceil(W / 2), 2C).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, 2 * dim, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fewer tokens."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class PositionEmbed(nn.Module):
    """Add a learned table to the tokens, so that equal patches at two places differ.

    Source: ViT, arXiv:2010.11929.

    Args:
        dim: channels C of the tokens.
        grid_size: side S of the table in tokens; a map of another size gets it resized bicubically.

    Shape:
        input and output (B, H, W, C); any H, W >= 1.
    """

    def __init__(self, dim: int, *, grid_size: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, grid_size, grid_size, dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens with their places."""
        table = self.pos_embed
        if x.shape[1:3] != table.shape[1:3]:
            table = table.permute(0, 3, 1, 2)
            table = F.interpolate(table, x.shape[1:3], mode="bicubic", align_corners=False)
            table = table.permute(0, 2, 3, 1)  # (1, H, W, C)
        return x + table
