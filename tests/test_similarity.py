"""Similarity of tokens, CKA and entropy against their plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ulga_d2.analysis.similarity import cka_matrix, linear_cka, map_entropy, mean_cosine, rank_share


@pytest.mark.parametrize("shape", [(2, 3), (5, 7, 4), (9, 9, 32)])
def test_the_mean_cosine_is_that_of_the_matrix_of_all_pairs(shape):
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.3
    units = torch.nn.functional.normalize(tokens.flatten(0, -2).double(), dim=-1)
    matrix = units @ units.t()
    apart = ~torch.eye(len(matrix), dtype=torch.bool)
    assert mean_cosine(tokens) == pytest.approx(float(matrix[apart].mean()), abs=1e-12)


def test_the_mean_cosine_is_1_for_one_direction_and_undefined_for_one_token():
    line = torch.arange(1.0, 5.0)[:, None] * torch.tensor([3.0, -4.0])
    assert mean_cosine(line) == pytest.approx(1)
    assert mean_cosine(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-1)
    assert math.isnan(mean_cosine(torch.ones(1, 8)))


@pytest.fixture
def two() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    one = random.normal(size=(40, 6))
    return one, one[:, :3] @ random.normal(size=(3, 9)) + random.normal(size=(40, 9)) + 2


def test_cka_is_the_alignment_of_centred_gram_matrices(two):
    centring = np.eye(40) - 1 / 40
    a, b = (centring @ (side @ side.T) @ centring for side in two)
    wanted = np.trace(a @ b) / np.sqrt(np.trace(a @ a) * np.trace(b @ b))
    assert linear_cka(*two) == pytest.approx(wanted, abs=1e-12)
    assert 0.1 < wanted < 0.9


def test_cka_does_not_see_turning_scaling_and_shifting(two):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(9, 9)))[0]
    assert linear_cka(two[0], 5 * two[1] @ turn - 7) == pytest.approx(linear_cka(*two), abs=1e-12)
    assert linear_cka(two[1], two[1] @ turn) == pytest.approx(1)


def test_cka_is_undefined_for_what_does_not_vary(two):
    assert math.isnan(linear_cka(two[0], np.ones((40, 3))))


def test_the_matrix_has_rows_and_columns_in_their_order(two):
    found = cka_matrix(two, [two[1]])
    assert found.tolist() == [[linear_cka(*two)], [pytest.approx(1)]]


def test_entropy_is_1_for_looking_everywhere_and_0_for_one_token():
    even, single = torch.full((2, 10), 0.1), torch.eye(10)[:2]
    assert map_entropy(even) == pytest.approx(1)
    assert map_entropy(single) == pytest.approx(0)
    half = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    assert map_entropy(half) == pytest.approx(0.5)
    assert map_entropy(torch.cat([even, single])) == pytest.approx(0.5)


def test_the_rank_counts_maps_that_differ():
    assert rank_share(torch.eye(5, 9)) == pytest.approx(1)
    one = torch.rand(1, 20, generator=torch.Generator().manual_seed(0))
    assert rank_share(one * torch.tensor([[1.0], [2.0], [0.5], [3.0]])) == pytest.approx(1 / 4)
    assert rank_share(torch.eye(2, 8).repeat_interleave(2, 0)) == pytest.approx(2 / 4)
