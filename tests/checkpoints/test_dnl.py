"""Checkpoints of the DNL paper's code, written out from its modules' names.

And those of MMDetection 2.x, with blocks in the branch of a residual block.
"""

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
        self.block, self.after_conv3 = block and block[0], False
        if block:
            self.add_module(*block)

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        if self.block and self.after_conv3:
            y = getattr(self, self.block)(y)
        y = y + (self.downsample(x) if hasattr(self, 'downsample') else x)
        if self.block and not self.after_conv3:
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
        sizes = (width, width, 2 * width) if deep else (width,)
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
        'dnlnet/dnl-official_r101-d8_4xb2-60k_cityscapes-769x769.py',
        dict(),
    ),
    'NLin': (
        dict(whiten=(2,), temperature=0.05, unary=True),
        'dnlnet/dnl-official-channel_r101-d8_4xb2-60k_cityscapes-769x769.py',
        dict(),
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
    'with an output layer': (
        dict(whiten=(2,), temperature=0.05, unary=True, output=True),
        'dnlnet/dnl_r101-d8_4xb2-40k_cityscapes-512x1024.py',
        dict(
            block=dict(
                gate='scalar',
                output_layer=True,
                projection_cfg=dict(output=dict(bias=False)),
            )
        ),
    ),
    'without a bias': (
        dict(whiten=(2,), temperature=0.05, unary=True),
        'dnlnet/dnl_r101-d8_4xb2-40k_cityscapes-512x1024.py',
        dict(block=dict(gate='scalar', projection_cfg=dict(value=dict(bias=False)))),
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
        dict(stem_channels=2 * width)
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


# Detection -------------------------------------------------------------------


class ActivatedNorm(nn.Module):
    """inplace_abn's norm without an activation: no counter, and ``|weight|``."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))

    def forward(self, x):
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight.abs() + 1e-5, self.bias
        )


class ConvNorm(nn.Module):
    def __init__(self, channels, out, kernel, norm):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        self.bn = norm(out)

    def forward(self, x):
        return self.bn(self.conv(x))


class PlainBlock(nn.Module):
    """MMDetection 1.x's non-local block with ``fixbug=True``."""

    def __init__(self, channels, inner):
        super().__init__()
        for name, sizes in dict(
            g=(channels, inner),
            theta=(channels, inner),
            phi=(channels, inner),
            conv_out=(inner, channels),
        ).items():
            layer = nn.Module()
            layer.conv = nn.Conv2d(*sizes, 1)
            self.add_module(name, layer)

    def forward(self, x):
        query, key, value = (
            layer.conv(x).flatten(2) for layer in (self.theta, self.phi, self.g)
        )
        weights = (query.mT @ key / query.shape[1] ** 0.5).softmax(2)
        return x + self.conv_out.conv((value @ weights.mT).unflatten(2, x.shape[2:]))


class ContextBlock(nn.Module):
    def __init__(self, channels, inner):
        super().__init__()
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.LayerNorm([inner, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
        )

    def forward(self, x):
        weights = self.conv_mask(x).flatten(2).softmax(2)
        return x + self.channel_add_conv((x.flatten(2) @ weights.mT)[..., None])


class SimplifiedBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv_value = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv_mask = nn.Conv2d(channels, 1, 1)

    def forward(self, x):
        weights = self.conv_mask(x).flatten(2).softmax(2)
        return x + (self.conv_value(x).flatten(2) @ weights.mT)[..., None]


class Detector(nn.Module):
    """Mask R-CNN as 1.x names it, with 4 convolutions in the box head."""

    def __init__(self, width, classes, blocks, norm):
        super().__init__()
        self.backbone, self.neck = nn.Module(), nn.Module()
        self.rpn_head, self.bbox_head, self.mask_head = (nn.Module() for _ in range(3))
        self.backbone.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.backbone.bn1 = norm(width)
        for i, stage in enumerate(stages(width, width, False, blocks, norm), start=1):
            self.backbone.add_module(f'layer{i}', stage)
        inner = 8
        self.neck.lateral_convs = nn.ModuleList(
            ConvNorm(4 * width * 2**i, inner, 1, norm) for i in range(4)
        )
        self.neck.fpn_convs = nn.ModuleList(
            ConvNorm(inner, inner, 3, norm) for _ in range(4)
        )
        self.rpn_head.rpn_conv = nn.Conv2d(inner, inner, 3, padding=1)
        self.rpn_head.rpn_cls = nn.Conv2d(inner, 3, 1)
        self.rpn_head.rpn_reg = nn.Conv2d(inner, 12, 1)
        self.bbox_head.shared_convs = nn.ModuleList(
            ConvNorm(inner, inner, 3, norm) for _ in range(4)
        )
        self.bbox_head.shared_fcs = nn.ModuleList([nn.Linear(49 * inner, 16)])
        self.bbox_head.fc_cls = nn.Linear(16, classes + 1)
        self.bbox_head.fc_reg = nn.Linear(16, 4 * (classes + 1))
        self.mask_head.convs = nn.ModuleList(
            ConvNorm(inner, inner, 3, norm) for _ in range(4)
        )
        self.mask_head.upsample = nn.ConvTranspose2d(inner, inner, 2, 2)
        self.mask_head.conv_logits = nn.Conv2d(inner, classes + 1, 1)

    def pyramid(self, x):
        x = self.backbone.bn1(self.backbone.conv1(x)).relu()
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        laterals = []
        for i, lateral in enumerate(self.neck.lateral_convs, start=1):
            x = self.backbone.get_submodule(f'layer{i}')(x)
            laterals.append(lateral(x))
        for i in (3, 2, 1):
            laterals[i - 1] = laterals[i - 1] + nn.functional.interpolate(
                laterals[i], scale_factor=2
            )
        return [conv(x) for conv, x in zip(self.neck.fpn_convs, laterals)]

    def proposals(self, x):
        x = self.rpn_head.rpn_conv(x).relu()
        return self.rpn_head.rpn_cls(x), self.rpn_head.rpn_reg(x)

    def boxes(self, rois):
        """Scores, and boxes of the classes, without the background's."""
        for conv in self.bbox_head.shared_convs:
            rois = conv(rois).relu()
        x = self.bbox_head.shared_fcs[0](rois.flatten(1)).relu()
        scores, boxes = self.bbox_head.fc_cls(x), self.bbox_head.fc_reg(x)
        return torch.cat([scores[:, 1:], scores[:, :1]], 1), boxes[:, 4:]

    def masks(self, rois):
        for conv in self.mask_head.convs:
            rois = conv(rois).relu()
        x = self.mask_head.upsample(rois).relu()
        return self.mask_head.conv_logits(x)[:, 1:]


def dnl(channels):
    block = Block(channels, channels // 4, (2,), temperature=0.05, unary=True)
    return 'nl_gc_block', block


def nl(channels):
    return 'nonlocal_block', PlainBlock(channels, channels // 4)


def gcb(channels):
    return 'context_block', ContextBlock(channels, channels // 4)


def snl(channels):
    return 'context_block', SimplifiedBlock(channels)


#: Config, and the blocks after a stage's residual blocks.
DETECTORS = {
    'r50': (None, {}),
    'r50-nl-c4': (nl, {3: (4,)}),
    'r50-gcb-c4': (gcb, {3: (4,)}),
    'r50-snl-c4': (snl, {3: (4,)}),
    'r50-dnl-c4': (dnl, {3: (4,)}),
    'r50-dnl-c4-c5all': (dnl, {3: (4,), 4: (0, 1, 2)}),
}


@pytest.mark.parametrize('norm', [ActivatedNorm, nn.BatchNorm2d])
@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_compute_what_the_release_does(name, norm, tmp_path):
    pytest.importorskip('mmdet')
    width, classes = 4, 5
    make_block, places = DETECTORS[name]
    blocks = {
        (stage, i): make_block(2 ** (stage + 1) * width)
        for stage, numbers in places.items()
        for i in numbers
    }
    reference = randomize_all(Detector(width, classes, blocks, norm)).eval()
    for module in reference.modules():
        if isinstance(module, ActivatedNorm):
            module.weight.data[::2] *= -1
    content = dict(
        meta=dict(epoch=12),
        state_dict=reference.state_dict(),
        optimizer=dict(state={}, param_groups=[]),
    )
    torch.save(content, tmp_path / 'model.pth')

    init_default_scope('mmdet')
    cfg = Config.fromfile(
        CONFIGS / f'mask_rcnn/mask-rcnn_{name}_fpn_syncbn-4conv1fc_1x_coco.py'
    ).model
    norm_cfg = dict(type='BN')
    cfg.backbone.update(base_channels=width, norm_cfg=norm_cfg, init_cfg=None)
    if blocks:
        # As in the release: before the ReLU that ends a residual block.
        block = cfg.backbone.blocks[0]
        del block['before']
        cfg.backbone.blocks = [
            block
            | dict(
                before=[f'layer{stage}.{i}.relu' for i in numbers],
                in_channels=2 ** (stage + 1) * width,
                per_call=True,
            )
            for stage, numbers in places.items()
        ]
    cfg.neck.update(
        in_channels=[4 * width * 2**i for i in range(4)],
        out_channels=8,
        norm_cfg=norm_cfg,
    )
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.roi_head.bbox_head.update(
        in_channels=8, conv_out_channels=8, fc_out_channels=16, num_classes=classes
    )
    cfg.roi_head.mask_head.update(
        in_channels=8, conv_out_channels=8, num_classes=classes
    )
    cfg.roi_head.bbox_head.norm_cfg = cfg.roi_head.mask_head.norm_cfg = norm_cfg
    model = MODELS.build(cfg).double().eval()
    state_dict, meta, left_out = read_release(f'{tmp_path}/model.pth')
    assert left_out == ['optimizer'] and meta == dict(epoch=12)
    converted = convert(state_dict, model)
    assert converted.keys() == model.state_dict().keys()
    reference.double()
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    rois = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    with torch.no_grad():
        pyramid = model.neck(model.backbone(x))[:4]
        actual = [
            *pyramid,
            *model.rpn_head.forward_single(pyramid[0]),
            *model.roi_head.bbox_head(rois),
            model.roi_head.mask_head(rois),
        ]
        pyramid = reference.pyramid(x)
        expected = [
            *pyramid,
            *reference.proposals(pyramid[0]),
            *reference.boxes(rois),
            reference.masks(rois),
        ]
    for y, z in zip(actual, expected, strict=True):
        assert y.shape == z.shape and relative_error(y, z) < 1e-5


def test_two_blocks_at_one_place_are_refused_by_name(tmp_path):
    keys = [
        'bbox_head.fc_cls.weight',
        'backbone.layer3.4.nl_gc_block.conv_value.weight',
        'backbone.layer3.4.nonlocal_block.g.conv.weight',
        'extra.weight',
    ]
    torch.save(dict.fromkeys(keys, torch.zeros(2)), tmp_path / 'model.pth')
    message = r'DNL-Object-Detection, .* \(2\): .*nonlocal_block.*, extra.weight$'
    with pytest.raises(CheckpointReadError, match=message):
        read_release(f'{tmp_path}/model.pth')


def test_detectors_compute_what_mmdetection_2_does(tmp_path):
    pytest.importorskip('mmdet')
    width = 4
    blocks = {(3, i): ('nonlocal_block', PlainBlock(64, 32)) for i in range(6)}
    reference = randomize_all(Detector(width, 5, blocks, nn.BatchNorm2d)).eval()
    for block in reference.backbone.layer3:
        block.after_conv3 = True
    state = {
        re.sub('^(bbox|mask)_head', r'roi_head.\1_head', key): value
        for key, value in reference.state_dict().items()
        if not re.search('fc_(cls|reg)|conv_logits', key)
    }
    content = dict(meta=dict(mmdet_version='2.28.2'), state_dict=state)
    torch.save(content, tmp_path / 'model.pth')
    init_default_scope('mmdet')
    cfg = Config.fromfile(
        CONFIGS / 'mask_rcnn/mask-rcnn_r50_fpn_syncbn-4conv1fc_1x_coco.py'
    ).model.backbone
    cfg.update(base_channels=width, norm_cfg=dict(type='BN'), init_cfg=None)
    cfg.plugins = [
        dict(
            cfg=dict(type='nl_plugins.NonLocal2d'),
            stages=(False, False, True, False),
            position='after_conv3',
        )
    ]
    model = nn.ModuleDict(dict(backbone=MODELS.build(cfg))).double().eval()
    convert(read_release(f'{tmp_path}/model.pth')[0], model)
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        actual = model.backbone(x)[-1]
        x = reference.double().backbone.bn1(reference.backbone.conv1(x)).relu()
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for i in range(1, 5):
            x = reference.backbone.get_submodule(f'layer{i}')(x)
    assert relative_error(actual, x) < 1e-5
