"""Effective receptive fields of networks whose fields are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ulga_d2.analysis.receptive_field import radii_of, receptive_fields


class Convolutions(nn.Module):
    """3 x 3 convolutions without activation, as a backbone of one level."""

    def __init__(self, count: int, stride: int = 1) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 3, 3, padding=1, stride=stride if n == 0 else 1)
                  for n in range(count)]  # fmt: skip
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"p3": self.layers(image)}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_field_of_convolutions_is_a_square_in_the_middle_and_nothing_around(count):
    torch.manual_seed(0)
    (field,) = receptive_fields(Convolutions(count), torch.randn(2, 3, 21, 21), ["p3"])
    seen = np.zeros((21, 21), bool)
    seen[10 - count : 11 + count, 10 - count : 11 + count] = True
    assert ((field.density > 0) == seen).all()
    assert field.density.sum() == pytest.approx(1)


def test_the_density_of_one_convolution_is_the_size_of_its_signed_weights():
    torch.manual_seed(0)
    network = Convolutions(1)
    (field,) = receptive_fields(network, torch.randn(1, 3, 9, 9), ["p3"])
    signs = torch.randint(2, (3,), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    kernel = torch.einsum("o,oihw->ihw", signs, network.layers[0].weight.detach())
    wanted = kernel.abs().sum(dim=0).double()
    assert np.allclose(field.density[3:6, 3:6], wanted / wanted.sum(), atol=1e-6)


def test_an_even_number_of_cells_is_seen_from_the_middle_of_the_image():
    network = Convolutions(1, stride=2)
    nn.init.ones_(network.layers[0].weight)
    (field,) = receptive_fields(network, torch.randn(1, 3, 16, 16), ["p3"])
    rows, columns = np.nonzero(field.density)
    # Cells 3 and 4 of 8, of stride 2 and kernel 3: pixels 5 to 9.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 9, 5, 9)


def test_circles_of_a_gaussian_hold_what_its_law_says():
    place = np.arange(201) - 100
    density = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 12.0**2))
    radii = radii_of(density / density.sum())
    assert radii == {share: pytest.approx(12 * np.sqrt(-2 * np.log(1 - share)), abs=0.5)
                     for share in (0.5, 0.9)}  # fmt: skip


def test_measuring_leaves_no_gradient_in_the_network():
    network = Convolutions(1)
    receptive_fields(network, torch.randn(1, 3, 8, 8), ["p3"])
    assert all(weight.grad is None for weight in network.parameters())
