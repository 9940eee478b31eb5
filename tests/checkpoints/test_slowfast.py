"""Checkpoints of PySlowFast, written out from the names of its modules.

And those of MMAction2 0.x, whose I3D is the same network under other names.
"""

import pickle
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from reference import randomize_all, relative_error
from torch import nn

from nl_plugins.checkpoints.convert import convert
from nl_plugins.checkpoints.releases import read_release
from nl_plugins.errors import CheckpointReadError

CONFIGS = Path(__file__).parents[2] / 'configs'
DEPTHS = (3, 4, 6, 3)
NON_LOCAL = {3: (1, 3), 4: (1, 3, 5)}
WIDTH = 8


class NonLocal(nn.Module):
    def __init__(self, channels, mode):
        super().__init__()
        self.mode, self.pools_last = mode, False
        for name in 'theta', 'phi', 'g':
            self.add_module(f'conv_{name}', nn.Conv3d(channels, channels // 2, 1))
        self.conv_out = nn.Conv3d(channels // 2, channels, 1)
        self.bn = nn.BatchNorm3d(channels)

    def forward(self, x):
        def pool(x):
            return nn.functional.max_pool3d(x, (1, 2, 2))

        query = self.conv_theta(x).flatten(2)
        key, value = (
            pool(layer(x)).flatten(2) if self.pools_last else layer(pool(x)).flatten(2)
            for layer in (self.conv_phi, self.conv_g)
        )
        weights = query.mT @ key
        if self.mode == 'softmax':
            weights = (weights / query.shape[1] ** 0.5).softmax(2)
        else:
            weights = weights / key.shape[2]
        y = (value @ weights.mT).unflatten(2, x.shape[2:])
        return x + self.bn(self.conv_out(y))


class Transform(nn.Module):
    def __init__(self, channels, inner, out, frames, stride):
        super().__init__()
        pad = frames // 2, 0, 0
        self.a = nn.Conv3d(channels, inner, (frames, 1, 1), padding=pad, bias=False)
        self.b = nn.Conv3d(
            inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False
        )
        self.c = nn.Conv3d(inner, out, 1, bias=False)
        self.a_bn, self.b_bn, self.c_bn = map(nn.BatchNorm3d, (inner, inner, out))

    def forward(self, x):
        x = self.a_bn(self.a(x)).relu()
        x = self.b_bn(self.b(x)).relu()
        return self.c_bn(self.c(x))


class Block(nn.Module):
    def __init__(self, channels, inner, out, frames, stride):
        super().__init__()
        if channels != out:
            self.branch1 = nn.Conv3d(channels, out, 1, (1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(out)
        self.branch2 = Transform(channels, inner, out, frames, stride)

    def forward(self, x):
        y = self.branch2(x)
        if hasattr(self, 'branch1'):
            x = self.branch1_bn(self.branch1(x))
        return (x + y).relu()


class Stem(nn.Module):
    def __init__(self, out, frames):
        super().__init__()
        pad = frames // 2, 3, 3
        self.conv = nn.Conv3d(3, out, (frames, 7, 7), (1, 2, 2), pad, bias=False)
        self.bn = nn.BatchNorm3d(out)

    def forward(self, x):
        x = self.bn(self.conv(x)).relu()
        return nn.functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))


class Fuse(nn.Module):
    def __init__(self, channels, alpha):
        super().__init__()
        self.conv_f2s = nn.Conv3d(
            channels, 2 * channels, (5, 1, 1), (alpha, 1, 1), (2, 0, 0), bias=False
        )
        self.bn = nn.BatchNorm3d(2 * channels)

    def forward(self, xs):
        slow, fast = xs
        return [torch.cat([slow, self.bn(self.conv_f2s(fast)).relu()], 1), fast]


class Head(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.projection = nn.Linear(channels, 5)


class PySlowFast(nn.Module):
    """``kernels`` are those in time, of each layer of each pathway."""

    def __init__(self, widths, kernels, mode, pool=1, alpha=None):
        super().__init__()
        self.pool = pool
        self.s1 = nn.Module()
        channels = []
        for p, width in enumerate(widths):
            stem = Stem(width, kernels[p][0])
            self.s1.add_module(f'pathway{p}_stem', stem)
            channels.append(width)
        for s, depth in enumerate(DEPTHS, start=2):
            if alpha:
                self.add_module(f's{s - 1}_fuse', Fuse(channels[1], alpha))
                channels[0] += 2 * channels[1]
            stage = nn.Module()
            self.add_module(f's{s}', stage)
            for p, width in enumerate(widths):
                inner = width * 2 ** (s - 2)
                for i in range(depth):
                    of_stage = kernels[p][s - 1]
                    block = Block(
                        channels[p],
                        inner,
                        4 * inner,
                        of_stage[i % len(of_stage)],
                        2 if i == 0 and s > 2 else 1,
                    )
                    stage.add_module(f'pathway{p}_res{i}', block)
                    channels[p] = 4 * inner
                    if p == 0 and i in NON_LOCAL.get(s, ()):
                        stage.add_module(
                            f'pathway0_nonlocal{i}', NonLocal(4 * inner, mode)
                        )
        self.head = Head(sum(channels))

    def forward(self, xs):
        xs = [self.s1.get_submodule(f'pathway{p}_stem')(x) for p, x in enumerate(xs)]
        for s, depth in enumerate(DEPTHS, start=2):
            if hasattr(self, f's{s - 1}_fuse'):
                xs = self.get_submodule(f's{s - 1}_fuse')(xs)
            blocks = dict(self.get_submodule(f's{s}').named_children())
            for p in range(len(xs)):
                for i in range(depth):
                    for kind in 'res', 'nonlocal':
                        name = f'pathway{p}_{kind}{i}'
                        if name in blocks:
                            xs[p] = blocks[name](xs[p])
            if s == 2:
                xs = [nn.functional.max_pool3d(x, (self.pool, 1, 1)) for x in xs]
        return self.head.projection(torch.cat([x.mean((2, 3, 4)) for x in xs], 1))


I3D = dict(widths=[WIDTH], kernels=[[5, [3], [3, 1], [3, 1], [1, 3]]], pool=2)
C2D = dict(widths=[WIDTH], kernels=[[1, [1], [1], [1], [1]]], pool=2)
SLOW = dict(widths=[WIDTH], kernels=[[1, [1], [1], [3], [3]]])
SLOWFAST = dict(
    widths=[4 * WIDTH, WIDTH // 2],
    kernels=[[1, [1], [1], [3], [3]], [5, [3], [3], [3], [3]]],
    alpha=4,
)

#: How the blocks of our configs are in MMAction2's SlowFast.
SLOWFAST_MODEL = dict(
    type='Recognizer3D',
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3dSlowFast',
        resample_rate=4,
        speed_ratio=4,
        channel_ratio=8,
        slow_pathway=dict(
            type='resnet3d',
            depth=50,
            pretrained=None,
            base_channels=4 * WIDTH,
            lateral=True,
            lateral_norm=True,
            conv1_kernel=(1, 7, 7),
            conv1_stride_t=1,
            pool1_stride_t=1,
            inflate=(0, 0, 1, 1),
        ),
        fast_pathway=dict(
            type='resnet3d',
            depth=50,
            pretrained=None,
            lateral=False,
            base_channels=WIDTH // 2,
            conv1_kernel=(5, 7, 7),
            conv1_stride_t=1,
            pool1_stride_t=1,
        ),
        blocks=[
            dict(
                type='nl_plugins.NonLocal3d',
                mode='dot_product',
                sub_sample='before',
                norm_cfg=dict(type='BN3d'),
                after=[
                    f'slow_path.layer{s - 1}.{i}'
                    for s in NON_LOCAL
                    for i in NON_LOCAL[s]
                ],
            )
        ],
    ),
    cls_head=dict(type='SlowFastHead', in_channels=36 * 4 * WIDTH, num_classes=5),
    data_preprocessor=dict(type='ActionDataPreprocessor'),
)


def config(path, **backbone):
    model = Config.fromfile(CONFIGS / path).model
    model.backbone.update(base_channels=WIDTH, pretrained=None, **backbone)
    model.cls_head.update(in_channels=32 * WIDTH, num_classes=5)
    return model


def i3d(**backbone):
    return config(
        'i3d/i3d_imagenet-pretrained-r50-nl-5blocks_8xb8-8x8x1-100e_kinetics400-rgb.py',
        **backbone,
    )


def slow():
    model = config(
        'slowonly/slowonly_imagenet-pretrained-r50-nl-5blocks_'
        '8xb16-8x8x1-steplr-150e_kinetics400-rgb.py'
    )
    model.backbone.blocks[0].mode = 'dot_product'
    return model


CASES = {
    'I3D': (I3D, 'softmax', i3d),
    'C2D': (C2D, 'softmax', lambda: i3d(conv1_kernel=(1, 7, 7), inflate=(0, 0, 0, 0))),
    'Slow': (SLOW, 'dot_product', slow),
    'SlowFast': (SLOWFAST, 'dot_product', lambda: SLOWFAST_MODEL),
}


def caffe2_name(key):
    """The blob of a parameter, as the release names it; None without one."""
    name, kind = key.rsplit('.', 1)
    if kind == 'num_batches_tracked':
        return None
    letters = (
        dict(weight='s', bias='b', running_mean='rm', running_var='riv')
        if name.endswith('bn')
        else dict(weight='w', bias='b')
    )
    fast = 't_' if 'pathway1' in name else ''
    if name == 'head.projection':
        name = 'pred'
    elif 'fuse' in name:
        stage = int(name[1])
        last = f't_res{stage}_{DEPTHS[stage - 2] - 1}_branch2c_bn'
        name = (last if stage > 1 else 't_pool1') + '_subsample'
        name += '_bn' if key.split('.')[1] == 'bn' else ''
    elif 'stem' in name:
        name = f'{fast}res_conv1_bn' if name.endswith('bn') else f'{fast}conv1'
    elif 'nonlocal' in name:
        stage, block, layer = re.fullmatch(
            r's(\d)\.pathway0_nonlocal(\d+)\.(?:conv_)?(\w+)', name
        ).groups()
        name = f'nonlocal_conv{stage}_{block}_{layer}'
    else:
        stage, block, branch, layer, norm = re.fullmatch(
            r's(\d)\.pathway\d_res(\d+)\.(branch\d)\.?([abc]?)(_bn)?', name
        ).groups()
        name = f'{fast}res{stage}_{block}_{branch}{layer}{norm or ""}'
    return f'{name}_{letters[kind]}'


def write(model, path):
    """Write a file as PySlowFast does, with state of the training."""
    if path.suffix == '.pyth':
        content = dict(
            epoch=3,
            model_state=model.state_dict(),
            optimizer_state=dict(state={}, param_groups=[dict(lr=0.1)]),
            cfg='TRAIN: {}',
        )
        torch.save(content, path)
        return ['epoch', 'optimizer_state', 'cfg']
    blobs = {
        caffe2_name(key): value.numpy()
        for key, value in model.state_dict().items()
        if caffe2_name(key)
    }
    blobs |= dict(lr=0.1, conv1_w_momentum=blobs['conv1_w'])
    path.write_bytes(pickle.dumps(dict(blobs=blobs), protocol=2))
    return ['lr', 'conv1_w_momentum']


@pytest.mark.parametrize('suffix', ['pkl', 'pyth'])
@pytest.mark.parametrize('name', CASES)
def test_recognizers_compute_what_pyslowfast_does(name, suffix, tmp_path):
    pytest.importorskip('mmaction')
    options, mode, make_config = CASES[name]
    reference = PySlowFast(mode=mode, **options).eval()
    randomize_all(reference, attention=0.3 if mode == 'softmax' else 0.03)
    left_out = write(reference, tmp_path / f'model.{suffix}')
    init_default_scope('mmaction')
    model = MODELS.build(make_config()).double().eval()
    state_dict, _, others = read_release(f'{tmp_path}/model.{suffix}')
    assert others == left_out
    converted = convert(state_dict, model)
    assert converted.keys() == model.state_dict().keys()
    x = torch.randn(1, 3, 8, 64, 64, dtype=torch.float64)
    inputs = [x] if len(options['widths']) == 1 else [x[:, :, ::4], x]
    with torch.no_grad():
        scores = model.cls_head(model.backbone(x))
        expected = reference.double()(inputs)
    assert relative_error(scores, expected) < 1e-5


def test_other_models_of_pyslowfast_are_refused_by_name(tmp_path):
    state = {
        key: torch.zeros(1)
        for key in ('s1.pathway0_stem.conv.weight', 's5.head.se.fc1.weight')
    }
    torch.save(dict(model_state=state), tmp_path / 'model.pyth')
    with pytest.raises(
        CheckpointReadError, match=r'PySlowFast, .* \(1\): s5.head.se.fc1.weight$'
    ):
        read_release(f'{tmp_path}/model.pyth')


# MMAction2 0.x ---------------------------------------------------------------


def mmaction_name(key):
    """The key in MMAction2 0.x, with pooling after key and value."""
    if key.startswith('head'):
        return key.replace('head.projection', 'cls_head.fc_cls')
    stage, layer = re.fullmatch(r's(\d)\.pathway0_(.*)', key).groups()
    name = f'backbone.layer{int(stage) - 1}.'
    if layer.startswith('stem'):
        return f'backbone.conv1{layer[4:]}'
    if layer.startswith('nonlocal'):
        block, layer, kind = re.fullmatch(
            r'nonlocal(\d+)\.(\w+)\.(\w+)', layer
        ).groups()
        layer = dict(
            conv_theta='theta.conv',
            conv_phi='phi.0.conv',
            conv_g='g.0.conv',
            conv_out='conv_out.conv',
            bn='conv_out.bn',
        )[layer]
        return f'{name}{block}.non_local_block.{layer}.{kind}'
    block, branch, kind = re.fullmatch(
        r'res(\d+)\.branch(1|2\.[abc])(.*)', layer
    ).groups()
    branch = {'1': 'downsample', '2.a': 'conv1', '2.b': 'conv2', '2.c': 'conv3'}[branch]
    kind = kind.removeprefix('_') if '_bn' in kind else f'conv{kind}'
    return f'{name}{block}.{branch}.{kind}'


def test_recognizers_compute_what_mmaction2_0_does(tmp_path):
    pytest.importorskip('mmaction')
    reference = PySlowFast(mode='softmax', **I3D).eval()
    randomize_all(reference)
    for module in reference.modules():
        if isinstance(module, NonLocal):
            module.pools_last, module.conv_out.bias = True, None
    state = {mmaction_name(key): v for key, v in reference.state_dict().items()}
    content = dict(
        meta=dict(mmaction_version='0.24.1', epoch=100, config='model = dict()'),
        state_dict=state,
        optimizer=dict(state={}, param_groups=[]),
    )
    torch.save(content, tmp_path / 'model.pth')
    init_default_scope('mmaction')
    cfg = i3d()
    cfg.backbone.blocks[0].sub_sample = True
    model = MODELS.build(cfg).double().eval()
    state_dict, meta, left_out = read_release(f'{tmp_path}/model.pth')
    assert meta == content['meta'] and left_out == ['optimizer']
    converted = convert(state_dict, model)
    assert converted.keys() == model.state_dict().keys()
    x = torch.randn(1, 3, 8, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        scores = model.cls_head(model.backbone(x))
        expected = reference.double()([x])
    assert relative_error(scores, expected) < 1e-5
