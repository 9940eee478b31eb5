"""Blocks and places, told from configs."""

import torch

from nl_plugins import DisentangledNonLocal2d, WithBlocks
from nl_plugins.analysis.describe import describe_blocks


def test_blocks_are_described():
    model = dict(
        type='MaskRCNN',
        backbone=dict(
            type='nl_plugins.WithBlocks',
            base='ResNet',
            blocks=[
                dict(
                    type='nl_plugins.NonLocal3d',
                    mode='gaussian',
                    norm_cfg=dict(type='BN3d'),
                    after=['layer2.1', 'layer3.-1'],
                ),
                dict(type='ContextBlock', ratio=0.25, before='layer4'),
            ],
            plugins=[
                dict(
                    cfg=dict(
                        type='nl_plugins.NonLocal2d',
                        projection_cfg=dict(value=dict(bias=False)),
                    ),
                    stages=(False, True),
                    position='after_conv3',
                )
            ],
        ),
        decode_head=dict(
            type='nl_plugins.DNLHead',
            channels=512,
            reduction=2,
            temperature=1.0,
            block=dict(terms=('pairwise', 'unary')),
        ),
        roi_head=dict(
            mask_head=dict(
                type='nl_plugins.WithBlocks',
                base='FCNMaskHead',
                blocks=[dict(type='nl_plugins.NonLocal2d', before='convs.1')],
            )
        ),
    )
    assert list(describe_blocks(model)) == [
        'NonLocal3d (mode=gaussian, norm_cfg=BN3d) after layer2.1, layer3.-1 '
        'of backbone',
        'ContextBlock (ratio=0.25) before layer4 of backbone',
        'NonLocal2d (projection_cfg={value: {bias: False}}) after_conv3 of layer2 '
        'of backbone',
        'DNLHead (temperature=1.0, terms=pairwise + unary)',
        'NonLocal2d before convs.1 of roi_head.mask_head',
    ]


def test_classes_are_named_as_registries_name_them():
    model = dict(
        type=WithBlocks,
        base='ResNet',
        blocks=[dict(type=DisentangledNonLocal2d, after='layer2.1')],
    )
    assert list(describe_blocks(model)) == ['DisentangledNonLocal2d after layer2.1']


def test_parts_in_lists_and_upstreams_own_blocks():
    model = dict(
        decode_head=[
            dict(type='FCNHead'),
            dict(type='nl_plugins.NLHead', reduction=4),
            dict(type='mmseg.DNLHead'),
        ],
        neck=[dict(type='FPN'), dict(type='BFP', refine_type='non_local')],
        backbone=dict(type='ResNet3d', non_local=((0, 0), (1, 0))),
    )
    assert list(describe_blocks(model)) == [
        'NLHead (reduction=4)',
        "upstream's mmseg.DNLHead",
        "upstream's BFP of neck",
        "upstream's non_local of backbone",
    ]


def test_a_head_may_be_a_class():
    from nl_plugins import NLHead

    assert list(describe_blocks(dict(type=NLHead, use_scale=False))) == [
        'NLHead (use_scale=False)'
    ]


def test_blocks_with_names_are_described_without_the_removed_ones():
    model = dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=dict(c3=None, c4=dict(type='nl_plugins.NonLocal2d', before='layer3.-1')),
    )
    assert list(describe_blocks(model)) == ['NonLocal2d before layer3.-1']


def test_a_layer_of_pytorch_is_no_block():
    pool = dict(type='torch.nn.MaxPool3d', kernel_size=(2, 1, 1), after='conv1')
    nl = dict(type='nl_plugins.NonLocal3d', before='layer3.-1')
    for blocks, found in (
        ([pool], []),
        (dict(pool=pool, nl=nl), ['NonLocal3d before layer3.-1']),
        ([dict(pool, type=torch.nn.MaxPool3d)], []),
    ):
        model = dict(type='nl_plugins.WithBlocks', base='ResNet3d', blocks=blocks)
        assert list(describe_blocks(model)) == found
