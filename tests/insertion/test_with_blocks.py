"""WithBlocks: the base it returns, and the blocks it takes."""

import pytest
from insertion.inserting import NL, assert_equal, build, image, new_keys, outputs
from mmcv.cnn import NonLocal2d as MMCVNonLocal2d

import nl_plugins
from nl_plugins.errors import ArgumentError
from nl_plugins.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def test_returns_the_very_base_with_new_keys_only():
    from mmdet.models import ResNet

    model = build([dict(type=NL, before='layer3.-1')], depth=50)
    assert type(model) is ResNet
    plain = ResNet(50, base_channels=8, stem_channels=8)
    assert not set(plain.state_dict()) - set(model.state_dict())
    assert new_keys(model, depth=50) == {'layer3.5.non_local_block'}


def test_blocks_must_be_a_list_of_dicts():
    with pytest.raises(ValueError, match='blocks must be a list'):
        build(dict(type=NL, after='layer2'))
    with pytest.raises(ValueError, match="a block must be a dict, .*'NL'"):
        build(['NL'])


def test_a_misspelt_argument_is_named():
    for arguments, message in (
        (dict(base='ResNet', blocs=[]), "needs 'blocks', .*; did you mean 'blocks'"),
        (dict(bas='ResNet', blocks=[]), "needs 'base', .*; did you mean 'base'"),
        (dict(base='ResNet', blocks=[], depht=18), "'depht'; did you mean 'depth'"),
        (
            dict(base='ResNet', blocks=[], depth=18, freeze_bas=True),
            "'freeze_bas'; did you mean 'freeze_base'",
        ),
    ):
        with pytest.raises(ArgumentError, match=message):
            MODELS.build(dict(type='nl_plugins.WithBlocks', **arguments))


def test_upstreams_plugins_take_the_blocks():
    plugins = [
        dict(
            cfg=dict(type=NL),
            stages=(False, False, True, False),
            position='after_conv3',
        )
    ]
    from mmdet.models import ResNet

    model = ResNet(50, base_channels=8, stem_channels=8, plugins=plugins)
    model.init_weights()
    blocks = [
        name
        for name, m in model.named_modules()
        if isinstance(m, nl_plugins.NonLocal2d)
    ]
    assert blocks == [f'layer3.{i}.nonlocal_block' for i in range(6)]
    plain = ResNet(50, base_channels=8, stem_channels=8)
    plain.load_state_dict(model.state_dict(), strict=False)
    x = image()
    assert_equal(outputs(model, x), outputs(plain, x))


@pytest.mark.parametrize(
    'block',
    [
        dict(type='ContextBlock', ratio=0.25),
        dict(type='GeneralizedAttention'),
        dict(type=MMCVNonLocal2d),
        dict(type='nl_plugins.DisentangledNonLocal2d'),
    ],
)
def test_any_registered_block_can_be_inserted(block):
    model = build([dict(after='layer2.-1', **block)])
    model.init_weights()
    plain = build([])
    assert not plain.load_state_dict(model.state_dict(), strict=False).missing_keys
    x = image()
    assert_equal(outputs(model, x), outputs(plain, x))
