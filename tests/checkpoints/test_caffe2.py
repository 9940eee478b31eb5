"""Checkpoints of the paper's video code, whose names and shapes are known.

The arrays are random; what they compute is written out from the names.
"""

import io
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from reference import relative_error

from nl_plugins.checkpoints import caffe2
from nl_plugins.checkpoints.convert import convert
from nl_plugins.checkpoints.releases import read_release
from nl_plugins.errors import CheckpointReadError

BLOCKS = (3, 4, 6, 3)
WIDTH = 4
# temporal kernels of 3, as in the release's I3D
INFLATED = ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))
NON_LOCAL = ('conv3_1', 'conv3_3', 'conv4_1', 'conv4_3', 'conv4_5')
PLACES = [f'layer{int(n[4]) - 1}.{n[6]}' for n in NON_LOCAL]
MODEL = dict(
    type='Recognizer3D',
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3d',
        depth=50,
        base_channels=WIDTH,
        conv1_kernel=(5, 7, 7),
        conv1_stride_t=2,
        pool1_stride_t=2,
        inflate=INFLATED,
        zero_init_residual=False,
        blocks=[
            dict(
                type='nl_plugins.NonLocal3d',
                after=PLACES,
                sub_sample='before',
                norm_cfg=dict(type='BN3d'),
            )
        ],
    ),
    cls_head=dict(type='I3DHead', in_channels=32 * WIDTH, num_classes=5),
    data_preprocessor=dict(type='ActionDataPreprocessor'),
)


@pytest.fixture(params=['batch norm', 'affine'])
def blobs(request):
    """What a file of the release's I3D holds, with four channels for 64."""
    return sample_blobs(request.param, WIDTH, 5, INFLATED)


def sample_blobs(kind, width, kernel, inflate):
    rng = np.random.default_rng(0)
    found = {}

    def norm(name, channels):
        found[f'{name}_s'] = rng.uniform(0.5, 1.5, channels)
        found[f'{name}_b'] = rng.normal(0, 0.1, channels)
        if kind == 'batch norm':
            found[f'{name}_rm'] = rng.normal(0, 0.1, channels)
            found[f'{name}_riv'] = rng.uniform(0.5, 1.5, channels)

    def convolution(name, out, channels, *kernel):
        found[f'{name}_w'] = rng.normal(
            0, (channels * np.prod(kernel)) ** -0.5, (out, channels, *kernel)
        )

    convolution('conv1', width, 3, kernel, 7, 7)
    norm('res_conv1_bn', width)
    channels = width
    for stage, (number, inflated) in enumerate(zip(BLOCKS, inflate)):
        inner = width * 2**stage
        for block in range(number):
            name = f'res{stage + 2}_{block}'
            if block == 0:
                convolution(f'{name}_branch1', 4 * inner, channels, 1, 1, 1)
                norm(f'{name}_branch1_bn', 4 * inner)
            convolution(
                f'{name}_branch2a', inner, channels, 3 if inflated[block] else 1, 1, 1
            )
            convolution(f'{name}_branch2b', inner, inner, 1, 3, 3)
            convolution(f'{name}_branch2c', 4 * inner, inner, 1, 1, 1)
            for branch, out in (('a', inner), ('b', inner), ('c', 4 * inner)):
                norm(f'{name}_branch2{branch}_bn', out)
            channels = 4 * inner
            name = f'nonlocal_conv{stage + 2}_{block}'
            if name[9:] in NON_LOCAL:
                for layer in 'theta', 'phi', 'g':
                    convolution(f'{name}_{layer}', channels // 2, channels, 1, 1, 1)
                    found[f'{name}_{layer}_b'] = rng.normal(0, 0.1, channels // 2)
                convolution(f'{name}_out', channels, channels // 2, 1, 1, 1)
                found[f'{name}_out_b'] = rng.normal(0, 0.1, channels)
                if kind == 'batch norm':
                    norm(f'{name}_bn', channels)
    found['pred_w'] = rng.normal(0, 0.1, (5, channels, 1, 1, 1))
    found['pred_b'] = rng.normal(0, 0.1, 5)
    found |= dict(lr=np.float32(0.1), model_iter=7, pred_w_momentum=found['pred_w'])
    return {
        name: value.astype(np.float32) if isinstance(value, np.ndarray) else value
        for name, value in found.items()
    }


def forward(blobs, x, stride=1, padding=0, frames=1):
    """The network of the release, in float64, from the names alone.

    With the stride in time of its first layer, and the padding and the frames
    of the pooling after it.
    """
    blobs = {
        name: torch.tensor(value, dtype=torch.float64) for name, value in blobs.items()
    }

    def norm(x, name):
        scale, shift = blobs[f'{name}_s'], blobs[f'{name}_b']
        if f'{name}_rm' in blobs:
            deviation = (blobs[f'{name}_riv'] + 1e-5).sqrt()
            shift = shift - scale * blobs[f'{name}_rm'] / deviation
            scale = scale / deviation
        return (x * scale[:, None, None, None]) + shift[:, None, None, None]

    def convolve(x, name, *stride):
        weight = blobs[f'{name}_w']
        padding = [k // 2 for k in weight.shape[2:]]
        return F.conv3d(x, weight, blobs.get(f'{name}_b'), stride or 1, padding)

    x = norm(convolve(x, 'conv1', stride, 2, 2), 'res_conv1_bn').relu()
    x = F.max_pool3d(x, (frames, 3, 3), (stride, 2, 2), (0, padding, padding))
    for stage, number in enumerate(BLOCKS, start=2):
        for block in range(number):
            name = f'res{stage}_{block}'
            stride = (1, 2, 2) if block == 0 and stage > 2 else (1, 1, 1)
            shortcut = x
            if block == 0:
                shortcut = norm(
                    convolve(x, f'{name}_branch1', *stride), f'{name}_branch1_bn'
                )
            for branch, step in (('a', (1, 1, 1)), ('b', stride), ('c', (1, 1, 1))):
                x = norm(
                    convolve(x, f'{name}_branch2{branch}', *step),
                    f'{name}_branch2{branch}_bn',
                )
                if branch != 'c':
                    x = x.relu()
            x = (x + shortcut).relu()
            name = f'nonlocal_conv{stage}_{block}'
            if f'{name}_g_w' in blobs:
                pooled = F.max_pool3d(x, (1, 2, 2))
                theta = convolve(x, f'{name}_theta').flatten(2)
                phi = convolve(pooled, f'{name}_phi').flatten(2)
                g = convolve(pooled, f'{name}_g').flatten(2)
                p = (theta.mT @ phi / theta.shape[1] ** 0.5).softmax(2)
                y = convolve(
                    (g @ p.mT).reshape(*theta.shape[:2], *x.shape[2:]), f'{name}_out'
                )
                x = x + (norm(y, f'{name}_bn') if f'{name}_bn_s' in blobs else y)
        if stage == 2:
            x = F.max_pool3d(x, (2, 1, 1))
    return F.conv3d(
        x.mean((2, 3, 4), keepdim=True), blobs['pred_w'], blobs['pred_b']
    ).flatten(1)


class Python2Pickler(pickle._Pickler):
    """Writes strings and bytes as Python 2 did, whose str was both."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_str(self, value):
        if isinstance(value, str):
            value = value.encode('latin1')
        self.write(pickle.BINSTRING + struct.pack('<i', len(value)) + value)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_str


def python2_pickle(content):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def recognizer():
    pytest.importorskip('mmaction')
    init_default_scope('mmaction')
    model = MODELS.build(MODEL)
    model.train(False)
    return model


def test_recognizer_computes_what_the_release_does(blobs, tmp_path):
    path = tmp_path / 'model.pkl'
    path.write_bytes(python2_pickle(dict(blobs=blobs)))
    state_dict, _, _ = read_release(str(path))
    model = recognizer()
    convert(state_dict, model)
    x = torch.randn(2, 3, 16, 64, 64)
    with torch.no_grad():
        scores = model.cls_head(model.backbone(x))
    # MMAction2 pads this pooling, the release does not.
    expected = forward(blobs, x.double(), stride=2, padding=1)
    assert relative_error(scores, expected) < 1e-5


@pytest.mark.parametrize(
    'run, frames, options',
    [
        # MMAction2's C2D has the pooling of the release.
        ('8xb32-8x8x1', 8, {}),
        # ResNet3d pads it; it spans two frames, as that of the release.
        ('8xb8-32x2x1', 32, dict(stride=2, padding=1, frames=2)),
    ],
)
def test_c2d_as_it_is(run, frames, options, tmp_path):
    pytest.importorskip('mmaction')
    blobs = sample_blobs('batch norm', 64, 1, [[0] * n for n in BLOCKS])
    init_default_scope('mmaction')
    cfg = Config.fromfile(
        Path(__file__).parents[2]
        / 'configs/c2d'
        / f'c2d_r50-in1k-pre-nl-5blocks_{run}-100e_kinetics400-rgb.py'
    )
    cfg.model.cls_head.num_classes = 5
    model = MODELS.build(cfg.model)
    model.train(False)
    (tmp_path / 'model.pkl').write_bytes(python2_pickle(blobs))
    state_dict, _, left_out = read_release(f'{tmp_path}/model.pkl')
    assert left_out == ['lr', 'model_iter', 'pred_w_momentum']
    convert(state_dict, model)
    x = torch.randn(1, 3, frames, 64, 64, dtype=torch.float64)
    model.double()
    with torch.no_grad():
        scores = model.cls_head(model.backbone(x))
    assert relative_error(scores, forward(blobs, x, **options)) < 1e-7


def test_tool_converts_a_file(blobs, load_tool, tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmaction')
    (tmp_path / 'model.pkl').write_bytes(python2_pickle(blobs))
    (tmp_path / 'config.py').write_text(
        "default_scope = 'mmaction'\n"
        "custom_imports = dict(imports=['nl_plugins'])\n"
        f'model = {MODEL | dict(cls_head=MODEL["cls_head"] | dict(num_classes=7))!r}\n'
    )
    tool = load_tool('convert_checkpoint')
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'convert_checkpoint.py',
            f'{tmp_path}/model.pkl',
            f'{tmp_path}/config.py',
            f'{tmp_path}/new/model.pth',
            '--cfg-options',
            'model.cls_head.num_classes=5',
        ],
    )
    tool.main()
    first, second = capsys.readouterr().out.splitlines()
    assert first == 'left out (3): lr, model_iter, pred_w_momentum'
    assert second.startswith(f'written: {tmp_path}/new/model.pth (')
    saved = torch.load(tmp_path / 'new/model.pth')['state_dict']
    model = recognizer()
    convert(read_release(f'{tmp_path}/model.pkl')[0], model)
    assert saved.keys() == model.state_dict().keys()
    assert all(
        torch.equal(saved[key], value) for key, value in model.state_dict().items()
    )
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'convert_checkpoint.py',
            f'{tmp_path}/nothing.pkl',
            f'{tmp_path}/config.py',
            'out',
        ],
    )
    with pytest.raises(SystemExit, match='there is no checkpoint'):
        tool.main()


def test_unknown_parameters_are_named(tmp_path):
    blobs = dict.fromkeys(['conv1_w', 'res6_0_branch2a_w', 'b_w'], np.zeros(1))
    (tmp_path / 'model.pkl').write_bytes(pickle.dumps(blobs))
    with pytest.raises(
        CheckpointReadError, match=r'has \(2\): res6_0_branch2a_w, b_w$'
    ):
        read_release(f'{tmp_path}/model.pkl')


class Evil:
    def __reduce__(self):
        return print, ('code has run',)


@pytest.mark.parametrize(
    'content, message',
    [
        (pickle.dumps(dict(a=Evil())), 'it holds a builtins.print'),
        (pickle.dumps({7: 8}), 'no pickled dict'),
        (pickle.dumps([1, 2]), 'no pickled dict'),
        (b'no pickle at all', 'no pickled dict'),
        (b'', 'no pickled dict'),
    ],
)
def test_other_files_are_refused(content, message, tmp_path, capsys):
    (tmp_path / 'model.pkl').write_bytes(content)
    with pytest.raises(CheckpointReadError, match=message):
        caffe2.read_blobs(tmp_path / 'model.pkl')
    assert not capsys.readouterr().out
