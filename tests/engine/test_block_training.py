"""How blocks are trained: what the log says, and what is refused."""

import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from mmengine.registry import (
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    init_default_scope,
)
from toy_run import ToyModel

from nl_plugins import NonLocal1d, engine, errors
from nl_plugins.engine.block_training import BlockTrainingHook


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LinearOnly(DefaultOptimWrapperConstructor):
    """Passes the parameters of the layers it knows, as that of TSM does."""

    def add_params(self, params, module, **kwargs):
        params += [
            {'params': list(m.parameters())}
            for m in module.modules()
            if isinstance(m, (torch.nn.Linear, torch.nn.Conv1d))
        ]


@MODELS.register_module()
class GatedToy(ToyModel):
    def __init__(self, frozen=False):
        super().__init__()
        self.attention = NonLocal1d(1, gate='scalar')
        self.attention.requires_grad_(not frozen)


def test_a_parameter_that_the_optimizer_lacks_stops_the_run(toy):
    options = dict(
        model__type='GatedToy',
        optim_wrapper__constructor='LinearOnly',
        optim_wrapper__paramwise_cfg=dict(bypass_duplicate=True),
    )
    with pytest.raises(
        errors.OptionError,
        match="not have them: attention.gamma. Its constructor 'LinearOnly"
        "' leaves .* optim_wrapper.constructor=DefaultOptim",
    ):
        engine.train(toy(**options))
    engine.train(toy(**options, model__frozen=True, train_cfg__max_epochs=1))
    engine.train(toy(model__type='GatedToy', train_cfg__max_epochs=1))


@pytest.mark.parametrize(
    'block, missing', [(dict(gate='scalar'), ['gamma']), (dict(), [])]
)
def test_tsm_and_its_optimizer(block, missing):
    pytest.importorskip('mmaction')
    init_default_scope('mmaction')
    model = MODELS.build(
        dict(
            type='nl_plugins.WithBlocks',
            base='ResNetTSM',
            depth=18,
            pretrained2d=False,
            num_segments=4,
            blocks=[
                dict(
                    type='nl_plugins.NonLocal3d',
                    num_frames=4,
                    after='layer2.0',
                    **block,
                )
            ],
        )
    )
    model.fc = torch.nn.Linear(1, 1)  # its constructor wants a classifier
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=0.1),
            constructor='TSMOptimWrapperConstructor',
            paramwise_cfg=dict(fc_lr5=True),
        ),
    )
    runner = SimpleNamespace(model=model, cfg={}, optim_wrapper=wrapper)
    if not missing:
        BlockTrainingHook().before_train(runner)
        return
    with pytest.raises(errors.OptionError, match='layer2.0.*block.gamma'):
        BlockTrainingHook().before_train(runner)


@MODELS.register_module()
class TwoBlocks(ToyModel):
    """One block in the backbone, and one that is frozen in part."""

    def __init__(self):
        super().__init__()
        self.backbone.non_local_block = NonLocal1d(1)
        self.block = NonLocal1d(1, gate='scalar')
        self.block.g.requires_grad_(False)


def log_of(folder):
    (log,) = folder.glob('work/*/*.log')
    return log.read_text()


def test_the_log_says_how_each_block_is_trained(toy, tmp_path):
    engine.train(
        toy(
            model__type='TwoBlocks',
            train_cfg__max_epochs=1,
            optim_wrapper__optimizer__weight_decay=0.5,
            optim_wrapper__paramwise_cfg=dict(
                custom_keys={
                    'backbone': dict(lr_mult=0.1),
                    'block.theta': dict(lr_mult=10.0, decay_mult=0.0),
                }
            ),
            # the warm-up has begun before the first step
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=50)
            ],
        )
    )
    log = log_of(tmp_path)
    rows = [re.split(r'  +', line) for line in log.splitlines()]
    rows = [row for row in rows if len(row) == 6 and row[1] == 'NonLocal1d']
    assert rows == [
        ['backbone.non_local_block', 'NonLocal1d', '8', 'yes', '0.1, 10', '0, 0.5'],
        ['block', 'NonLocal1d', '7', 'in part', '1, 10', '0, 0.5'],
    ]
    assert 'backbone.non_local_block: the learning rate is below the base rate' in log
    assert 'block, ' not in log


def test_a_scaled_base_rate_is_the_base_rate(toy, tmp_path):
    engine.train(
        toy(
            model__type='TwoBlocks',
            train_cfg__max_epochs=1,
            auto_scale_lr=dict(base_batch_size=16),
        ),
        auto_scale_lr=True,
    )
    log = log_of(tmp_path)
    assert 'NonLocal1d  8           yes      1   0' in log
    assert 'below the base rate' not in log


def test_a_model_without_blocks_has_no_table(toy, tmp_path):
    engine.train(toy(train_cfg__max_epochs=1))
    assert 'Blocks, with' not in log_of(tmp_path)
