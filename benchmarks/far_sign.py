"""Can CAT carry a sign across a map? `python -m benchmarks.far_sign`.

A toy without images: random tokens that vary smoothly over the map, one of them marked, and six
others far from it that all point one way or the other. Which way is to be read at the marked token,
after one interaction and a linear layer. Whatever does not carry far stays at 50 %. Shown for
several sharpnesses of the concepts, with and without likeness in the way back
(ulga_d2/interaction/cat.py).
"""

from __future__ import annotations

import argparse
import itertools
from unittest import mock

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F

from ulga_d2.interaction import cat as cat_module
from ulga_d2.interaction.cat import Concepts, ConceptualAttentionTransformation
from ulga_d2.interaction.enhanced import EnhancedInteraction

SHARPNESSES = (0.5, 1.0, 2.0, 4.0)
SIDE, DIM, SIGN_TOKENS, BATCH = 32, 32, 6, 8


class LikenessOneWay(ConceptualAttentionTransformation):
    """CAT whose way back asks concepts for what they hold, and starts at an even mixture of all."""

    def forward(self, z: Tensor) -> Concepts:
        """Return the concepts of a map and how its tokens are made of them."""
        concepts = super().forward(z)
        tokens = z.flatten(1, 2)
        asked = self.query(tokens - tokens.mean(dim=1, keepdim=True))  # (B, N, d)
        logits = asked @ self.key(concepts.tokens).transpose(1, 2) * self.concept_dim**-0.5
        return concepts._replace(backward_map=logits.softmax(dim=-1))


WAYS_BACK = {"with": ConceptualAttentionTransformation, "without": LikenessOneWay}


class Reader(nn.Module):
    """An embedding and a norm as in a block, one interaction, and a linear over its tokens."""

    def __init__(self, make_cat: type[ConceptualAttentionTransformation]) -> None:
        super().__init__()
        cat = make_cat(DIM, num_concepts=16, concept_ratio=1.0)
        self.embed = nn.Sequential(nn.Linear(DIM, DIM), nn.LayerNorm(DIM))
        self.interaction = EnhancedInteraction(DIM, acp=None, cat=cat, zero_init=False)
        self.head = nn.Linear(DIM, 1)

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Return the logits (B,) of the marked tokens at `places` of maps (B, N, C)."""
        maps = self.embed(tokens).view(-1, SIDE, SIDE, DIM)
        seen = self.interaction(maps).flatten(1, 2)
        return self.head(seen[torch.arange(len(tokens)), places]).squeeze(1)


def draw(mark: Tensor, sign: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw maps (B, N, C), the places of their marks and the ways of their signs, 0 or 1."""
    coarse = torch.randn(BATCH, DIM, 4, 4)
    smooth = F.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    tokens = smooth.flatten(2).transpose(1, 2) + 0.3 * torch.randn(BATCH, SIDE * SIDE, DIM)
    half = SIDE * SIDE // 2
    places = torch.randint(0, half, (BATCH,))
    starts = torch.randint(half, 2 * half - SIGN_TOKENS, (BATCH,))
    ways = torch.randint(0, 2, (BATCH,)).float()
    for index, (place, start) in enumerate(zip(places.tolist(), starts.tolist(), strict=True)):
        tokens[index, place] += mark
        tokens[index, start : start + SIGN_TOKENS] += sign * (2 * ways[index] - 1)
    return tokens, places, ways


def accuracies(sharpness: float, way_back: str, seed: int, steps: int) -> list[float]:
    """Train one reader; return its accuracy in percent in each quarter of the steps."""
    torch.manual_seed(seed)
    mark, sign = F.normalize(torch.randn(2, DIM), dim=-1) * DIM**0.5
    with mock.patch.object(cat_module, "SHARPNESS", sharpness):
        reader, right = Reader(WAYS_BACK[way_back]), []
        optimizer = torch.optim.AdamW(reader.parameters(), 1e-3)
        for _ in range(steps):
            tokens, places, ways = draw(mark, sign)
            logits = reader(tokens, places)
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(logits, ways).backward()
            optimizer.step()
            right.append(((logits > 0) == (ways > 0.5)).float().mean().item())
    return [100 * float(quarter.mean()) for quarter in torch.tensor(right).chunk(4)]


def main() -> None:
    """Print one row a sharpness, way back and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=800, help="of eight maps each (default 800)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    args = parser.parse_args()
    rows = []
    for setting in itertools.product(SHARPNESSES, WAYS_BACK, range(args.seeds)):
        rows.append([*setting, *accuracies(*setting, args.steps)])
        print(*setting, "done", flush=True)
    headers = ["sharpness", "likeness back", "seed", *(f"quarter {n}, %" for n in (1, 2, 3, 4))]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=("g", "g", "g", *(4 * (".0f",)))))


if __name__ == "__main__":
    main()
