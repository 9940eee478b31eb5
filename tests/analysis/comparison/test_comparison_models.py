"""What is put together about models and their baselines."""

from pathlib import Path

import pytest
from analysis.comparison.recorded import train_records, write_run

from nl_plugins.analysis.comparison import models
from nl_plugins.analysis.comparison.costs import Cost, Setting
from nl_plugins.engine.config import load_config
from nl_plugins.errors import ConfigNotFoundError, OptionError

CONFIGS = Path(__file__).parents[3] / 'configs'
BASELINE = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
WITH_BLOCK = str(CONFIGS / 'fcn/fcn_r50-d8-nl-c4_4xb2-40k_cityscapes-512x1024.py')
DEMO = [
    str(CONFIGS / f'demo/{name}_r18-2stages_demo.py')
    for name in ('fcn', 'nonlocal', 'dnl')
]
UNMEASURED = Setting((32, 64), repeats=0)


def test_the_baseline_is_found_and_comes_first(monkeypatch):
    monkeypatch.setattr(
        models, 'measure_complexity', lambda cfg, shape: (cfg.filename, shape)
    )
    found = models.compare([WITH_BLOCK], setting=UNMEASURED)
    (group,) = found.groups
    assert [m.config for m in group.models] == [BASELINE, WITH_BLOCK]
    assert [m.blocks for m in group.models] == [
        '',
        'NonLocal2d (norm_cfg=SyncBN) before layer3.-1 of backbone',
    ]
    assert group.published[0].metrics['mIoU'] > 70
    assert all(m.complexity[1] == (32, 64) and m.costs == {} for m in group.models)


@pytest.mark.slow
def test_one_baseline_for_all_and_runs_by_the_name_of_the_config(tmp_path):
    for seed in (0, 1):
        write_run(
            tmp_path / f'work{seed}',
            train_records((1, 2), 0.2),
            'dnl_r18-2stages_demo',
            seed=seed,
        )
    write_run(tmp_path / 'other', train_records((1, 2), 0.2), 'unknown')
    found = models.compare(DEMO[1:], DEMO[:1], [str(tmp_path)], UNMEASURED)
    fcn, nonlocal_, dnl = found.groups[0].models
    assert fcn.complexity.parameters < nonlocal_.complexity.parameters
    assert fcn.runs == nonlocal_.runs == []
    assert [[run.seed for run in runs] for runs in dnl.runs] == [[0, 1]]
    assert [run.name for run in found.other_runs] == ['unknown']


def test_costs_are_measured_in_both_phases(monkeypatch):
    monkeypatch.setattr(
        models,
        'measure_costs',
        lambda configs, phase, setting, tell: [
            Cost((len(phase),), i) for i, _ in enumerate(configs)
        ],
    )
    found = models.compare(DEMO[1:2], DEMO[:1], setting=Setting((32, 64)))
    assert [m.costs for m in found.groups[0].models] == [
        dict(inference=Cost((9,), i), training=Cost((8,), i)) for i in (0, 1)
    ]


def test_what_cannot_be_counted_is_a_row_that_says_so(monkeypatch):

    def fail(cfg, shape):
        raise RuntimeError('no kernel\nand so on')

    monkeypatch.setattr(models, 'measure_complexity', fail)
    model = models.compare([DEMO[0]], DEMO[:1], setting=UNMEASURED).groups[0].models[0]
    assert model.complexity is None and model.error == 'no kernel'


def test_errors_come_before_anything_long(tmp_path, monkeypatch):
    monkeypatch.setattr(models, '_describe', None)
    monkeypatch.setattr(models, 'measure_costs', None)
    own = tmp_path / 'own.py'
    own.write_text("model = dict(type='ResNet')\n")
    with pytest.raises(OptionError, match='own.py inherits.*--baseline'):
        models.compare([str(own)])
    with pytest.raises(ConfigNotFoundError, match='no.py'):
        models.compare([DEMO[0], 'no.py'], DEMO[:1])
    with pytest.raises(OptionError, match="no folder 'nowhere'"):
        models.compare([DEMO[0]], DEMO[:1], ['nowhere'])
    own.write_text('x = 1\n')
    with pytest.raises(OptionError, match='own.py has no model'):
        models.compare([str(own)], DEMO[:1])
    with pytest.raises(OptionError, match='does not say the size'):
        models.compare([str(CONFIGS / 'demo/mask-rcnn_r18-2stages-nl-c3_fpn_demo.py')])
    twin = tmp_path / Path(DEMO[0]).name
    twin.write_text(f"_base_ = '{DEMO[0]}'\n")
    with pytest.raises(OptionError, match='have the same name'):
        models.compare([str(twin)], DEMO[:1])


def test_one_file_may_be_written_in_several_ways(monkeypatch):
    monkeypatch.chdir(CONFIGS)
    found = models.compare(
        ['demo/fcn_r18-2stages_demo.py', './demo/dnl_r18-2stages_demo.py', DEMO[2]],
        DEMO[:1],
        setting=UNMEASURED,
    )
    assert [m.name for m in found.groups[0].models] == [
        'fcn_r18-2stages_demo',
        'dnl_r18-2stages_demo',
    ]


def test_equal_names_are_told_apart_by_package_and_settings(tmp_path, monkeypatch):
    name = 'nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024'
    own = str(CONFIGS / f'nonlocal_net/{name}.py')
    upstream = f'mmseg::nonlocal_net/{name}.py'
    for number, config in enumerate((own, upstream, upstream)):
        folder = write_run(
            tmp_path / f'run{number}', train_records((1,), 0.2), name, seed=number
        )
        text = load_config(config).pretty_text
        (folder / 'config.py').write_text(text)
        (tmp_path / f'run{number}' / f'{name}.py').write_text(text)
    monkeypatch.setattr(models, 'measure_complexity', lambda cfg, shape: None)
    found = models.compare([own], (), [str(tmp_path)], UNMEASURED)
    (group,) = found.groups
    assert [model.name for model in group.models] == [
        'fcn_r50-d8_4xb2-40k_cityscapes-512x1024',
        f'mmseg::{name}',
        name,
    ]
    assert [len(model.all_runs) for model in group.models] == [0, 2, 1]
    assert not found.other_runs


def test_gains_are_over_the_first_of_several_baselines():
    found = models.compare(DEMO[2:], DEMO[:2], setting=UNMEASURED)
    assert [model.config for model in found.groups[0].models] == DEMO
