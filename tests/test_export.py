"""What records a graph of a block, or runs it in its own way."""

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from reference import randomize
from torch.utils.checkpoint import checkpoint

import nl_plugins
from nl_plugins.blocks.checks import MODES

pytestmark = pytest.mark.slow

BLOCKS = [
    *(('NonLocal2d', dict(mode=mode)) for mode in MODES),
    ('NonLocal2d', dict(sub_sample=True, num_heads=2)),
    ('NonLocal2d', dict(key_channels=2, gate='scalar')),
    ('DisentangledNonLocal2d', dict()),
    ('DisentangledNonLocal2d', dict(coupling='mul', unary='shared')),
    (
        'NonLocal2d',
        dict(
            gate='scalar',
            output_layer=True,
            projection_cfg=dict(
                query=dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU')),
                key=dict(with_spectral_norm=True, bias=False),
                output=dict(bias=False),
            ),
            positional_encoding='sine',
        ),
    ),
    ('DisentangledNonLocal2d', dict(whiten='channel_std', learn_temperature=True)),
    (
        'DisentangledNonLocal2d',
        dict(whiten='layer_std', output_layer=False, temperature=1.0),
    ),
]
IDS = ['-'.join(map(str, (name, *kwargs.values())))[:60] for name, kwargs in BLOCKS]
blocks = pytest.mark.parametrize('name, kwargs', BLOCKS, ids=IDS)


def build(name, kwargs):
    return randomize(getattr(nl_plugins, name)(8, **kwargs), 0.2).eval()


def images(height, width):
    generator = torch.Generator().manual_seed(height)
    return torch.randn(2, 8, height, width, generator=generator)


@blocks
def test_compile_without_a_graph_break(name, kwargs):
    torch._dynamo.reset()  # or the recompilations of all tests would add up
    block = build(name, kwargs)
    compiled = torch.compile(block, fullgraph=True, backend='aot_eager')
    for size in ((6, 8), (20, 24)):
        x = images(*size).requires_grad_()
        out = compiled(x)
        torch.testing.assert_close(out, block(x), rtol=1e-4, atol=1e-5)
        (actual,) = torch.autograd.grad(out.square().sum(), x)
        (expected,) = torch.autograd.grad(block(x).square().sum(), x)
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_inductor():
    block = build('DisentangledNonLocal2d', dict())
    x = images(12, 12)
    torch.testing.assert_close(torch.compile(block)(x), block(x), rtol=1e-4, atol=1e-5)


@blocks
def test_export_with_dynamic_sizes(name, kwargs):
    block = build(name, kwargs)
    height, width = (torch.export.Dim(n, min=4, max=64) for n in 'hw')
    program = torch.export.export(
        block, (images(12, 14),), dynamic_shapes=({2: height, 3: width},)
    )
    # Nothing that only this package could run.
    assert 'nl_plugins' not in str(program.graph)
    x = images(20, 6)
    torch.testing.assert_close(program.module()(x), block(x), rtol=1e-4, atol=1e-5)


@blocks
def test_trace_runs_on_other_sizes(name, kwargs):
    block = build(name, kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        traced = torch.jit.trace(block, images(12, 14))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    x = images(20, 6)
    torch.testing.assert_close(torch.jit.load(file)(x), block(x), rtol=1e-4, atol=1e-5)


#: What mmdeploy exports with by default, the last below PyTorch's fused
#: attention, and one above it.
OPSETS = 11, 13, 17


@blocks
@pytest.mark.parametrize(
    'dynamo, opset', [*((False, opset) for opset in OPSETS), (True, 17)]
)
def test_onnx_with_dynamic_sizes(name, kwargs, dynamo, opset, tmp_path):
    export_and_compare(build(name, kwargs), dynamo, opset, tmp_path)


@pytest.mark.parametrize('name', ['NonLocal2d', 'DisentangledNonLocal2d'])
@pytest.mark.parametrize('opset', [11, 13])
def test_onnx_of_the_new_exporter_below_its_own_opsets(name, opset, tmp_path):
    export_and_compare(build(name, {}), True, opset, tmp_path)


@pytest.mark.parametrize('opset', OPSETS)
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(axes='time'),
        dict(axes='space', num_heads=2),
        dict(group_size=2),
        dict(sub_sample='before'),
    ],
)
def test_onnx_of_clips_folded_into_the_batch(kwargs, opset, tmp_path):
    block = build('NonLocal3d', dict(num_frames=2, **kwargs))
    export_and_compare(block, False, opset, tmp_path)


def export_and_compare(block, dynamo, opset, tmp_path):
    path = str(tmp_path / 'block.onnx')
    sizes = (
        dict(
            dynamic_shapes=(
                {
                    2: torch.export.Dim('h', min=4, max=64),
                    3: torch.export.Dim('w', min=4, max=64),
                },
            )
        )
        if (dynamo)
        else dict(dynamic_axes=dict(x={2: 'h', 3: 'w'}))
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            block,
            (images(12, 14),),
            path,
            input_names=['x'],
            dynamo=dynamo,
            opset_version=opset,
            **sizes,
        )
    (found,) = (o.version for o in onnx.load(path).opset_import if not o.domain)
    # The new exporter converts from 18 what ONNX can convert, and says so.
    assert found == opset or dynamo and found == 18
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    for x in images(12, 14), images(20, 6):
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(out, block(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@blocks
def test_activation_checkpointing(name, kwargs):
    block = build(name, kwargs)
    x = images(20, 20).requires_grad_()
    (expected,) = torch.autograd.grad(block(x).square().sum(), x)
    out = checkpoint(block, x, use_reentrant=False)
    (actual,) = torch.autograd.grad(out.square().sum(), x)
    assert torch.equal(actual, expected)


@blocks
@pytest.mark.parametrize('size', [(3, 4), (20, 20)])
def test_per_sample_gradients_of_torch_func(name, kwargs, size):
    block = build(name, kwargs)
    parameters = {n: p.detach() for n, p in block.named_parameters()}
    x = images(*size)

    def loss(parameters, sample):
        return (
            torch.func.functional_call(block, parameters, (sample.unsqueeze(0),))
            .square()
            .sum()
        )

    with warnings.catch_warnings():  # PyTorch's kernel is mapped by a loop
        warnings.simplefilter('ignore', UserWarning)
        actual = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(
            parameters, x
        )
    for index, sample in enumerate(x):
        block.zero_grad()
        block(sample.unsqueeze(0)).square().sum().backward()
        largest = max(float(p.grad.abs().max()) for p in block.parameters())
        for key, parameter in block.named_parameters():
            torch.testing.assert_close(
                actual[key][index], parameter.grad, rtol=1e-3, atol=1e-5 * largest
            )


@blocks
def test_forward_derivatives_of_torch_func(name, kwargs):
    block = build(name, kwargs).double()
    x = images(20, 20).double()
    _, tangent = torch.func.jvp(block, (x,), (torch.ones_like(x),))
    step = 1e-6
    with torch.no_grad():
        difference = (block(x + step) - block(x - step)) / (2 * step)
    torch.testing.assert_close(tangent, difference, rtol=1e-4, atol=1e-5)
