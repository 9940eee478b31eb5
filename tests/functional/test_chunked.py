"""The softmax in chunks of queries, beyond what the tests of attention.py show."""

import pytest
import torch
from reference import LargestTensor

from nl_plugins.functional import chunked
from nl_plugins.functional.chunked import (
    chunked_softmax_attention,
    naive_softmax_attention,
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunked, 'CPU_CHUNK', 100)


def inputs(*lead):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(*lead, *s, generator=generator, dtype=torch.float64)
        for s in ((17, 6), (23, 6), (23, 4))
    ]


@pytest.mark.parametrize('in_dims', [(0, 0, 0), (0, None, None), (1, 0, None)])
def test_vmap(in_dims):
    batched = inputs(3, 2)
    operands = [
        t[0] if dim is None else t.movedim(0, dim) for t, dim in zip(batched, in_dims)
    ]
    actual, expected = (
        torch.vmap(lambda *t, f=f: f(*t, 0.7), in_dims)(*operands)
        for f in (chunked_softmax_attention, naive_softmax_attention)
    )
    torch.testing.assert_close(actual, expected)


def test_jacobian_and_per_sample_gradients():
    operands = inputs(2)
    losses = (
        lambda *t, f=f: f(*t, 0.7).square().sum()
        for f in (chunked_softmax_attention, naive_softmax_attention)
    )
    actual, expected = (
        (
            torch.func.jacrev(loss)(*operands),
            torch.vmap(
                torch.func.grad(lambda *t, g=loss: g(*(s.unsqueeze(0) for s in t)))
            )(*operands),
        )
        for loss in losses
    )
    torch.testing.assert_close(actual, expected)


def test_the_backward_holds_one_chunk(monkeypatch):
    monkeypatch.setattr(chunked, 'CPU_CHUNK', 2**15)
    n = 1024
    operands = [torch.randn(1, n, c, requires_grad=True) for c in (16, 16, 8)]
    with LargestTensor() as largest:
        chunked_softmax_attention(*operands, 1.0).sum().backward()
    assert largest.numel <= max(2**15, 16 * n)


def test_empty_operands():
    operands = [t[:0].requires_grad_() for t in inputs(1)]
    out = chunked_softmax_attention(*operands, 1.0)
    out.sum().backward()
    assert out.shape == (0, 17, 4) and operands[0].grad.shape == (0, 17, 6)
