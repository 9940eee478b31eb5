"""Blocks and backends on a GPU equal the formulas in float64 on the CPU."""

import pytest
import torch
from reference import (
    assert_same_results,
    in_float64,
    output_and_gradients,
    randomize,
    relative_error,
)

import nl_plugins
from nl_plugins.blocks.checks import MODES
from nl_plugins.functional import explain_backend, softmax_attention, use_backend

pytestmark = pytest.mark.gpu

#: Channels of key and value: flash attention takes the first two.
CHANNELS = [(64, 64), (32, 200), (512, 512), (256, 1024)]
HALF = [torch.bfloat16, torch.float16]


def operands(channels, dtype=torch.float32, positions=700, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, positions, c, generator=generator).to('cuda', dtype)
        for c in (channels[0], *channels)
    ]


def results(function, tensors):
    """Output and gradients."""
    tensors = [t.detach().requires_grad_() for t in tensors]
    out = function(*tensors)
    return [out, *torch.autograd.grad(out.float().square().sum(), tensors)]


def naive(query, key, value):
    scale = query.shape[-1] ** -0.5
    return (scale * query @ key.mT).softmax(dim=-1) @ value


def attention(query, key, value):
    return softmax_attention(query, key, value, query.shape[-1] ** -0.5)


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    torch.set_float32_matmul_precision('highest')


@pytest.mark.parametrize('size', [(8, 9), (48, 64)])
@pytest.mark.parametrize('mode', [*MODES, 'disentangled'])
def test_a_block_equals_its_formula(mode, size):
    if mode == 'disentangled':
        block = nl_plugins.DisentangledNonLocal2d(24)
    else:
        block = nl_plugins.NonLocal2d(24, mode=mode)
    randomize(block)
    x = torch.randn(2, 24, *size)
    expected = output_and_gradients(in_float64(block), x.double())
    actual = output_and_gradients(block.cuda(), x.cuda())
    actual = {name: value.cpu() for name, value in actual.items()}
    assert_same_results(actual, expected, 1e-4)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('mode', [*MODES, 'disentangled'])
def test_autocast_is_no_worse_than_upstream(mode, dtype):
    from mmcv import cnn

    if mode == 'disentangled':
        dnl_head = pytest.importorskip('mmseg.models.decode_heads.dnl_head')
        block = randomize(nl_plugins.DisentangledNonLocal2d(24))
        upstream = dnl_head.DisentangledNonLocal2d(24, temperature=0.05)
    else:
        block = randomize(nl_plugins.NonLocal2d(24, mode=mode))
        upstream = cnn.NonLocal2d(24, mode=mode)
    upstream.load_state_dict(block.state_dict())
    x = torch.randn(2, 24, 48, 64)
    with torch.no_grad():
        expected = in_float64(block)(x.double())
        with torch.autocast('cuda', dtype):
            errors = [
                relative_error(module.cuda()(x.cuda()).cpu(), expected)
                for module in (block, upstream)
            ]
    assert errors[0] <= max(1.2 * errors[1], 1e-3)


@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, *HALF])
@pytest.mark.parametrize('backend', ['naive', 'fused', 'chunked', 'symmetric', None])
def test_every_backend_is_exact(backend, dtype, channels, monkeypatch):
    from nl_plugins.functional import chunked

    monkeypatch.setattr(chunked, 'GPU_CHUNK', 2**17)  # several chunks
    tensors = operands(channels, dtype)
    if backend == 'symmetric':

        def run(query, value):
            return attention(query, query, value)

        tensors = [tensors[0], tensors[2]]
        reference = [t.double() for t in tensors]
        expected = results(lambda q, v: naive(q, q, v), reference)
        upstream = results(lambda q, v: naive(q, q, v), tensors)
    else:
        run = attention
        expected = results(naive, [t.double() for t in tensors])
        upstream = results(naive, tensors)
    if backend is None:
        actual = results(run, tensors)
    else:
        with use_backend(backend):
            actual = results(run, tensors)
    for one, other, value in zip(actual, upstream, expected):
        assert one.dtype == dtype
        error, limit = relative_error(one, value), relative_error(other, value)
        # PyTorch's fused kernel rounds more than dense products.
        assert error <= max((4 if backend == 'fused' else 2) * limit, 1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, *HALF])
@pytest.mark.parametrize('channels', CHANNELS)
def test_peak_memory_is_linear_in_the_positions(channels, dtype):
    peaks = []
    for positions in 8192, 16384:
        tensors = operands(channels, dtype, positions, batch=1)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        results(attention, tensors)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        del tensors
    assert peaks[1] < 2.2 * peaks[0]
    assert peaks[1] < 4 * 16384**2  # one map in float32


def test_the_rule_is_that_of_the_flash_kernels():
    for dtype in HALF:
        text = explain_backend(*operands((64, 64), dtype))
        if torch.cuda.get_device_capability() >= (8, 0):
            assert text.startswith('fused'), text
        assert not explain_backend(*operands((512, 512), dtype)).startswith('fused')
        assert explain_backend(*operands((512, 512), dtype, 99)).startswith('fused')
    assert not explain_backend(*operands((512, 512))).startswith('fused')


@pytest.mark.parametrize('backend', ['naive', 'chunked', 'symmetric'])
def test_deterministic_mode(backend):
    query, _, value = operands((64, 32))
    torch.use_deterministic_algorithms(True)
    try:
        with use_backend(backend):
            runs = [
                results(lambda q, v: attention(q, q, v), [query, value])
                for _ in range(2)
            ]
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(*runs):
        assert torch.equal(one, other)


@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_compiled(channels, dtype):
    tensors = operands(channels, dtype)
    compiled = torch.compile(attention, fullgraph=True)
    limit = 1e-4 if dtype == torch.float32 else 3e-2
    for one, other in zip(results(compiled, tensors), results(attention, tensors)):
        assert relative_error(one, other) < limit


@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_in_a_cuda_graph(channels, dtype):
    tensors = operands(channels, dtype)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.no_grad():  # warm-up, as PyTorch asks for
        attention(*tensors)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        out = attention(*tensors)
    for tensor, new in zip(tensors, operands(channels, dtype)):
        tensor.copy_(new.flip(1))
    graph.replay()
    assert relative_error(out, attention(*tensors)) < 1e-2
