"""The choice of a backend, and its public switches."""

import pytest
import torch
from reference import LargestTensor, relative_error

from nl_plugins.functional import (
    backends,
    chunked,
    explain_backend,
    softmax_attention,
    use_backend,
)

NAMES = ['naive', 'fused', 'chunked', 'symmetric']


def operands(positions=600, channels=16, value_channels=16, heads=None, dtype=None):
    lead = (2,) if heads is None else (2, heads)
    return [
        torch.randn(*lead, positions, c, dtype=dtype)
        for c in (channels, channels, value_channels)
    ]


def test_a_selected_backend_runs():
    query, _, value = operands()
    expected = softmax_attention(query, query, value, 0.5)
    for name in NAMES:
        with use_backend(name), LargestTensor() as largest:
            out = softmax_attention(query, query, value, 0.5)
        assert relative_error(out, expected) < 1e-5
        assert (largest.numel >= 2 * 600 * 600) == (name == 'naive')


def test_the_selection_ends_with_its_block_also_after_an_error():
    query, key, value = operands()
    with use_backend('naive'), use_backend('chunked'):
        pass
    with pytest.raises(ValueError, match='different tensors'), use_backend('symmetric'):
        softmax_attention(query, key, value, 0.5)
    assert explain_backend(query, key, value).startswith('fused: ')


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"\['naive', 'fused', .*got 'flash'"):
        with use_backend('flash'):
            pass


def test_the_explanation_names_the_choice_and_every_obstacle():
    query, key, value = operands(heads=3)
    text = explain_backend(query, key, value)
    assert text.startswith('fused: key and value have similar numbers')
    assert 'symmetric: cannot run: query and key are different tensors' in text
    assert [line.split(':')[0].strip() for line in text.splitlines()[1:]] == NAMES
    text = explain_backend(query.double(), query.double(), value)
    assert 'cannot run: query and key' in text  # two conversions, two tensors
    with use_backend('chunked'):
        text = explain_backend(query, key, value)
    assert text.startswith('chunked: selected by use_backend')


@pytest.mark.parametrize('name', NAMES)
def test_the_estimated_memory_is_that_of_the_largest_tensors(name):
    # In training, beyond the operands and their gradients.
    query, _, value = operands(1024, 32, 16)
    tensors = [query.unsqueeze(1), query.unsqueeze(1), value.unsqueeze(1)]
    tensors[1] = tensors[0]
    for t in (query, value):
        t.requires_grad_()
    with use_backend(name), LargestTensor() as largest:
        softmax_attention(query, query, value, 0.5).sum().backward()
    estimate = backends.BACKENDS[name].memory(*tensors) / 4
    assert largest.numel <= estimate <= 4 * largest.numel + 3 * query.numel()


# The rule of GPUs, as far as it can be asked without one. ------------------


@pytest.mark.parametrize(
    'shape, dtype, expected',
    [
        ((2, 8192, 256, 256), torch.bfloat16, 'fused'),
        ((2, 8192, 64, 256), torch.float16, 'fused'),
        ((2, 196, 256, 256), torch.bfloat16, 'fused'),
        # res4 of a ResNet-50: no flash kernel has so many channels
        ((2, 8192, 512, 512), torch.bfloat16, 'chunked'),
        ((2, 4200, 512, 512), torch.bfloat16, 'naive'),
        ((2, 8192, 256, 1024), torch.float16, 'chunked'),
        # nor one for float32
        ((2, 8192, 256, 256), torch.float32, 'chunked'),
        ((2, 784, 256, 256), torch.float32, 'naive'),
        # one launch is faster than five
        ((2, 196, 256, 256), torch.float32, 'fused'),
        ((1, 196, 1024, 1024), torch.bfloat16, 'fused'),
        ((2, 8192, 256, 256), torch.float64, 'chunked'),
        ((70000, 16, 64, 64), torch.bfloat16, 'naive'),
    ],
)
def test_the_rule_of_gpus(shape, dtype, expected, monkeypatch):
    monkeypatch.setattr(backends, '_flash_takes', flash_takes)
    tensors = [torch.empty(1).expand(shape[0], 1, shape[1], c) for c in shape[2:]]
    query, value = (t.to('meta', dtype) for t in tensors)
    assert backends._choose_on_gpus(query, query.clone(), value)[0] == expected


def test_the_rule_of_gpus_in_deterministic_mode():
    query = torch.empty(1, 1, 196, 64, device='meta')
    torch.use_deterministic_algorithms(True)
    try:
        chosen = backends._choose_on_gpus(query, query.clone(), query.clone())
    finally:
        torch.use_deterministic_algorithms(False)
    assert chosen[0] == 'naive'


def test_shapes_alone_take_one_operator():
    query, key, value = (t.to('meta') for t in operands(200000, 512, 512))
    assert explain_backend(query, key, value).startswith('fused')
    assert softmax_attention(query, key, value, 1.0).shape == (2, 200000, 512)


def flash_takes(query, key, value):
    """What PyTorch documents of its flash kernel."""
    half = value.dtype in (torch.float16, torch.bfloat16)
    channels = max(query.shape[-1], value.shape[-1])
    return half and channels <= 256 and query.shape[0] <= backends.GRID


def test_pytorch_is_asked_with_operands_that_it_takes():
    # The call itself must work; without a GPU the answer is no.
    query, key, value = (
        t.unsqueeze(1).bfloat16().requires_grad_() for t in operands(64, 12, 20)
    )
    assert backends._ask_pytorch(query, key, value, [24, 24, 24]) is False


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_a_gpus_chunks_of_half_precision(dtype, monkeypatch):
    """All samples at once, with products in half and sums in float32."""
    monkeypatch.setattr(
        chunked, 'chunk_rows', lambda query, key, value: (len(query), 100)
    )
    # What torch.baddbmm with out_dtype=torch.float32 computes, of GPUs alone.
    monkeypatch.setattr(
        chunked,
        '_baddbmm_of_halves',
        lambda total, a, b, **factors: torch.baddbmm(
            total, a.float(), b.float(), **factors
        ),
    )
    tensors = [t.to(dtype).requires_grad_() for t in operands(500, 16, 8)]
    out = chunked.chunked_softmax_attention(*tensors, 0.5)
    grads = torch.autograd.grad(out.sum(), tensors)
    doubles = [t.detach().double().requires_grad_() for t in tensors]
    expected = chunked.naive_softmax_attention(*doubles, 0.5)
    expected_grads = torch.autograd.grad(expected.sum(), doubles)
    upstream = ((tensors[0] @ tensors[1].mT) * 0.5).softmax(2) @ tensors[2]
    upstream_grads = torch.autograd.grad(upstream.sum(), tensors)
    for actual, other, value in zip(
        (out, *grads), (upstream, *upstream_grads), (expected, *expected_grads)
    ):
        assert actual.dtype == dtype
        error = relative_error(actual, value)
        assert error <= relative_error(other, value)


@pytest.mark.slow
def test_chunks_in_a_compiled_graph(monkeypatch):
    """As in a PyTorch for GPUs: without a graph break."""
    allowed = torch.compiler.allow_in_graph(chunked.chunked_softmax_attention)
    monkeypatch.setattr(chunked, 'CPU_CHUNK', 2000)
    tensors = [t.requires_grad_() for t in operands(100, 8, 4)]
    compiled = torch.compile(
        lambda *t: allowed(*t, 0.5), fullgraph=True, backend='aot_eager'
    )
    results = [
        torch.autograd.grad(f(*tensors, *scale).square().sum(), tensors)
        for f, scale in ((compiled, ()), (chunked.naive_softmax_attention, (0.5,)))
    ]
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
