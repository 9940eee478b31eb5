"""The run on shapes alone."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from nl_plugins.insertion.probe import probe


def backbone():
    init_default_scope('mmdet')
    return MODELS.build(
        dict(type='mmdet.ResNet', depth=18, base_channels=8, stem_channels=8)
    )


def test_records_shapes_and_the_number_of_calls():
    calls = probe(backbone(), ['layer2.0', 'layer2.0.relu'])
    before, after = calls['layer2.0'][0]
    assert before[0][1:] == (8, None, None) and after[1:] == (16, None, None)
    assert [len(c) for c in calls.values()] == [1, 2]


def test_leaves_the_module_as_it_was():
    model = backbone()
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    probe(model, ['layer2.0'])
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.device.type == 'cpu' for p in model.parameters())


@pytest.mark.parametrize(
    'cfg, name',
    [
        (dict(type='mmaction.ResNet3d', depth=50, pretrained2d=False), 'layer3.5'),
        (dict(type='mmaction.ResNetTSM', depth=50, num_segments=8), 'layer3.5'),
        (dict(type='mmaction.C2D', depth=50), 'layer3.5'),
        (dict(type='mmseg.ResNetV1c', depth=50), 'layer3.5'),
        (dict(type='mmdet.CSPDarknet', widen_factor=2.0), 'stage3'),
    ],
)
def test_backbones_of_the_toolboxes_run(cfg, name):
    pytest.importorskip(cfg['type'].split('.')[0])
    (call,) = probe(MODELS.build(cfg), [name])[name]
    assert call.after[1] == 1024
    assert set(call.after[2:]) <= {None, 16, 32}


@pytest.mark.parametrize(
    'cfg, name',
    [
        (
            dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=8, num_outs=2),
            'lateral_convs.0',
        ),
        # Would take the batch for its list of levels.
        (dict(type='mmdet.RPNHead', in_channels=8), 'rpn_conv'),
    ],
)
def test_is_none_where_the_module_does_not_run_on_an_image(cfg, name):
    init_default_scope('mmdet')
    assert probe(MODELS.build(cfg), [name]) is None
