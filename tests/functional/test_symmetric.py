"""Softmax attention with half of the logits, against the formula."""

import pytest
import torch
from reference import LargestTensor

from nl_plugins.functional import explain_backend, softmax_attention, symmetric
from nl_plugins.functional.symmetric import symmetric_softmax_attention


def reference(features, value, scale):
    return (scale * features @ features.mT).softmax(2) @ value


def results(function, *inputs):
    inputs = [t.detach().requires_grad_() for t in inputs]
    out = function(*inputs, 0.7)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    return [out, *torch.autograd.grad(out, inputs, cotangent.to(out.dtype))]


@pytest.mark.parametrize('rows', [1, 7, 64])
@pytest.mark.parametrize('positions', [1, 2, 9, 50, 129])
def test_equals_the_formula(rows, positions, monkeypatch):
    monkeypatch.setattr(symmetric, 'ROWS', rows)
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(3, positions, c, generator=generator, dtype=torch.float64)
        for c in (6, 4)
    ]
    expected = results(reference, *inputs)
    for actual, value in zip(results(symmetric_softmax_attention, *inputs), expected):
        torch.testing.assert_close(actual, value)
    singles = results(symmetric_softmax_attention, *(t.float() for t in inputs))
    for actual, value in zip(singles, expected):
        torch.testing.assert_close(actual.double(), value, rtol=1e-5, atol=1e-5)


def test_large_logits_do_not_overflow():
    # exp() of the logits' differences along rows and columns overflows alone.
    features = torch.randn(1, 40, 8, dtype=torch.float64) * torch.linspace(
        0, 40, 40, dtype=torch.float64
    ).unsqueeze(1)
    value = torch.randn(1, 40, 4, dtype=torch.float64)
    for inputs in ((features, value), (features.flip(1), value)):
        expected = results(reference, *inputs)
        actual = results(symmetric_softmax_attention, *inputs)
        for one, other in zip(actual, expected):
            torch.testing.assert_close(one, other)


def test_gradcheck_and_vmap():
    inputs = [
        torch.randn(1, 9, c, dtype=torch.float64, requires_grad=True) for c in (2, 3)
    ]

    def function(features, value):
        return symmetric_softmax_attention(features, value, 0.7)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)
    stacked = [torch.stack([t, 2 * t]).detach() for t in inputs]
    torch.testing.assert_close(
        torch.vmap(function)(*stacked),
        torch.stack([function(*(t[i] for t in stacked)) for i in range(2)]),
    )


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('place', [0, 20, -1])
@pytest.mark.parametrize('which', [0, 1])
def test_what_is_not_finite_stays_so(which, place, bad):
    inputs = [torch.randn(1, 40, 4) for _ in range(2)]
    inputs[which][0, place, 0] = bad
    expected = reference(*inputs, 1.0)
    actual = symmetric_softmax_attention(*inputs, 1.0)
    assert not actual[~expected.isfinite()].isfinite().any()


def test_a_block_of_one_projection_chooses_it_and_holds_no_map():
    n = 2400
    features = torch.randn(1, n, 16, requires_grad=True)
    value = torch.randn(1, n, 8, requires_grad=True)
    assert explain_backend(features, features, value).startswith('symmetric')
    with LargestTensor() as largest:
        out = softmax_attention(features, features, value, 1.0)
    assert largest.numel < n * n / 4
    with LargestTensor() as largest:
        out.sum().backward()
    assert largest.numel < n * n / 4
