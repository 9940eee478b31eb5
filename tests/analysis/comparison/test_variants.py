"""Models that runs trained by options of their command line."""

from dataclasses import replace
from pathlib import Path

import pytest
from analysis.comparison.recorded import train_records, write_run

from nl_plugins.analysis.comparison import models
from nl_plugins.analysis.comparison.costs import Setting
from nl_plugins.analysis.comparison.variants import Variant
from nl_plugins.analysis.complexity import measure_complexity
from nl_plugins.engine.config import load_config

FCN, NONLOCAL = (
    str(Path(__file__).parents[3] / f'configs/demo/{name}_r18-2stages_demo.py')
    for name in ('fcn', 'nonlocal')
)
UNMEASURED = Setting((32, 64), repeats=0)
WIDE = {'model.decode_head.channels': 48}


def write(work_dir, config, options, seed=0):
    """A finished run of a config with options, as the runner leaves it."""
    name = Path(config).stem
    folder = write_run(work_dir, train_records((1,), 0.2), name, seed=seed)
    options = {**options, 'randomness.seed': seed, 'train_cfg.max_iters': 4}
    cfg = load_config(config, options)
    (folder / 'config.py').write_text(cfg.pretty_text)
    (work_dir / f'{name}.py').write_text(cfg.pretty_text)


def parameters(config, options):
    cfg = load_config(config, options)
    return measure_complexity(cfg, UNMEASURED.shape).parameters


def compare(tmp_path):
    found = models.compare([NONLOCAL], [FCN], [str(tmp_path)], UNMEASURED)
    return found.groups[0].models


def test_the_size_is_that_of_the_model_of_the_runs(tmp_path):
    for number, config in enumerate((FCN, NONLOCAL, NONLOCAL)):
        write(tmp_path / str(number), config, WIDE, seed=number)
    fcn, nonlocal_ = compare(tmp_path)
    assert [model.name for model in (fcn, nonlocal_)] == [
        'fcn_r18-2stages_demo',
        'nonlocal_r18-2stages_demo',
    ]
    assert fcn.complexity.parameters == parameters(FCN, WIDE) != parameters(FCN, {})
    assert nonlocal_.complexity.parameters == parameters(NONLOCAL, WIDE)
    assert [len(runs) for runs in nonlocal_.runs] == [2]


def test_several_models_of_a_config_are_rows_of_their_own(tmp_path):
    gaussian = {'model.decode_head.mode': 'gaussian'}
    write(tmp_path / '0', NONLOCAL, {})
    write(tmp_path / '1', NONLOCAL, WIDE)
    write(tmp_path / '2', NONLOCAL, WIDE, seed=1)
    write(tmp_path / '3', NONLOCAL, gaussian | {'optim_wrapper.optimizer.lr': 0.5})
    fcn, *rows = compare(tmp_path)
    assert fcn.complexity.parameters == parameters(FCN, {}) and not fcn.runs
    assert [row.name.partition(' ')[2] for row in rows] == [
        '(channels=64)',
        '(channels=48)',
        "(channels=64, mode='gaussian')",
    ]
    assert [row.complexity.parameters for row in rows] == [
        parameters(NONLOCAL, options) for options in ({}, WIDE, gaussian)
    ]
    assert [[len(runs) for runs in row.runs] for row in rows] == [[1], [2], [1]]


@pytest.mark.parametrize(
    'name',
    [
        'subprocess.Popen',
        'os.system',
        'builtins.eval',
        'antigravity',
        'os.ResNet',
        'mmpretrain.HuggingFaceClassifier',
    ],
)
def test_a_type_of_a_file_alone_is_not_looked_up(tmp_path, name):
    write(tmp_path / '0', NONLOCAL, {})
    for path in tmp_path.rglob('*.py'):
        text = path.read_text()
        assert "type='ResNet'" in text
        path.write_text(text.replace("type='ResNet'", f'type={name!r}'))
    _, nonlocal_ = compare(tmp_path)
    assert nonlocal_.error.startswith(f'its runs have the type {name!r}, which')
    assert nonlocal_.complexity is None and len(nonlocal_.all_runs) == 1


def test_the_model_replaces_that_of_the_config():
    variant = Variant(NONLOCAL)
    own = variant.load()
    assert own.model == load_config(NONLOCAL).model
    model = dict(type='EncoderDecoder', backbone=dict(type='nl_plugins.WithBlocks'))
    cfg = replace(variant, model=model).load()
    assert cfg.model == model and cfg.optim_wrapper == own.optim_wrapper
