"""Upstream's blocks in built models, replaced in place."""

import copy
import logging

import pytest
import torch
from mmcv import cnn
from mmengine.registry import MODELS, init_default_scope
from mmseg.models.decode_heads.dnl_head import (
    DisentangledNonLocal2d as MMSegDisentangledNonLocal2d,
)
from reference import (
    LargestTensor,
    assert_same_results,
    output_and_gradients,
    randomize,
)
from torch import nn

import nl_plugins
from nl_plugins import upgrade
from nl_plugins.blocks.checks import MODES
from nl_plugins.checkpoints import upgrade as upgrading

SHAPES = {1: (2, 12, 21), 2: (2, 12, 7, 6), 3: (2, 12, 3, 4, 6)}


def assert_upgraded(model, x, count=1):
    """Same parameters, same results, and a number of blocks replaced."""
    upstream = copy.deepcopy(model)
    parameters = dict(model.named_parameters())
    assert upgrade(model) == count
    assert all(model.get_parameter(name) is p for name, p in parameters.items())
    assert parameters.keys() == dict(model.named_parameters()).keys()
    assert_same_results(
        output_and_gradients(model, x), output_and_gradients(upstream, x)
    )
    assert upgrade(model) == 0


@pytest.mark.parametrize(
    'kwargs',
    [
        *(
            dict(mode=mode, sub_sample=sub_sample)
            for mode in MODES[:3]
            for sub_sample in (False, True)
        ),
        dict(use_scale=False, reduction=3),
        dict(norm_cfg=dict(type='BN'), zeros_init=False),
    ],
)
@pytest.mark.parametrize('ndim', [1, 2, 3])
def test_blocks_of_mmcv(ndim, kwargs):
    if 'norm_cfg' in kwargs:
        kwargs = kwargs | dict(norm_cfg=dict(type=f'BN{ndim}d'))
    block = randomize(getattr(cnn, f'NonLocal{ndim}d')(12, **kwargs))
    assert_upgraded(block, torch.randn(SHAPES[ndim]))
    assert type(block) is getattr(nl_plugins, f'NonLocal{ndim}d')
    if kwargs.get('mode') != 'gaussian':
        block.init_weights()


def test_concatenation_of_mmcv_can_be_trained_afterwards():
    block = randomize(cnn.NonLocal2d(12, mode='concatenation'))
    x = torch.randn(SHAPES[2])
    with torch.no_grad():
        expected = block(x)
    assert upgrade(block) == 1
    out = block(x)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    out.sum().backward()


@pytest.mark.parametrize('mode', ['embedded_gaussian', 'dot_product'])
def test_the_disentangled_block_of_mmseg(mode):
    block = randomize(MMSegDisentangledNonLocal2d(12, temperature=0.05, mode=mode), 0.2)
    assert_upgraded(block, torch.randn(SHAPES[2]))
    assert type(block) is nl_plugins.DisentangledNonLocal2d


def test_the_disentangled_gaussian_block_of_mmseg_is_refused_by_name(monkeypatch):
    # It changes its own input, so no block of ours gives its results.
    model = nn.Sequential(
        cnn.NonLocal2d(12),
        MMSegDisentangledNonLocal2d(12, temperature=0.05, mode='gaussian'),
    )
    randomize(model[1], 0.2)
    x = torch.randn(SHAPES[2])
    with torch.no_grad():
        expected = model(x.clone())
    messages = []
    monkeypatch.setattr(
        upgrading,
        'print_log',
        lambda message, logger, level=logging.INFO: messages.append((message, level)),
    )
    assert upgrade(model) == 1
    (_, _), (message, level) = messages
    assert message.startswith("1 is not upgraded: MMSegmentation's")
    assert level == logging.WARNING
    assert type(model[1]) is MMSegDisentangledNonLocal2d
    with torch.no_grad():
        torch.testing.assert_close(model(x.clone()), expected)


def test_no_random_numbers_are_drawn():
    model = nn.Sequential(cnn.NonLocal2d(12))
    state = torch.get_rng_state()
    upgrade(model)
    assert torch.equal(torch.get_rng_state(), state)


MODELS_OF_THE_TOOLBOXES = {
    'mmdet': (
        dict(type='BFP', in_channels=8, num_levels=3, refine_type='non_local'),
        None,
        1,
    ),
    'mmaction, 3d': (
        dict(
            type='ResNet3d',
            depth=18,
            base_channels=8,
            inflate=(1, 1, 1, 1),
            conv_cfg=dict(type='Conv3d'),
            non_local=((0, 0), (0, 1), (1, 0), (0, 0)),
            non_local_cfg=dict(sub_sample=True, norm_cfg=dict(type='BN3d')),
        ),
        (1, 3, 4, 32, 32),
        2,
    ),
    'mmaction, TSM': (
        dict(
            type='ResNetTSM',
            depth=50,
            num_segments=4,
            non_local=((0, 0, 0), (0, 1, 0, 0), (0,) * 6, (0, 0, 0)),
            non_local_cfg=dict(sub_sample=True),
        ),
        (4, 3, 32, 32),
        1,
    ),
    'mmseg': (
        dict(
            type='DNLHead', in_channels=16, channels=8, num_classes=5, dropout_ratio=0
        ),
        None,
        1,
    ),
}


@pytest.mark.parametrize('which', MODELS_OF_THE_TOOLBOXES)
def test_models_of_the_toolboxes(which):
    cfg, shape, count = MODELS_OF_THE_TOOLBOXES[which]
    scope = which.partition(',')[0]
    pytest.importorskip(scope)
    init_default_scope(scope)
    model = MODELS.build(cfg)
    model.eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if 'non_local' in name or 'refine' in name or 'nl_' in name:
                p.normal_(0, 0.1)
    if which == 'mmdet':
        x = [torch.randn(1, 8, s, s) for s in (16, 8, 4)]
    elif which == 'mmseg':
        x = [torch.randn(2, 16, 9, 8)]
    else:
        x = torch.randn(shape)
    with torch.no_grad():
        expected = model(x)
        assert upgrade(model) == count
        actual = model(x)
    for a, b in zip(
        *((t if isinstance(t, tuple) else (t,)) for t in (actual, expected))
    ):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()


def test_the_map_is_gone():
    model = nn.Sequential(randomize(cnn.NonLocal2d(16)))
    x = torch.randn(1, 16, 40, 40)
    upgrade(model)
    with LargestTensor() as largest, torch.no_grad():
        model(x)
    assert largest.numel < 1600**2 / 4


def test_a_derived_class_is_left_alone():

    class Own(cnn.NonLocal2d):
        def forward(self, x):
            return -super().forward(x)

    model = nn.Sequential(Own(12), cnn.NonLocal2d(12))
    assert upgrade(model) == 1
    assert type(model[0]) is Own


def test_hooks_and_optimizers_keep_their_block():
    block = cnn.NonLocal2d(12)
    calls = []
    block.register_forward_hook(lambda *args: calls.append(1))
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    upgrade(block)
    x = torch.randn(SHAPES[2])
    block(x).square().mean().backward()
    before = block.conv_out.conv.weight.clone()
    optimizer.step()
    assert calls and not torch.equal(block.conv_out.conv.weight, before)


def test_the_hook_upgrades_the_model_of_a_run(toy, monkeypatch):
    from mmengine.runner import Runner

    runner = Runner.from_cfg(
        toy(custom_hooks=[dict(type='nl_plugins.UpgradeNonLocalHook')])
    )
    block = cnn.NonLocal2d(4)
    runner.model.add_module('block', block)
    runner.call_hook('before_run')
    assert type(block) is nl_plugins.NonLocal2d
