"""Deformable attention: the published formulas one by one, and what is ours on top of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ulga_d2.layers import deformable_attention
from ulga_d2.layers.deformable_attention import DeformableAttention, sample

# (H, W), kernel, stride: the table of 8 fits the first; the others are read between its entries.
CASES = [
    ((8, 8), 3, 1),
    ((13, 29), 5, 2),
    ((16, 11), 9, 8),
    ((5, 4), 7, 4),
    ((1, 7), 5, 2),
    ((7, 1), 3, 1),
    ((1, 1), 9, 8),
]


def attention(
    kernel_size: int = 5,
    stride: int = 2,
    *,
    offset_init: str = "default",
    ref_points: str = "released",
    interaction: nn.Module | None = None,
) -> DeformableAttention:
    torch.manual_seed(0)
    return DeformableAttention(
        16,
        num_heads=4,
        num_groups=2,
        kernel_size=kernel_size,
        stride=stride,
        grid_size=8,
        offset_init=offset_init,
        ref_points=ref_points,
        interaction=interaction or nn.Identity(),
    )


def with_random_weights(module: DeformableAttention) -> DeformableAttention:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


def cells_of(count: int) -> Tensor:
    """Return the places of a line's cells, from -1 to 1; that of a single one is 0."""
    one = torch.zeros(1, dtype=torch.double)
    return torch.linspace(-1, 1, count, dtype=torch.double) if count > 1 else one


def grid(down: Tensor, across: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1)


def reference_points(module: DeformableAttention, size: tuple[int, int], counts: list[int]):
    lines = []
    for side, count in zip(size, counts, strict=True):
        half = torch.arange(count, dtype=torch.double) + 0.5
        if module.place_keys.__name__ == "released_places":
            lines.append(half / max(count - 1, 1) * 2 - 1)
        else:
            centre = half * side / count - 0.5  # in cells
            lines.append(centre / max(side - 1, 1) * 2 - int(side > 1))
    return grid(*lines)


def offsets_of(module: DeformableAttention, query: Tensor) -> Tensor:
    """Return one group's offsets, (B, H_k, W_k, 2), from its channels (B, C / g, H, W)."""
    net = module.offsets
    conv = net.depthwise
    local = F.conv2d(
        query, conv.weight, conv.bias, conv.stride, conv.kernel_size[0] // 2, 1, query.shape[1]
    )
    local = F.gelu(net.norm(local.movedim(1, -1)))
    return local @ net.pointwise.weight.t()


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def by_definition(module: DeformableAttention, x: Tensor) -> Tensor:
    """Follow the released code's formulas, group by group, on maps (B, C, H, W).

    The bias is one `grid_sample` of the table for each query and key. Where a side has one cell,
    for which the released code divides by zero, that cell is at 0.
    """
    x = x.permute(0, 3, 1, 2)
    batch, dim, height, width = x.shape
    query = linear(module.q, x)
    cells = grid(cells_of(height), cells_of(width)).view(1, -1, 1, 2)
    per_group, heads = dim // 2, module.num_heads // 2
    out = []
    for group in range(2):
        part = slice(group * per_group, (group + 1) * per_group)
        offsets = offsets_of(module, query[:, part])
        counts = list(offsets.shape[1:3])
        points = (offsets + reference_points(module, (height, width), counts)).clamp(-1, 1)
        sampled = F.grid_sample(x[:, part], points[..., [1, 0]], align_corners=True)
        away = (cells - points.view(batch, 1, -1, 2)) / 2  # (B, H * W, n, 2)
        table = module.relative_position_bias_table[group * heads : (group + 1) * heads]
        table = table.expand(batch, -1, -1, -1)
        bias = F.grid_sample(table, away[..., [1, 0]], align_corners=True)
        out.append((sampled, bias))
    sampled, bias = (torch.cat(parts, dim=1) for parts in zip(*out, strict=True))
    key, value = linear(module.k, sampled), linear(module.v, sampled)
    query, key, value = (
        y.reshape(batch, module.num_heads, -1, y.shape[2] * y.shape[3]) for y in (query, key, value)
    )
    logits = torch.einsum("bhcm,bhcn->bhmn", query, key) * (dim // module.num_heads) ** -0.5
    weights = (logits + bias).softmax(dim=-1)
    y = torch.einsum("bhmn,bhcn->bhcm", weights, value).reshape(x.shape)
    return linear(module.proj, y).permute(0, 2, 3, 1)


@pytest.mark.parametrize("ref_points", ["released", "centred"])
@pytest.mark.parametrize(("size", "kernel_size", "stride"), CASES)
def test_outputs_and_gradients_equal_the_published_formulas(size, kernel_size, stride, ref_points):
    module = with_random_weights(attention(kernel_size, stride, ref_points=ref_points))
    x = torch.randn(2, *size, 16)
    in_single = module(x)
    module, x = module.double(), x.double().requires_grad_()
    found, expected = module(x), by_definition(module, x)
    assert found.shape == x.shape
    largest = expected.abs().max()
    assert (in_single - expected).abs().max() <= 1e-5 * largest
    assert (found - expected).abs().max() <= 1e-12 * largest
    names, parameters = zip(*module.named_parameters(), strict=True)
    direction = torch.randn_like(found)
    pair = (torch.autograd.grad(y, [x, *parameters], direction) for y in (found, expected))
    for name, one, other in zip(["x", *names], *pair, strict=True):
        # 1e-12 for gradients that are zero but for rounding: of k.bias, which no softmax sees.
        assert (one - other).abs().max() <= 1e-9 * other.abs().max() + 1e-12, name


@pytest.mark.parametrize("rows", [1, 3, 12])
def test_attending_some_rows_at_a_time_changes_no_number(rows, monkeypatch):
    module = with_random_weights(attention()).double()
    x = torch.randn(2, 13, 9, 16, dtype=torch.double, requires_grad=True)
    points = 7 * 5
    steps = []
    for logits in (2 * 4 * points * 9 * rows, 2**40):
        monkeypatch.setattr(deformable_attention, "CPU_STEP", logits)
        y = module(x)
        steps.append((y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])))
    assert deformable_attention.rows_at_once(x, 4 * points) == 13
    for one, other in zip(*steps, strict=True):
        assert (one - other).abs().max() <= 1e-10 * other.abs().max() + 1e-12


@pytest.mark.parametrize("size", [(8, 8), (16, 32), (13, 6)])
def test_points_that_start_centred_are_the_centres_of_even_cells(size):
    module = attention(stride=4, offset_init="zero", ref_points="centred")
    x = torch.randn(1, *size, 16)
    x[0, :, :, 0] = torch.arange(size[0])[:, None]  # each token tells its row and, in the
    x[0, :, :, 8] = torch.arange(size[1])  # second group's channels, its column
    points = module.points(module.q(x))
    counts = points.shape[2:4]
    assert counts == (-(-size[0] // 4), -(-size[1] // 4))
    read = sample(x, points).view(*counts, 16)
    rows, columns = (
        (torch.arange(count) + 0.5) * side / count - 0.5
        for side, count in zip(size, counts, strict=True)
    )
    assert torch.allclose(read[..., 0], rows[:, None].expand(*counts), atol=1e-5)
    assert torch.allclose(read[..., 8], columns.expand(*counts), atol=1e-5)


def test_with_zero_offsets_at_every_cell_it_is_global_attention_with_a_bias_a_distance():
    module = attention(3, 1, offset_init="zero", ref_points="centred")
    nn.init.normal_(module.relative_position_bias_table)
    x = torch.randn(2, 8, 8, 16)
    query, key, value = (
        layer(x).flatten(1, 2).unflatten(-1, (4, 4)).transpose(1, 2)
        for layer in (module.q, module.k, module.v)
    )
    away = torch.arange(8)[:, None] - torch.arange(8) + 7
    bias = module.relative_position_bias_table[:, away[:, None, :, None], away[:, None]]
    bias = bias.reshape(1, 4, 64, 64)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    expected = module.proj(out.transpose(1, 2).reshape(x.shape))
    assert torch.allclose(module(x), expected, atol=1e-5)


def test_offsets_start_at_zero_or_scatter_the_points():
    x = torch.randn(1, 32, 32, 16)
    points = {}
    for init in ("zero", "default"):
        module = attention(offset_init=init, ref_points="centred")
        points[init] = module.points(module.q(x))
    scatter = (points["default"] - points["zero"]).std().item()
    reference = points["zero"][0, 0]
    assert torch.equal(points["zero"], reference.expand_as(points["zero"]))
    assert scatter > 0.1


def test_a_zero_start_learns_its_offsets_from_the_first_step():
    module = attention(offset_init="zero", ref_points="centred")
    module(torch.randn(1, 16, 16, 16)).square().sum().backward()
    assert module.offsets.pointwise.weight.grad.abs().sum() > 0


def test_an_interaction_inside_changes_what_is_read_and_not_where():
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    plain = with_random_weights(attention())
    module = with_random_weights(attention(interaction=Double()))
    module.load_state_dict(plain.state_dict())
    x = torch.randn(1, 9, 9, 16)
    with torch.no_grad():
        points = plain.points(plain.q(x))
        module.points = lambda _query: points  # as if the tokens had not been doubled
        expected = module(x)
        plain.points = lambda _query: points
        assert torch.allclose(plain(2 * x), expected)
        del module.points
        assert torch.allclose(module(x), expected)


def test_bfloat16_autocast_reads_points_and_bias_in_float32():
    module = with_random_weights(attention())
    x = torch.randn(1, 16, 16, 16)
    expected = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        points = module.points(module.q(x))
        found = module(x)
    assert points.dtype == torch.float32
    assert torch.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0) > 0.999
