"""The pairwise functions against the formulas in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import LargestTensor, pairwise_weights, relative_error

from nl_plugins.functional import backends, chunked, use_backend
from nl_plugins.functional.attention import (
    concatenation_attention,
    dot_product_attention,
    softmax_attention,
)

sizes = st.integers(1, 40)


def results(function, inputs, dtype):
    """Output and gradients in one type, from the same numbers."""
    inputs = [t.to(dtype).requires_grad_() for t in inputs]
    out = function(*inputs)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    return [out, *torch.autograd.grad(out, inputs, cotangent.to(dtype))]


def check(function, reference, *shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        torch.randn(s, generator=generator, dtype=torch.float64).float() for s in shapes
    ]
    expected = results(reference, inputs, torch.float64)
    for actual, value in zip(results(function, inputs, torch.float32), expected):
        assert actual.shape == value.shape
        # Gradients that cancel to 0 (one key: a constant softmax) are
        # measured against the size of the inputs.
        scale = max(float(value.detach().abs().max()), 1.0)
        error = float((actual.double() - value).detach().abs().max()) / scale
        assert error < 1e-5


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(1, 3))
def test_softmax_attention(nq, nk, d, dv, batch):
    def reference(query, key, value):
        return pairwise_weights('gaussian', query, key, 0.5) @ value

    check(
        lambda q, k, v: softmax_attention(q, k, v, 0.5),
        reference,
        (batch, nq, d),
        (batch, nk, d),
        (batch, nk, dv),
    )


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, sizes, sizes)
def test_softmax_attention_with_a_key_bias(nq, nk, d, dv):
    def reference(query, key, value, bias):
        logits = 0.5 * query @ key.transpose(1, 2) + bias.unsqueeze(1)
        return logits.softmax(2) @ value

    check(
        lambda q, k, v, b: softmax_attention(q, k, v, 0.5, key_bias=b),
        reference,
        (2, nq, d),
        (2, nk, d),
        (2, nk, dv),
        (2, nk),
    )


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(1, 3))
def test_dot_product_attention(nq, nk, d, dv, batch):
    def reference(query, key, value):
        return pairwise_weights('dot_product', query, key) @ value

    check(
        dot_product_attention,
        reference,
        (batch, nq, d),
        (batch, nk, d),
        (batch, nk, dv),
    )


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, sizes, st.integers(1, 3))
def test_concatenation_attention(nq, nk, dv, batch):
    def reference(query_score, key_score, value):
        pairs = query_score.unsqueeze(2) + key_score.unsqueeze(1)
        return torch.relu(pairs) @ value / value.shape[1]

    check(concatenation_attention, reference, (batch, nq), (batch, nk), (batch, nk, dv))


def test_concatenation_at_exactly_zero_has_the_gradient_of_relu():
    # Every second pair sums to exactly 0, where ReLU's gradient is 0.
    a = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[-1.0, -1.0, 2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    value = torch.arange(8.0, dtype=torch.float64).reshape(1, 4, 2)
    naive = torch.relu(a.unsqueeze(2) + b.unsqueeze(1)) @ value / 4
    expected = torch.autograd.grad(naive.sum(), (a, b))
    out = concatenation_attention(a, b, value)
    assert torch.equal(out, naive)
    for actual, grad in zip(torch.autograd.grad(out.sum(), (a, b)), expected):
        torch.testing.assert_close(actual, grad)


def test_dot_product_does_not_overflow_in_half_precision():
    keys = torch.full((1, 65536, 8), 4.0).half()
    out = dot_product_attention(keys[:, :4], keys, keys)
    # 8 channels of 4 * 4, times the value 4.
    assert relative_error(out, torch.full((1, 4, 8), 512.0)) < 2e-3


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_concatenation_sums_half_precision_in_float32(dtype):
    # Values that all are 1: a sum in half precision would stop growing.
    score = torch.full((1, 8192), 4.0, dtype=dtype)
    out = concatenation_attention(score, score, torch.ones(1, 8192, 1, dtype=dtype))
    assert out.dtype == dtype
    assert relative_error(out, torch.full((1, 8192, 1), 8.0)) < 1e-3


@pytest.mark.parametrize('masked', [-1e9, -float('inf')])
def test_masked_keys_of_the_concatenation_cost_no_digits(masked):
    a, b = torch.randn(2, 1, 1000)
    b[0, 7] = masked
    value = torch.randn(1, 1000, 4)
    pairs = a.double().unsqueeze(2) + b.double().unsqueeze(1)
    expected = torch.relu(pairs) @ value.double() / 1000
    out = concatenation_attention(a, b, value)
    assert relative_error(out, expected) < 1e-5


def test_concatenation_of_scores_with_a_shared_offset():
    a, b = torch.randn(2, 1, 500)
    value = torch.randn(1, 500, 4)
    a, b = a - 1024, b + 1024
    pairs = a.double().unsqueeze(2) + b.double().unsqueeze(1)
    expected = torch.relu(pairs) @ value.double() / 500
    out = concatenation_attention(a, b, value)
    assert relative_error(out, expected) < 1e-5


@pytest.mark.parametrize('channels', [(16, 16), (16, 15), (16, 8), (12, 5), (5, 12)])
def test_softmax_attention_holds_no_map(channels):
    n, (d, dv) = 1024, channels
    # Laid out as they come from a convolution, positions last.
    inputs = [torch.randn(1, c, n, requires_grad=True).mT for c in (d, d, dv)]
    with LargestTensor() as largest:
        softmax_attention(*inputs, scale=1.0).sum().backward()
    assert largest.numel < n * n / 4
    with LargestTensor() as largest:  # the measure does see a map
        query, key, value = inputs
        ((query @ key.transpose(1, 2)).softmax(2) @ value).sum().backward()
    assert largest.numel >= n * n


# The backends of the softmax ------------------------------------------------


@pytest.fixture(params=['naive', 'fused', 'chunked'])
def backend(request, monkeypatch):
    """Makes the softmax take one backend, in chunks of few queries."""
    monkeypatch.setattr(chunked, 'CPU_CHUNK', 100)
    with use_backend(request.param):
        yield request.param


def chosen(query, key, value):
    return backends.choose(*backends.with_heads(query, key, value))[0]


@pytest.mark.parametrize(
    'shape',
    [
        (2, 30, 30, 8, 8),
        (1, 7, 50, 5, 12),
        (3, 50, 7, 12, 5),
        (1, 1, 1, 1, 1),
        (2, 64, 33, 16, 3),
    ],
)
def test_every_backend_is_exact(backend, shape):
    batch, nq, nk, d, dv = shape

    def reference(query, key, value, bias):
        logits = 0.5 * query @ key.transpose(1, 2) + bias.unsqueeze(1)
        return logits.softmax(2) @ value

    check(
        lambda q, k, v, b: softmax_attention(q, k, v, 0.5, key_bias=b),
        reference,
        (batch, nq, d),
        (batch, nk, d),
        (batch, nk, dv),
        (batch, nk),
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_every_backend_sums_half_precision_in_float32(backend, dtype):
    # All weights are 1 / n: in half precision they would not sum to 1.
    n = 3000
    value = torch.ones(1, n, 8, dtype=dtype)
    out = softmax_attention(0 * value[:, :2], 0 * value, value, 1.0)
    assert out.dtype == dtype
    assert relative_error(out, torch.ones(1, 2, 8)) < 1e-3


def test_gradcheck_of_every_backend(backend):
    inputs = [
        torch.randn(2, *s, dtype=torch.float64, requires_grad=True)
        for s in ((5, 3), (6, 3), (6, 4), (6,))
    ]
    assert torch.autograd.gradcheck(
        lambda q, k, v, b: softmax_attention(q, k, v, 0.7, b), inputs
    )
    if backend != 'fused':  # PyTorch's has no second derivative
        assert torch.autograd.gradgradcheck(
            lambda q, k, v, b: softmax_attention(q, k, v, 0.7, b), inputs
        )


def test_the_second_derivative_of_the_fused_backend_by_pytorchs_switch():
    from torch.nn.attention import SDPBackend, sdpa_kernel

    inputs = [
        torch.randn(1, 90, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)
    ]
    assert chosen(*inputs) == 'fused'
    with sdpa_kernel(SDPBackend.MATH):
        out = softmax_attention(*inputs, 0.7)
    grads = torch.autograd.grad(out.sum(), inputs, create_graph=True)
    assert torch.autograd.grad(grads[0].square().sum(), inputs[0])[0].isfinite().all()


@pytest.mark.parametrize(
    'shape, expected',
    [
        ((196, 256, 256), 'naive'),
        ((784, 512, 256), 'naive'),
        ((8192, 256, 256), 'fused'),
        ((8192, 257, 256), 'fused'),
        ((8192, 512, 256), 'chunked'),
        ((8192, 64, 512), 'chunked'),
        ((15, 1, 1), 'naive'),
    ],
)
def test_the_choice_of_backends(shape, expected):
    n, d, dv = shape
    inputs = [torch.empty(1, n, c) for c in (d, d, dv)]
    assert chosen(*inputs) == expected


@pytest.mark.parametrize('channels', [(16, 16), (16, 4)])
def test_forward_derivatives_of_large_maps(channels):
    d, dv = channels
    inputs = [torch.randn(1, 400, c, dtype=torch.float64) for c in (d, d, dv)]
    tangents = [torch.randn_like(t) for t in inputs]
    assert chosen(*inputs) != 'naive'

    def naive(query, key, value):
        return (query @ key.mT).softmax(2) @ value

    actual, expected = (
        torch.func.jvp(f, tuple(inputs), tuple(tangents))
        for f in (lambda *t: softmax_attention(*t, 1.0), naive)
    )
    torch.testing.assert_close(actual, expected)


# Numerics -------------------------------------------------------------------


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('norm', [1.0, 1e2, 1e4])
@pytest.mark.parametrize('positions', [60, 700])
@pytest.mark.parametrize(
    'mode', ['gaussian', 'embedded_gaussian', 'dot_product', 'concatenation']
)
def test_half_precision_is_never_worse_than_upstreams_order(
    mode, positions, norm, dtype
):
    tensors = torch.randn(3, 2, positions, 16)
    tensors *= norm / tensors.norm(dim=3, keepdim=True)
    query, key, value = tensors.to(dtype)
    scale = 16**-0.5 if mode == 'embedded_gaussian' else 1.0

    def upstream(query, key, value):  # in the order of mmcv's operations
        if mode == 'concatenation':
            weights = torch.relu(query[..., :1] + key[..., :1].mT)
        else:
            weights = query @ key.mT
        if 'gaussian' in mode:
            return (weights * scale).softmax(dim=-1) @ value
        return weights / positions @ value

    if mode == 'dot_product':
        actual = dot_product_attention(query, key, value)
    elif mode == 'concatenation':
        actual = concatenation_attention(query[..., 0], key[..., 0], value)
    else:
        actual = softmax_attention(query, key, value, scale)
    expected = upstream(*(t.double() for t in (query, key, value)))
    # What is beyond half precision counts as its largest number.
    expected = expected.clamp(
        *(getattr(torch.finfo(dtype), name) for name in ('min', 'max'))
    )
    ours, theirs = (
        float((t.double().nan_to_num(nan=float('inf')) - expected).abs().mean())
        for t in (actual, upstream(query, key, value))
    )
    assert (
        ours <= theirs
        or ours <= torch.finfo(dtype).eps * float(expected.abs().mean()) / 2
    )


@pytest.mark.parametrize('positions', [3, 9])
def test_gradcheck_of_both_orders_of_the_dot_product(positions):
    inputs = [
        torch.randn(2, positions, c, dtype=torch.float64, requires_grad=True)
        for c in (5, 5, 4)
    ]
    assert torch.autograd.gradcheck(dot_product_attention, inputs)


def test_gradcheck_of_the_concatenation():
    inputs = [
        torch.randn(2, *s, dtype=torch.float64, requires_grad=True)
        for s in ((5,), (6,), (6, 3))
    ]
    assert torch.autograd.gradcheck(concatenation_attention, inputs)
    assert torch.autograd.gradgradcheck(concatenation_attention, inputs)


def test_ties_in_the_sort_have_the_gradient_of_relu():
    a = torch.tensor([[-1.0, 0.0, 1.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 0.0, 1.0, -1.0, 1.0, 0.0]], dtype=torch.float64)
    value = torch.randn(1, 6, 3, dtype=torch.float64)

    def naive(a, b, v):
        return torch.relu(a.unsqueeze(2) + b.unsqueeze(1)) @ v / 6

    for actual, expected in zip(
        results(concatenation_attention, (a, b, value), torch.float64),
        results(naive, (a, b, value), torch.float64),
    ):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('place', [0, 4, -1])
@pytest.mark.parametrize('which', [0, 1, 2])
@pytest.mark.parametrize('keys', [5, 40])
def test_what_is_not_finite_stays_so(keys, which, place, bad, backend):
    # Where the formula is not finite no number may come out.
    generator = torch.Generator().manual_seed(keys)
    tensors = [torch.randn(1, n, 4, generator=generator) for n in (keys, keys, keys)]
    tensors[which][0, place, 0] = bad
    query, key, value = tensors
    scores = query[..., 0], key[..., 0]
    pairs = scores[0].unsqueeze(2) + scores[1].unsqueeze(1)
    for actual, weights in (
        (softmax_attention(query, key, value, 1.0), (query @ key.mT).softmax(2)),
        (dot_product_attention(query, key, value), query @ key.mT),
        (concatenation_attention(*scores, value), torch.relu(pairs)),
    ):
        expected = weights @ value
        if backend == 'fused' and keys < 16:
            continue  # what the rule keeps PyTorch's kernel from
        assert not actual[~expected.isfinite()].isfinite().any()


@pytest.mark.parametrize(
    'function, message',
    [
        (lambda q, k, v: softmax_attention(q[0], k, v, 1.0), r'\(B, Nq, D\)'),
        (lambda q, k, v: softmax_attention(q, k[..., :2], v, 1.0), r'\(2, 5, 2\)'),
        (lambda q, k, v: softmax_attention(q, k, v, 1.0, q[..., 0]), 'key_bias'),
        (lambda q, k, v: dot_product_attention(q, k, v[:, 1:]), r'\(2, 4, 3\)'),
        (lambda q, k, v: concatenation_attention(q, k[..., 0], v), 'query_score'),
    ],
)
def test_wrong_shapes_are_named(function, message):
    query, key, value = (torch.randn(2, n, 3) for n in (4, 5, 5))
    with pytest.raises(ValueError, match=message):
        function(query, key, value)
