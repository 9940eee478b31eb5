"""What else than the blocks differs between two trainings."""

import re
from pathlib import Path

import pytest

from nl_plugins.analysis.baselines import fair_baselines
from nl_plugins.analysis.comparison.fairness import unfair_differences
from nl_plugins.analysis.comparison.runs import Run, settings_of
from nl_plugins.engine.config import load_config

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(path.parent.name for path in (ROOT / 'configs').glob('*/metafile.yml'))

SETTINGS = {
    'train_cfg.max_epochs': 12,
    'train_dataloader.batch_size': 2,
    'train_dataloader.dataset.ann_file': 'train.json',
    'train_dataloader.num_workers': 2,
    'optim_wrapper.optimizer.lr': 0.02,
    'param_scheduler.0.begin': 0,
    'model.type': 'MaskRCNN',
    'model.backbone.type': 'ResNet',
    'model.backbone.depth': 50,
    'model.backbone.init_cfg.checkpoint': 'torchvision://resnet50',
    'val_evaluator.ann_file': 'val.json',
    'load_from': None,
}
BLOCKS = {
    'model.backbone.type': 'nl_plugins.WithBlocks',
    'model.backbone.base': 'ResNet',
    'model.backbone.blocks.0.type': 'nl_plugins.NonLocal2d',
    'model.backbone.blocks.0.before': 'layer3.-1',
    'optim_wrapper.paramwise_cfg.custom_keys.theta.decay_mult': 0.0,
    'custom_imports.imports': ['nl_plugins'],
    'train_dataloader.num_workers': 4,
}


def differences(changed=(), environment=(), other=()):
    run = Run([], [], settings=SETTINGS | BLOCKS | dict(changed))
    run.environment.update(environment)
    baseline = Run([], [], settings=SETTINGS, environment=dict(other))
    return unfair_differences(run, baseline)


def test_blocks_are_fair():
    assert differences() == []
    assert differences(environment={'PyTorch': '2.1'}) == []  # unknown there


@pytest.mark.parametrize(
    'kind, key, value',
    [
        ('length', 'train_cfg.max_epochs', 24),
        ('batch size', 'train_dataloader.batch_size', 4),
        ('batch size', 'optim_wrapper.accumulative_counts', 2),
        ('training data', 'train_dataloader.dataset.ann_file', 'more.json'),
        ('schedule', 'optim_wrapper.optimizer.lr', 0.01),
        ('schedule', 'param_scheduler.0.begin', 5),
        ('schedule', 'optim_wrapper.type', 'AmpOptimWrapper'),
        ('pretrained weights', 'load_from', 'model.pth'),
        ('pretrained weights', 'model.backbone.init_cfg.checkpoint', 'other.pth'),
        ('model', 'model.backbone.depth', 101),
        ('evaluation', 'val_evaluator.ann_file', 'other.json'),
    ],
)
def test_all_else_is_not(kind, key, value):
    (found,) = differences({key: value})
    other = SETTINGS.get(key)
    assert found == f'{kind}: {key} is {value!r}, {other!r} for the baseline'


def test_versions_and_processes_are_those_of_the_logs():
    one = {'nl_plugins': '0.2.0', 'GPU number': '8', 'PyTorch': '2.13.0'}
    other = {'nl_plugins': '0.1.0', 'GPU number': '1', 'PyTorch': '2.13.0'}
    assert differences((), one, other) == [
        "versions: nl_plugins is '0.2.0', '0.1.0' for the baseline",
        "batch size: GPU number is '8', '1' for the baseline",
    ]


def test_many_differences_of_one_kind_are_cut():
    changed = {f'train_dataloader.dataset.x{i}': i for i in range(5)}
    (found,) = differences(changed)
    assert found.count('for the baseline') == 3 and found.endswith(', ...')


def test_runs_without_settings_are_not_judged():
    assert unfair_differences(Run([], []), Run([], [], settings=SETTINGS)) == []


def test_through_which_toolbox_a_base_was_loaded_is_no_difference():
    assert differences({'optim_wrapper.optimizer._scope_': 'mmdet'}) == []


@pytest.mark.slow
@pytest.mark.parametrize('folder', FOLDERS)
def test_shipped_configs_differ_from_their_baselines_in_blocks_alone(folder):
    if folder in ('c2d', 'i3d', 'slowonly', 'tsm', 'finetune'):
        pytest.importorskip('mmaction')
    if folder in ('pose', 'imagenet'):
        pytest.importorskip('mmpose' if folder == 'pose' else 'mmpretrain')
    with_blocks = [
        path
        for path in sorted((ROOT / 'configs' / folder).rglob('*.py'))
        if re.search('-d?nl-|gcb|nonlocal|^dnl', path.name)
    ]
    for path in with_blocks[::8]:
        names = str(path), fair_baselines(str(path))[0]
        runs = [Run([], [], settings=settings_of(load_config(n))) for n in names]
        assert unfair_differences(*runs) == [], path
