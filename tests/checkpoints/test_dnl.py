"""Checkpoints of the DNL paper's code, written out from its modules' names."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from reference import randomize_all, relative_error
from torch import nn

from nl_plugins.checkpoints.convert import convert
from nl_plugins.checkpoints.releases import read_release

CONFIGS = Path(__file__).parents[2] / 'configs'


class Block(nn.Module):
    """The block of both repositories.

    ``whiten`` lists what the means of query and key are taken over.
    """

    def __init__(
        self,
        channels,
        planes,
        whiten=(),
        temperature=1.0,
        scaled=True,
        unary=False,
        output=False,
    ):
        super().__init__()
        self.conv_query = nn.Conv2d(channels, planes, 1)
        self.conv_key = nn.Conv2d(channels, planes, 1)
        if output:
            self.conv_value = nn.Conv2d(channels, planes, 1)
            self.conv_out = nn.Conv2d(planes, channels, 1, bias=False)
            self.out_bn = nn.BatchNorm2d(channels)
        else:
            self.conv_value = nn.Conv2d(channels, channels, 1, bias=False)
        if unary:
            self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.whiten = whiten
        self.factor = (planes**-0.5 if scaled else 1) / temperature

    def forward(self, x):
        query, key, value = (
            layer(x).flatten(2)
            for layer in (self.conv_query, self.conv_key, self.conv_value)
        )
        if self.whiten:
            query = query - query.mean(self.whiten, keepdim=True)
            key = key - key.mean(self.whiten, keepdim=True)
        weights = (self.factor * query.mT @ key).softmax(2)
        y = self.gamma * (value @ weights.mT)
        if hasattr(self, 'conv_mask'):
            y = y + value @ self.conv_mask(x).flatten(2).softmax(2).mT
        y = y.unflatten(2, x.shape[2:])
        if hasattr(self, 'conv_out'):
            y = self.out_bn(self.conv_out(y))
        return x + y


class Residual(nn.Module):
    """A residual block, with a block before its last ReLU."""

    def __init__(self, channels, planes, stride, dilation, block=None, norm=None):
        super().__init__()
        norm = norm or nn.BatchNorm2d
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.conv2 = nn.Conv2d(
            planes, planes, 3, stride, dilation, dilation, bias=False
        )
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = norm(planes), norm(planes), norm(4 * planes)
        if channels != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * planes, 1, stride, bias=False),
                norm(4 * planes),
            )
        self.block = block and block[0]
        if block:
            self.add_module(*block)

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        y = y + (self.downsample(x) if hasattr(self, 'downsample') else x)
        if self.block:
            y = getattr(self, self.block)(y)
        return y.relu()


def stages(width, channels, dilated, blocks=None, norm=None):
    """layer1 to layer4 of ResNet-50, dilated as for a stride of 8."""
    for stage, depth in enumerate((3, 4, 6, 3)):
        planes = width * 2**stage
        layers = []
        for i in range(depth):
            stride, dilation = (2 if i == 0 and stage else 1), 1
            if dilated and stage > 1:
                stride, dilation = 1, 2 ** (stage - 1) // (2 if i == 0 else 1)
            block = (blocks or {}).get((stage + 1, i))
            layers.append(Residual(channels, planes, stride, dilation, block, norm))
            channels = 4 * planes
        yield nn.Sequential(*layers)


# Segmentation ----------------------------------------------------------------


def bn_relu(channels):
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


class Backbone(nn.Module):
    def __init__(self, width, deep):
        super().__init__()
        layers, channels = {}, 3
        sizes = (2 * width, 2 * width, 4 * width) if deep else (width,)
        for i, out in enumerate(sizes, start=1):
            stride = 2 if i == 1 else 1
            kernel, padding = (3, 1) if deep else (7, 3)
            layers[f'conv{i}'] = nn.Conv2d(
                channels, out, kernel, stride, padding, bias=False
            )
            layers[f'bn{i}'] = nn.BatchNorm2d(out)
            layers[f'relu{i}'] = nn.ReLU()
            channels = out
        self.prefix = nn.Sequential()
        for name, layer in layers.items():
            self.prefix.add_module(name, layer)
        for i, stage in enumerate(stages(width, channels, dilated=True), start=1):
            self.add_module(f'layer{i}', stage)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.prefix(x), 3, 2, 1, ceil_mode=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return x, self.layer4(x)


class Head(nn.Module):
    def __init__(self, channels, out, block):
        super().__init__()
        inner = channels // 4
        self.conva = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1, bias=False), bn_relu(inner)
        )
        self.ctb = Block(inner, inner // 2, **block)
        self.convb = nn.Sequential(
            nn.Conv2d(inner, inner, 3, padding=1, bias=False), bn_relu(inner)
        )
        self.bottleneck = nn.Sequential(
            nn.Conv2d(channels + inner, inner, 3, padding=1, bias=False),
            bn_relu(inner),
            nn.Dropout2d(0.1),
            nn.Conv2d(inner, out, 1),
        )

    def forward(self, x):
        y = self.convb(self.ctb(self.conva(x)))
        return self.bottleneck(torch.cat([x, y], 1))


class Auxiliary(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.bn_relu = bn_relu(out)

    def forward(self, x):
        return self.bn_relu(self.conv(x))


class Segmentor(nn.Module):
    def __init__(self, width, deep, block):
        super().__init__()
        self.backbone = Backbone(width, deep)
        self.dsn = nn.Sequential(
            Auxiliary(16 * width, 8 * width),
            nn.Dropout2d(0.1),
            nn.Conv2d(8 * width, 19, 1),
        )
        self.nlm = Head(32 * width, 19, block)

    def forward(self, x):
        auxiliary, x = self.backbone(x)
        return self.nlm(x), self.dsn(auxiliary)


#: Blocks of the release's configs, and the options of our heads.
HEADS = {
    'NLnowd_ln': (
        dict(whiten=(1, 2), scaled=False, unary=True),
        'dnlnet/dnl-layer_r101-d8_4xb2-40k_cityscapes-512x1024.py',
        dict(block=dict(whiten='layer', gate='scalar')),
    ),
    'NLin': (
        dict(whiten=(2,), temperature=0.05, unary=True),
        'dnlnet/dnl_r101-d8_4xb2-40k_cityscapes-512x1024.py',
        dict(block=dict(gate='scalar')),
    ),
    'NLin_nogc': (
        dict(whiten=(2,), temperature=0.05),
        'dnlnet/dnl_r101-d8_4xb2-40k_cityscapes-512x1024.py',
        dict(block=dict(gate='scalar', terms=('pairwise',))),
    ),
    'NL': (
        dict(),
        'nonlocal_net/nonlocal_r101-d8_4xb2-40k_cityscapes-512x1024.py',
        dict(block=dict(gate='scalar')),
    ),
    'NL_small': (
        dict(output=True),
        'nonlocal_net/nonlocal_r101-d8_4xb2-40k_cityscapes-512x1024.py',
        dict(),
    ),
}


@pytest.mark.parametrize('deep', [True, False])
@pytest.mark.parametrize('name', HEADS)
def test_segmentors_compute_what_the_release_does(name, deep, tmp_path):
    width = 4
    options, path, head = HEADS[name]
    reference = randomize_all(Segmentor(width, deep, options)).eval()
    if not name.startswith('NLnowd'):
        reference = nn.DataParallel(reference)  # its names begin with 'module.'
    content = dict(
        config_dict=dict(task='seg'),
        state_dict=reference.state_dict(),
        runner_state=dict(iters=60000),
    )
    torch.save(content, tmp_path / 'model.pth')

    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIGS / path).model
    cfg.pretrained = None
    norm_cfg = dict(type='BN')
    cfg.backbone.update(depth=50, base_channels=width, norm_cfg=norm_cfg)
    cfg.backbone.update(
        dict(stem_channels=4 * width)
        if deep
        else dict(type='ResNet', stem_channels=width)
    )
    cfg.decode_head.update(
        in_channels=32 * width, channels=8 * width, norm_cfg=norm_cfg, **head
    )
    cfg.auxiliary_head.update(
        in_channels=16 * width, channels=8 * width, norm_cfg=norm_cfg
    )
    model = MODELS.build(cfg).double().eval()
    state_dict, _, left_out = read_release(f'{tmp_path}/model.pth')
    assert left_out == ['config_dict', 'runner_state']
    converted = convert(state_dict, model)
    assert converted.keys() == model.state_dict().keys()
    x = torch.randn(1, 3, 65, 97, dtype=torch.float64)
    reference.double()
    with torch.no_grad():
        features = model.backbone(x)
        actual = model.decode_head(features), model.auxiliary_head(features)
        expected = getattr(reference, 'module', reference)(x)
    for y, z in zip(actual, expected, strict=True):
        assert relative_error(y, z) < 1e-5
