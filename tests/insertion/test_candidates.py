"""nl_plugins.places: where blocks can stand, and what they would cost."""

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from torch import nn

import nl_plugins
from nl_plugins import NonLocal1d, NonLocal2d


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.act = nn.ReLU()
        self.linear = nn.Linear(8, 6)
        self.idle = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.act(self.act(self.stem(x)))
        tokens = self.linear(x.flatten(2).transpose(1, 2))
        return self.fc(tokens.mean(1))


@pytest.fixture
def found():
    x = torch.zeros(1, 3, 16, 24)
    return {place.name: place for place in nl_plugins.places(Net(), x)}


def test_every_module_that_runs_is_listed_with_its_shape(found):
    assert list(found) == ['stem', 'stem.0', 'stem.1', 'act', 'linear', 'fc']
    assert found['stem.0'].shape == (1, 8, 8, 12)
    assert found['linear'].module_type == 'Linear'


def test_costs_are_those_of_the_block(found):
    for name, block in (
        ('stem.0', NonLocal2d(8)),
        ('linear', NonLocal1d(6, layout='BNC')),
    ):
        place = found[name]
        assert not place.obstacle
        assert place.parameters == sum(p.numel() for p in block.parameters())
        analyzer = FlopAnalyzer(block.eval(), torch.zeros(place.shape))
        assert place.flops == analyzer.unsupported_ops_warnings(False).total() > 0
    assert found['linear'].block == "NonLocal1d, layout='BNC'"
    # query, key, value and output of 96 positions, and the copies with padding
    assert found['stem.0'].stored == 4 * 96 * 4 * 4 + 4 * 96 * 8 * 3


def test_what_is_in_the_way_is_said(found):
    assert 'runs 2 times per forward' in found['act'].obstacle
    assert 'exchanged when norms' in found['stem.1'].obstacle
    assert found['fc'].obstacle
    for place in found.values():
        blocks = [dict(type='nl_plugins.NonLocal2d', after=place.name)]
        if place.name in ('act', 'stem.1', 'fc'):
            with pytest.raises(ValueError):
                nl_plugins.insert(Net(), blocks, torch.zeros(1, 3, 16, 24))


def test_blocks_that_are_there_are_no_places():
    x = torch.zeros(1, 3, 16, 24)
    model, _ = nl_plugins.insert(
        Net(), [dict(type='nl_plugins.NonLocal2d', after='stem.0')], x
    )
    assert not any('non_local' in p.name for p in nl_plugins.places(model, x))


def test_depth_and_kind():
    x = torch.zeros(1, 3, 16, 24)
    assert 'stem.0' not in [p.name for p in nl_plugins.places(Net(), x, depth=1)]
    (place, *_) = nl_plugins.places(Net(), x, 'dnl')
    assert place.name == 'stem' and 'exchanged' in place.obstacle
    (place, *_) = nl_plugins.places(Net().stem, x, 'dnl')
    assert place.block == 'DisentangledNonLocal2d'
    with pytest.raises(ValueError, match="one of .'nl', 'dnl'., but got 'x'"):
        nl_plugins.places(Net(), x, 'x')


@pytest.mark.slow
@pytest.mark.parametrize(
    'config, place',
    [
        ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '. . 5'),
        ('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'backbone'),
        (
            'mmaction::recognition/slowonly/slowonly_imagenet-pretrained-r50_8xb16-'
            '4x16x1-steplr-150e_kinetics400-rgb.py',
            'backbone',
        ),
    ],
)
def test_the_tool_prints_the_tree(config, place, load_tool, capsys, monkeypatch):
    if 'mmaction' in config:
        pytest.importorskip('mmaction')
    monkeypatch.setattr('sys.argv', ['places.py', config])
    load_tool('places').main()
    out = capsys.readouterr().out
    assert 'stored for backward' in out and place in out
    assert 'NonLocal' in out
