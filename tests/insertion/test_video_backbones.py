"""Blocks in the backbones of MMAction2."""

import re

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

NL3D = 'nl_plugins.NonLocal3d'
FIVE = ['layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5']
PATHWAYS = dict(
    slow_pathway=dict(
        type='resnet3d',
        depth=50,
        lateral=True,
        base_channels=16,
        conv1_kernel=(1, 7, 7),
        dilations=(1, 1, 1, 1),
        conv1_stride_t=1,
        pool1_stride_t=1,
        inflate=(0, 0, 1, 1),
    ),
    fast_pathway=dict(
        type='resnet3d',
        depth=50,
        lateral=False,
        base_channels=2,
        conv1_kernel=(5, 7, 7),
        conv1_stride_t=1,
        pool1_stride_t=1,
    ),
)
BACKBONES = {
    'ResNet3d': (
        dict(type='ResNet3d', depth=50, base_channels=8),
        [dict(type=NL3D, after=FIVE)],
        (2, 3, 8, 32, 32),
    ),
    'SlowOnly': (
        dict(type='ResNet3dSlowOnly', depth=50, base_channels=8, lateral=False),
        [dict(type=NL3D, after=FIVE)],
        (2, 3, 4, 32, 32),
    ),
    'SlowFast': (
        dict(type='ResNet3dSlowFast', **PATHWAYS),
        [
            dict(
                type=NL3D,
                after=[
                    f'{path}_path.{place}'
                    for path in ('slow', 'fast')
                    for place in FIVE
                ],
            )
        ],
        (1, 3, 32, 32, 32),
    ),
    'C2D': (
        dict(type='C2D', depth=18),
        [
            dict(type=NL3D, num_frames=8, after='layer1.-1'),
            dict(type=NL3D, num_frames=4, after='layer3.0'),
        ],
        (2, 3, 8, 32, 32),
    ),
    'TSM': (
        dict(type='ResNetTSM', depth=18, num_segments=4, pretrained2d=False),
        [dict(type=NL3D, num_frames=4, after=['layer2.0', 'layer3.1'])],
        (8, 3, 32, 32),
    ),
    'TSN': (
        dict(type='ResNet', depth=18),
        [dict(type=NL3D, num_frames=4, axes='time', before='layer4.0')],
        (8, 3, 32, 32),
    ),
}


def build(cfg, blocks=()):
    pytest.importorskip('mmaction')
    init_default_scope('mmaction')
    if blocks:
        cfg = cfg | dict(type='nl_plugins.WithBlocks', base=cfg['type'], blocks=blocks)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def tensors(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


@pytest.mark.parametrize('name', BACKBONES)
def test_from_scratch_a_backbone_starts_as_without_blocks(name):
    cfg, blocks, shape = BACKBONES[name]
    model, plain = build(cfg, blocks), build(cfg)
    plain.load_state_dict(model.state_dict(), strict=False)
    inserted = [b for n, b in model.named_modules() if n.endswith('non_local_block')]
    assert len(inserted) == sum(
        len(b['after']) if isinstance(b.get('after'), list) else 1 for b in blocks
    )
    for backbone in model, plain:
        backbone.train(False)  # eval() of MMAction2 returns nothing
    x = torch.randn(shape)
    with torch.no_grad():
        for actual, expected in zip(tensors(model(x)), tensors(plain(x))):
            assert torch.equal(actual, expected)
        # and once they are trained, they count
        for block in inserted:
            torch.nn.init.normal_(block.conv_out.conv.weight)
        changed = tensors(model(x))
    assert all(not torch.equal(a, e) for a, e in zip(changed, tensors(plain(x))))


def test_pretrained_weights_are_inflated_as_without_blocks(tmp_path, caplog):
    cfg = dict(type='ResNet3d', depth=50, base_channels=8, conv1_kernel=(3, 7, 7))
    # A 2D checkpoint with the names of torchvision, of the same widths.
    two = {}
    for key, value in build(cfg).state_dict().items():
        conv = key.endswith('conv.weight')
        key = re.sub(r'downsample\.conv', 'downsample.0', key)
        key = re.sub(r'downsample\.bn', 'downsample.1', key)
        key = re.sub(r'conv(\d)\.conv', r'conv\1', key)
        key = re.sub(r'conv(\d)\.bn', r'bn\1', key)
        two[key] = torch.randn_like(value[:, :, 0] if conv else value.float())
    torch.save(two, tmp_path / 'r50.pth')
    cfg |= dict(pretrained=str(tmp_path / 'r50.pth'), pretrained2d=True)
    model = build(cfg, [dict(type=NL3D, norm_cfg=dict(type='BN3d'), after=FIVE)])
    plain = build(cfg)
    state = model.state_dict()
    for key, value in plain.state_dict().items():
        assert torch.equal(state[key], value), key
    # They are those of the file: a kernel in time sums up to the 2D one.
    torch.testing.assert_close(state['conv1.conv.weight'].sum(2), two['conv1.weight'])
    for place in FIVE:
        block = model.get_submodule(place).non_local_block
        x = torch.randn(1, block.in_channels, 2, 3, 3)
        assert torch.equal(block.train(False)(x), x)
        deviation = block.theta.conv.weight.detach().std()
        assert deviation == pytest.approx(0.01, rel=0.2)


def test_frames_that_do_not_fit_say_where_to_look():
    cfg, blocks, _ = BACKBONES['C2D']
    model = build(cfg, [dict(type=NL3D, num_frames=8, after='layer3.0')])
    with pytest.raises(
        ValueError, match='num_frames=8 .* batch of 4 images.*C2D halves it'
    ):
        model(torch.randn(1, 3, 8, 32, 32))


@pytest.mark.parametrize('name, views', [('ResNet3d', 3), ('C2D', 6), ('TSM', 2)])
def test_views_of_a_test_are_clips_of_their_own(name, views):
    # 10 clips x 3 crops come as one batch
    cfg, blocks, shape = BACKBONES[name]
    model = build(cfg, blocks)
    for module in model.modules():
        if hasattr(module, 'conv_out'):
            torch.nn.init.normal_(module.conv_out.conv.weight)
    model.train(False)
    frames = shape[0] // 2 if name == 'TSM' else 1
    x = torch.randn(views * frames, *shape[1:])
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(v) for v in x.split(frames)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
