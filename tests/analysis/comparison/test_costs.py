"""Steps of whole models, and what they take."""

import math
from pathlib import Path

import pytest
import torch

from nl_plugins.analysis.comparison import costs
from nl_plugins.analysis.comparison.costs import Setting, measure_costs
from nl_plugins.analysis.comparison.variants import Variant
from nl_plugins.toolboxes import TOOLBOXES

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[3] / 'configs' / 'demo'


@pytest.mark.parametrize(
    'config, shape',
    [
        ('mask-rcnn_r18-2stages-nl-c3_fpn_demo', (64, 96)),
        ('dnl_r18-2stages_demo', (64, 96)),
        ('c2d_r18-2stages-nl-c3_demo', (4, 32, 32)),
    ],
)
def test_a_step_trains_or_predicts(config, shape, monkeypatch):
    if 'c2d' in config:
        pytest.importorskip('mmaction')
    models, batches = [], []
    build = costs.build_model
    monkeypatch.setattr(
        costs, 'build_model', lambda cfg: models.append(build(cfg)) or models[-1]
    )
    for toolbox in TOOLBOXES.values():
        monkeypatch.setattr(
            toolbox,
            'batch',
            lambda *args, make=toolbox.batch: (
                batches.append(make(*args)) or batches[-1]
            ),
        )
    optimizers = []
    wrap = costs.build_optim_wrapper
    monkeypatch.setattr(
        costs,
        'build_optim_wrapper',
        lambda *args: optimizers.append(wrap(*args)) or optimizers[-1],
    )
    for phase, size in (('inference', 1), ('training', 3)):
        step = costs._build_step(
            costs._load(Variant(f'{CONFIGS / config}.py')),
            phase,
            Setting(shape, batch_size=3),
        )
        before = [p.detach().clone() for p in models[-1].parameters()]
        assert len(optimizers) == (phase == 'training')
        seen = []
        models[-1].backbone.register_forward_pre_hook(
            lambda module, args, seen=seen: seen.append(args[0].shape[-2:])
        )
        step()
        assert seen == [shape[-2:]]  # neither padded nor cropped
        # a full step, which leaves the weights for the next turn
        assert all(map(torch.equal, before, models[-1].parameters()))
        for optimizer in optimizers:
            trained = [p for p in models[-1].parameters() if p.requires_grad]
            assert len(optimizer.optimizer.state) == len(trained)
        assert models[-1].training == (phase == 'training')
        assert len(batches[-1]['inputs']) == size
        assert tuple(batches[-1]['inputs'][0].shape[-2:]) == shape[-2:]


def test_time_and_memory_of_those_that_run(tmp_path):
    good = str(CONFIGS / 'fcn_r18-2stages_demo.py')
    broken = tmp_path / 'broken.py'
    broken.write_text(
        f"_base_ = '{good}'\nmodel = dict(decode_head=dict(in_channels=3))\n"
    )
    one, other = measure_costs(
        [Variant(good), Variant(str(broken))],
        'inference',
        Setting((32, 64), repeats=3),
    )
    assert len(one.seconds) == 3 and 0 < one.median < 60
    assert 2**20 < one.bytes < 2**30
    assert one.error == ''
    assert 'to have 3 channels' in other.error
    assert other.seconds == () and math.isnan(other.median)
