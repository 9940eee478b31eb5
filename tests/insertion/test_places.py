"""Places: paths, sides, types, and what is refused at build time."""

import pytest
import torch
from insertion.inserting import NL, build, new_keys, outputs
from mmengine.config import Config
from reference import randomize
from torch import nn

from nl_plugins.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')


@pytest.mark.parametrize(
    'place, key',
    [
        (dict(after='layer2.-1'), 'layer2.1.non_local_block'),
        (dict(after='layer2.0'), 'layer2.0.non_local_block'),
        (dict(after='layer2'), 'layer2.1.non_local_block'),
        (dict(before='layer2'), 'layer2.0.non_local_block'),
        (dict(before='layer2.0.conv2'), 'layer2.0.conv2.non_local_block'),
    ],
)
def test_a_block_runs_where_it_was_placed(place, key):
    model = build([dict(type=NL, **place)])
    assert new_keys(model) == {key}
    seen = {}
    target = model.get_submodule(key.rpartition('.')[0])
    block = model.get_submodule(key)
    block.register_forward_hook(
        lambda module, args, out: seen.update(received=args[0], gave=out)
    )
    target.register_forward_hook(
        lambda module, args, out: seen.update(target_in=args[0], out=out)
    )
    randomize(block)
    outputs(model)
    if 'after' in place:
        assert torch.equal(seen['out'], seen['gave'])
        assert not torch.equal(seen['received'], seen['gave'])
    else:
        assert torch.equal(seen['target_in'], seen['gave'])


def test_a_list_of_places_gets_a_block_each():
    model = build(
        [
            dict(type=NL, after=['layer2.0', 'layer2.1', 'layer3.-1']),
            dict(type=NL, after='layer2.0'),
        ]
    )
    names = new_keys(model)
    assert names == {
        'layer2.0.non_local_block',
        'layer2.0.non_local_block_1',
        'layer2.1.non_local_block',
        'layer3.1.non_local_block',
    }
    assert len({model.get_submodule(name) for name in names}) == 4


def test_a_block_type_is_looked_up_in_the_current_scope():
    from mmdet.registry import MODELS as MMDET_MODELS

    @MMDET_MODELS.register_module(force=True)
    class ScopedBlock(nn.Identity):
        pass

    model = build([dict(type='ScopedBlock', after='layer2.-1')])
    assert isinstance(model.layer2[1].scoped_block, ScopedBlock)


def test_new_style_configs_with_classes(tmp_path):
    # The wheel of mmdet has none of its own to inherit from.
    (tmp_path / 'base.py').write_text("""
from mmdet.models import FPN, ResNet

model = dict(backbone=dict(type=ResNet, depth=18), neck=dict(type=FPN))
""")
    file = tmp_path / 'config.py'
    file.write_text("""
from mmengine.config import read_base

with read_base():
    from .base import *

from mmdet.models import ResNet
from nl_plugins import NonLocal2d, WithBlocks

model.backbone.update(
    type=WithBlocks,
    base=ResNet,
    blocks=[dict(type=NonLocal2d, before='layer3.-1')])
""")
    cfg = Config.fromfile(file)
    Config.fromstring(cfg.pretty_text, '.py')  # a run dumps its config
    model = MODELS.build(cfg.model.backbone)
    from mmdet.models import ResNet

    assert type(model) is ResNet
    assert new_keys(model, base_channels=64, stem_channels=64) == {
        'layer3.1.non_local_block'
    }


@pytest.mark.parametrize(
    'block, message',
    [
        (
            dict(type=NL, after='layer5.0'),
            r"unknown place 'layer5.0': 'ResNet' has no child 'layer5', it has "
            r".*'layer4'; did you mean 'layer",
        ),
        (dict(type=NL, after='layer2.7'), "'layer2' has no child '7', it has "),
        (dict(type=NL, after='layer2.-3'), "'layer2' has no child '-3'"),
        (
            dict(type='nl_plugins.NonLocal4d', after='layer2'),
            "unknown block type 'nl_plugins.NonLocal4d'.*'nl_plugins.NonLocal2d'",
        ),
        (dict(after='layer2'), "a block needs a 'type'"),
        (dict(type=NL, after=[]), r'after must be the path .* but got \[\]'),
        (dict(type=NL, after=3), 'after must be the path .* but got 3'),
        (
            dict(type=NL, after='layer2', norm_cfg=dict(type='BM')),
            "NonLocal2d after='layer2': norm_cfg.type must be .* BN, .* got 'BM'",
        ),
        (dict(type=NL), "one of 'before' and 'after', but got none"),
        (dict(type=NL, befor='layer2'), "got none.*; did you mean 'before'"),
        (dict(typ=NL, after='layer2'), "needs a 'type'.*; did you mean 'type'"),
        (dict(type=NL, after='layer2', before='layer3'), 'one of'),
        (
            dict(type=NL, after='layer2', in_channels=99),
            'has 16 channels, but in_channels of the NonLocal2d is 99',
        ),
        (
            dict(type=NL, after='layer2', mode='cosine'),
            "NonLocal2d after='layer2': mode must be one of .*'cosine'",
        ),
        (dict(type=NL, after='layer2.-2.relu'), r"'layer2.-2.relu': .* runs 2 times"),
        (
            dict(type='nl_plugins.NonLocal3d', after='layer2'),
            r'NonLocal3d takes 3 dimensions .* shape \(B, 16, ',
        ),
        (
            dict(type='nl_plugins.NonLocal1d', after='layer2'),
            'NonLocal1d takes 1 dimensions',
        ),
    ],
)
def test_wrong_input_is_named_at_build_time(block, message):
    with pytest.raises(ValueError, match=message):
        build([block])


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_a_block_on_a_batch_norm_is_refused(norm):
    # It is exchanged by SyncBN conversions, which forget its hooks.
    with pytest.raises(ValueError, match='BatchNorm.* is exchanged when'):
        build([dict(type=NL, after='layer2.0.bn1')], norm_cfg=dict(type=norm))


def test_a_layout_that_there_is_not():
    with pytest.raises(ValueError, match="one of .'BCHW', 'BHWC'., but got 'x'"):
        build([dict(type=NL, after='layer2', layout='x')])
