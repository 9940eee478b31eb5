"""FLOPs of the blocks against a count by hand."""

import pytest
import torch
from mmengine.analysis import get_model_complexity_info

import nl_plugins

#: Input channels, those of the projections, positions.
C, D, N = 24, 12, 6 * 7


def flops(block, size=(6, 7)):
    return get_model_complexity_info(
        block, inputs=(torch.randn(1, C, *size),), show_table=False, show_arch=False
    )['flops']


@pytest.mark.parametrize(
    'mode, key, pairs',
    [
        ('gaussian', 0, N * N * (C + D)),
        ('embedded_gaussian', 2, N * N * (D + D)),
        ('dot_product', 2, 2 * N * D * D),
        # Scores, two cumulative sums, and comparisons: log2(42) is below 6.
        ('concatenation', 2, 2 * N * D + 2 * N * D + 2 * N * 6),
    ],
)
def test_non_local(mode, key, pairs):
    projections = (2 + key) * N * C * D
    assert flops(nl_plugins.NonLocal2d(C, mode=mode)) == projections + pairs


def test_the_dot_product_of_few_positions():
    # Fewer positions than channels: the map is cheaper.
    n = 2 * 2
    assert flops(nl_plugins.NonLocal2d(C, mode='dot_product'), (2, 2)) == (
        4 * n * C * D + 2 * n * n * D
    )


def test_heads_and_sub_sampling():
    block = nl_plugins.NonLocal2d(C, num_heads=3, sub_sample=True)
    assert flops(block) == 4 * N * C * D + 2 * N * (3 * 3) * D
    block = nl_plugins.NonLocal2d(C, sub_sample='before')
    keys = 3 * 3
    assert flops(block) == 2 * (N + keys) * C * D + 2 * N * keys * D


def test_disentangled():
    block = nl_plugins.DisentangledNonLocal2d(C)
    unary = N * C + N * D
    assert flops(block) == 4 * N * C * D + 2 * N * N * D + unary
    # One softmax: the bias is one more channel of query and key.
    block = nl_plugins.DisentangledNonLocal2d(C, coupling='mul')
    assert flops(block) == (4 * N * C * D + N * N * (2 * D + 1) + N * C)


def test_the_linear_modes_show_their_smaller_number_in_a_model():
    counts = {
        mode: flops(nl_plugins.NonLocal2d(C, mode=mode), (64, 64))
        for mode in ('embedded_gaussian', 'dot_product', 'concatenation')
    }
    assert counts['dot_product'] < counts['embedded_gaussian'] / 20
    assert counts['concatenation'] < counts['embedded_gaussian'] / 20
