"""Parameters that move between models which compute the same."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from reference import randomize, relative_error

from nl_plugins.checkpoints.convert import convert
from nl_plugins.errors import CheckpointMismatchError

NON_LOCAL = dict(sub_sample=True, norm_cfg=dict(type='BN3d'))
BLOCK = dict(type='nl_plugins.NonLocal3d', **NON_LOCAL)
RESNET3D = dict(
    type='ResNet3d', depth=50, base_channels=8, conv1_kernel=(3, 7, 7), norm_eval=False
)
TSM = dict(type='ResNetTSM', depth=50, num_segments=4)
STAGES = ((0, 0, 0), (0, 1, 0, 1), (0, 1, 0, 1, 0, 1), (0, 0, 0))
PLACES = [f'layer2.{i}' for i in (1, 3)] + [f'layer3.{i}' for i in (1, 3, 5)]


def build(base, *blocks, **kwargs):
    pytest.importorskip('mmaction')
    init_default_scope('mmaction')
    cfg = base | kwargs
    if blocks:
        cfg |= dict(
            type='nl_plugins.WithBlocks', base=base['type'], blocks=list(blocks)
        )
    model = MODELS.build(cfg)
    randomize(model, 0.1)
    for name, buffer in sorted(model.named_buffers()):
        if 'running' in name:
            buffer.uniform_(0.5, 1)
    model.train(False)
    return model


def upstream(base):
    return build(base, non_local=STAGES, non_local_cfg=NON_LOCAL)


def assert_same_outputs(model, other, x):
    with torch.no_grad():
        assert relative_error(model(x), other(x)) < 1e-5


@pytest.mark.parametrize(
    'block',
    [
        dict(BLOCK, after=PLACES),
        # the gaps before the following residual blocks, and the last one
        dict(BLOCK, before=['layer2.2', 'layer3.2', 'layer3.4']),
    ],
)
def test_resnet3d(block):
    source = upstream(RESNET3D)
    blocks = [block]
    if 'before' in block:
        blocks.append(dict(BLOCK, after=['layer2.3', 'layer3.5']))
    target = build(RESNET3D, *blocks)
    x = torch.randn(1, 3, 4, 32, 32)
    for model in source, target:
        torch.nn.init.normal_(model.conv1.conv.weight)
    with torch.no_grad():
        assert relative_error(target(x), source(x)) > 1e-2
    state_dict = source.state_dict()
    converted = convert(state_dict, target)
    assert converted.keys() == target.state_dict().keys()
    assert_same_outputs(target, source, x)
    # and back
    again = convert(converted, upstream(RESNET3D), target)
    assert again.keys() == state_dict.keys()
    assert all(torch.equal(again[key], state_dict[key]) for key in again)


def test_the_same_placement_is_the_same_model():
    source = upstream(RESNET3D)
    target = build(RESNET3D, dict(BLOCK, after=PLACES))
    assert {k: v.shape for k, v in source.state_dict().items()} == {
        k: v.shape for k, v in target.state_dict().items()
    }
    target.load_state_dict(source.state_dict())
    assert_same_outputs(target, source, torch.randn(1, 3, 4, 32, 32))


def test_tsm_wraps_its_layers():
    source = upstream(TSM)
    target = build(TSM, dict(BLOCK, num_frames=4, after=PLACES))
    assert source.state_dict().keys() != target.state_dict().keys()
    convert(source.state_dict(), target)
    x = torch.randn(4, 3, 32, 32)
    assert_same_outputs(target, source, x)
    again = upstream(TSM)
    randomize(again, 0.05)
    convert(target.state_dict(), again, target)
    assert_same_outputs(again, source, x)


def test_a_norm_is_folded_where_there_is_none():
    source = upstream(RESNET3D)
    target = build(RESNET3D, dict(BLOCK, norm_cfg=None, after=PLACES))
    convert(source.state_dict(), target)
    assert_same_outputs(target, source, torch.randn(1, 3, 4, 32, 32))


def test_a_norm_that_does_nothing_is_made_where_there_was_none():
    source = build(RESNET3D, dict(BLOCK, norm_cfg=None, after=PLACES))
    target = upstream(RESNET3D)
    convert(source.state_dict(), target)
    assert_same_outputs(target, source, torch.randn(1, 3, 4, 32, 32))


def test_heads_of_segmentation_keep_their_names():
    init_default_scope('mmseg')
    head = dict(in_channels=8, channels=8, num_classes=3, dropout_ratio=0)
    source, target = (
        randomize(MODELS.build(dict(type=name, **head)), std)
        for name, std in (('NLHead', 0.1), ('nl_plugins.NLHead', 0.2))
    )
    convert(source.state_dict(), target)
    assert_same_outputs(target, source, [torch.randn(1, 8, 6, 7)])


def test_parts_that_the_checkpoint_lacks_are_left_out():
    target = torch.nn.ModuleDict(
        dict(
            backbone=build(RESNET3D, dict(BLOCK, after=PLACES)),
            cls_head=torch.nn.Linear(3, 4),
        )
    )
    state_dict = {
        f'backbone.{key}': value
        for key, value in upstream(RESNET3D).state_dict().items()
    }
    converted = convert(state_dict, target)
    assert converted.keys() == state_dict.keys()


@pytest.mark.parametrize(
    'block, message',
    [
        (dict(BLOCK, after='layer2.1'), 'after layer3.3.* but .*after layer2.1$'),
        (dict(BLOCK, before=PLACES), 'but .*after layer2.0, after layer2.2'),
        (
            dict(BLOCK, after=PLACES, key_channels=4),
            r'theta.conv.weight \[32, 64, 1, 1, 1\] instead of \[4, 64',
        ),
        (dict(BLOCK, after=PLACES, sub_sample='before'), 'phi.conv.weight'),
    ],
)
def test_what_does_not_fit_is_named(block, message):
    target = build(RESNET3D, block)
    with pytest.raises(CheckpointMismatchError, match=message):
        convert(upstream(RESNET3D).state_dict(), target)


def test_a_source_says_what_keys_cannot():
    # The same keys, another place.
    source = build(RESNET3D, dict(BLOCK, before='layer3.5'))
    target = build(RESNET3D, dict(BLOCK, after='layer3.5'))
    convert(source.state_dict(), target)
    with pytest.raises(CheckpointMismatchError, match='after layer3.4'):
        convert(source.state_dict(), target, source)


@pytest.mark.parametrize(
    'option, value',
    [
        ('mode', 'dot_product'),
        ('use_scale', False),
        ('group_size', 2),
        ('num_heads', 2),
        ('axes', 'space'),
    ],
)
def test_a_source_that_computes_something_else_is_refused(option, value):
    source = build(RESNET3D, dict(BLOCK, after=PLACES, **{option: value}))
    target = build(RESNET3D, dict(BLOCK, after=PLACES))
    with pytest.raises(
        CheckpointMismatchError, match=f'{option} of the blocks is {value!r}'
    ):
        convert(source.state_dict(), target, source)


@pytest.mark.parametrize(
    'state_dict, found',
    [
        ({}, 'none'),
        (dict(model=dict(a=1)), 'model'),
        ({'conv1.weight': torch.zeros(1)}, 'conv1.weight'),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(state_dict, found):
    target = torch.nn.ModuleDict(dict(backbone=build(RESNET3D)))
    with pytest.raises(
        CheckpointMismatchError, match=f'nothing of .* such as {found}, .*backbone.co'
    ):
        convert(state_dict, target)
