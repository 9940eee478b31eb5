"""Models of the shipped configs as graphs that run without this package."""

import warnings
from pathlib import Path

import onnxruntime
import pytest
import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from torch import nn

from nl_plugins.engine import build_model, load_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SEGMENTATION = 'nonlocal_net/nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024.py'
DETECTION = 'mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py'
VIDEO = 'c2d/c2d_r50-in1k-pre-nl-5blocks_8xb32-8x8x1-100e_kinetics400-rgb.py'
#: Config, and the shape of an input: images, or the frames of a clip.
MODELS = {
    SEGMENTATION: (1, 3, 32, 64),
    'dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py': (1, 3, 32, 64),
    DETECTION: (1, 3, 64, 96),
    VIDEO: (1, 3, 8, 32, 48),
}
#: Of the largest value.
TOLERANCE = 1e-4
models = pytest.mark.parametrize('name', MODELS, ids=lambda name: name.split('/')[0])


def layers(model):
    """From the image to what is decoded into a prediction.

    Of a detector, backbone and neck: its proposals have no fixed number.
    """
    if getattr(model, 'with_neck', False):
        return nn.Sequential(model.backbone, model.neck)
    if hasattr(model, 'decode_head'):
        return nn.Sequential(model.backbone, model.decode_head)
    return nn.Sequential(model.backbone, model.cls_head)


@pytest.fixture(scope='module')
def built():
    """Each model, its input and its outputs."""
    return {}


@pytest.fixture
def case(built, name):
    if name.startswith('c2d'):
        pytest.importorskip('mmaction')
    if name not in built:
        built[name] = build(name)
    return built[name]


def build(name):
    torch.manual_seed(0)
    model = layers(build_model(load_config(str(ROOT / 'configs' / name)))).eval()
    blocks = [module for module in model.modules() if isinstance(module, _NonLocalNd)]
    x = torch.randn(MODELS[name])
    with torch.no_grad():
        without = model(x)
        for block in blocks:  # a new block is an identity
            for parameter in block.parameters():
                parameter.normal_(0, 0.1)
        expected = model(x)
    # Or a graph without the blocks would pass.
    assert difference(without, expected) > 0.05
    return model, x, expected


def difference(actual, expected):
    """Largest difference of an output, relative to its largest value."""
    actual, expected = map(tensors, (actual, expected))
    assert len(actual) == len(expected)
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(actual, expected)
    )


def tensors(outputs):
    if isinstance(outputs, torch.Tensor):
        outputs = [outputs]
    return [torch.as_tensor(output).detach() for output in outputs]


def compare_onnx(case, path, **kwargs):
    model, x, expected = case
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(model, (x,), str(path), input_names=['x'], **kwargs)
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider']
    )
    outputs = session.run(None, {'x': x.numpy()})
    assert difference(outputs, expected) < TOLERANCE


@models
@pytest.mark.parametrize('opset', [11, 17])
def test_onnx(case, opset, tmp_path):
    compare_onnx(case, tmp_path / 'model.onnx', dynamo=False, opset_version=opset)


@pytest.mark.parametrize('name', [DETECTION])
def test_export_and_onnx_of_it(case, tmp_path):
    model, x, expected = case
    program = torch.export.export(model, (x,))
    assert 'nl_plugins' not in str(program.graph)
    assert difference(program.module()(x), expected) < TOLERANCE
    compare_onnx(
        (program, x, expected), tmp_path / 'model.onnx', dynamo=True, opset_version=18
    )


@pytest.mark.parametrize('name', [DETECTION])
def test_compile(case):
    model, x, expected = case
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        assert difference(compiled(x), expected) < TOLERANCE
