"""Runs of all kinds, from the files that the runner leaves."""

import math

import pytest
from analysis.comparison.recorded import train_records, write_run
from mmengine.config import Config

from nl_plugins import engine
from nl_plugins.analysis.comparison.runs import (
    _work_dirs,
    best,
    describe_difference,
    find_runs,
    group_runs,
    mean_and_spread,
    read_run,
    settings_of,
)
from nl_plugins.engine.config import load_config


def test_a_complete_run(tmp_path):
    write_run(tmp_path, train_records((1, 2), 0.2), seed=7)
    run = read_run(tmp_path)
    assert (run.name, run.seed, run.state) == ('model', 7, '')
    assert [r['iteration'] for r in run.train] == [2, 4, 6, 8]
    assert [r['iteration'] for r in run.val] == [4, 8]
    (metric,) = run.metrics()
    assert (metric.name, run.values(metric)) == ('box AP', [20, 40])
    assert run.training_seconds == 8 * 0.5


def test_a_resumed_run_is_one_with_what_it_went_on_from(tmp_path):
    records = [*train_records((1,), 0.2), *train_records((2,), 0.9)][:-2]
    write_run(tmp_path, records)
    # It stopped after iteration 6 and goes on from the checkpoint of 4.
    write_run(
        tmp_path,
        train_records((2,), 0.2, time=1.0),
        stamp='20250101_010000',
        resume=True,
    )
    run = read_run(tmp_path)
    assert [r['iteration'] for r in run.train] == [2, 4, 6, 8]
    assert [r['time'] for r in run.train] == [0.5, 0.5, 1.0, 1.0]
    assert run.values(run.metrics()[0]) == [20, 40]
    assert run.state == ''


def test_a_restarted_run_replaces_the_earlier_one(tmp_path):
    write_run(tmp_path, train_records((1, 2), 0.4))
    write_run(tmp_path, train_records((1, 2), 0.3), stamp='20250102_000000')
    run = read_run(tmp_path)
    assert run.values(run.metrics()[0]) == [30, 60]
    assert len(run.train) == 4


def test_a_test_is_no_run(tmp_path):
    write_run(tmp_path / 'tested', [{'coco/bbox_mAP': 0.5, 'step': 0}])
    write_run(tmp_path / 'both', train_records((1, 2), 0.2))
    write_run(
        tmp_path / 'both', [{'coco/bbox_mAP': 0.9, 'step': 0}], stamp='20250102_000000'
    )
    (run,) = find_runs([tmp_path])
    assert run.work_dir == tmp_path / 'both'
    assert run.values(run.metrics()[0])[-1] == 40


def test_unfinished_and_broken_runs_say_so(tmp_path):
    records = list(train_records((1, 2), 0.2))
    write_run(tmp_path / 'a', records[:4])
    write_run(tmp_path / 'b', records[:1])
    write_run(tmp_path / 'c', [*records[:-2], dict(records[-2], loss=math.nan)])
    folder = write_run(tmp_path / 'd', records[:4])
    with open(folder / 'scalars.json', 'a') as file:
        file.write('{"loss": 0.')  # killed while writing
    folder = write_run(tmp_path / 'e', records[:0])
    (folder / 'scalars.json').unlink()
    states = {run.work_dir.name: run.state for run in find_runs([tmp_path])}
    assert states == dict(
        a='1 of 2 epochs',
        b='0 of 2 epochs',
        c='loss is nan',
        d='1 of 2 epochs',
        e='no record',
    )


def test_the_last_checkpoint_proves_that_a_run_is_complete(tmp_path):
    records = list(train_records((1, 2), 0.2))[:-1]  # without its evaluation
    write_run(tmp_path, records)
    assert read_run(tmp_path).state == '1 of 2 epochs'
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_2.pth')
    assert read_run(tmp_path).state == '1 of 2 epochs'
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    assert read_run(tmp_path).state == ''
    # left behind by the training that another one has replaced
    write_run(tmp_path, records[:1], stamp='20250102_000000')
    assert read_run(tmp_path).state == '0 of 2 epochs'


def test_a_run_that_cannot_be_read_is_one_of_many(tmp_path):
    records = list(train_records((1, 2), 0.2))
    write_run(tmp_path / 'a', records)
    folder = write_run(tmp_path / 'b', records)
    (folder / 'config.py').write_text('no = Python(')
    folder = write_run(tmp_path / 'c', records)
    with open(folder / 'scalars.json', 'a') as file:
        file.write('null\n5\n{"loss": 1.0}\n')
    write_run(tmp_path / 'd', [])
    # crashed before its first record, tested afterwards
    write_run(tmp_path / 'e', [])
    write_run(
        tmp_path / 'e', [{'coco/bbox_mAP': 0.5, 'step': 0}], stamp='20250102_000000'
    )
    runs = {run.work_dir.name: run for run in find_runs([tmp_path])}
    assert [run.state.partition(':')[0] for run in runs.values()] == [
        '',
        'config.py cannot be read',
        '',
        'no record',
        'no record',
    ]
    assert runs['b'].name == 'model'


def test_a_config_of_a_run_is_read_and_never_executed(tmp_path):
    folder = write_run(tmp_path / 'a', train_records((1, 2), 0.2))
    harm = tmp_path / 'harm'
    path = folder / 'config.py'
    path.write_text(
        f"__import__('os').mkdir({str(harm)!r})\n"
        + path.read_text()
        + f"x = __import__('os').mkdir({str(harm)!r})\n"
        f"dict(a=open({str(harm)!r}, 'w'))\n"
    )
    (run,) = find_runs([tmp_path])
    assert not harm.exists()
    assert run.settings['x'] == f"__import__('os').mkdir({str(harm)!r})"
    assert run.settings['train_cfg.max_epochs'] == 2


@pytest.mark.parametrize(
    'text',
    [
        '(' * 10**4,
        f'x = {"-" * 10**5}1',
        f'x = 1{"+1" * 10**5}',
        'x = dict(**y)',
        '\0',
        'x = "\\x"',
    ],
)
def test_a_config_of_a_run_may_be_anything(tmp_path, text):
    folder = write_run(tmp_path, train_records((1, 2), 0.2))
    (folder / 'config.py').write_text(text)
    (run,) = find_runs([tmp_path])
    assert 'config.py cannot be read' in run.state or 'x' in run.settings


def test_settings_are_those_of_the_config(tmp_path):
    cfg = Config(
        dict(
            model=dict(
                scale=(1333, 800),
                rate=-1e-3,
                limit=float('inf'),
                heads=[dict(a=1), dict(b=[(1, 2)])],
                none=None,
            ),
            paramwise_cfg=dict(custom_keys={'backbone.layer1': dict(lr_mult=0.1)}),
            tuple_of_one=('x',),
            empty={},
            nothing=[],
            work_dir='here',
        )
    )
    assert settings_of(cfg) == {
        'model.scale': (1333, 800),
        'model.rate': -1e-3,
        'model.limit': 'inf',
        'model.heads.0.a': 1,
        'model.heads.1.b.0': (1, 2),
        'model.none': None,
        'paramwise_cfg.custom_keys.backbone.layer1.lr_mult': 0.1,
        'tuple_of_one': ('x',),
        'empty': {},
        'nothing': [],
    }


def test_a_folder_is_searched_once_and_behind_links(tmp_path, monkeypatch):
    write_run(tmp_path / 'real' / 'a', train_records((1, 2), 0.2))
    (tmp_path / 'linked').mkdir()
    (tmp_path / 'linked' / 'b').symlink_to(tmp_path / 'real' / 'a')
    (tmp_path / 'linked' / 'loop').symlink_to(tmp_path / 'linked')
    monkeypatch.chdir(tmp_path)
    assert len(find_runs(['linked'])) == 1
    assert len(list(_work_dirs('linked'))) == 1  # not round and round
    assert len(find_runs(['real', str(tmp_path / 'real'), 'linked/..'])) == 1


def test_pretrained_and_not_are_different_runs(tmp_path):
    for name in 'ab':
        write_run(tmp_path / name, train_records((1,), 0.2))
        write_run(
            tmp_path / name,
            train_records((2,), 0.2),
            resume=True,
            stamp='20250102_000000',
        )
        for number, path in enumerate(
            sorted((tmp_path / name).glob('*/vis_data/config.py'))
        ):
            # a resumed run loads its own checkpoint
            start = 'weights.pth' if name == 'a' else None
            text = f'load_from = {f"{name}.pth" if number else start!r}\n'
            path.write_text(path.read_text() + text)
    one, other = group_runs(find_runs([tmp_path]))
    assert (
        describe_difference(one[0].settings, other[0].settings)
        == "load_from='weights.pth'"
    )


def test_an_evaluation_may_lack_the_metric_or_be_nan(tmp_path):
    records = list(train_records((1, 2), 0.2))
    records.append({'coco/segm_mAP': math.nan, 'step': 2})
    write_run(tmp_path, records)
    run = read_run(tmp_path)
    assert [m.name for m in run.metrics()] == ['box AP', 'mask AP']
    assert best([math.nan, 3.0, 2.0]) == 3.0
    assert math.isnan(best([math.nan]))
    assert mean_and_spread([math.nan, 1.0], 1) == 'nan'


def test_evaluations_of_iterations_say_where_they_were(tmp_path):
    folder = write_run(
        tmp_path,
        [
            dict(loss=1.0, step=40),
            dict(mIoU=5.0, step=50),
            dict(loss=1.0, step=80),
            dict(mIoU=6.0, step=100),
        ],
    )
    path = folder / 'config.py'
    path.write_text('train_cfg = dict(max_iters=100)')
    run = read_run(tmp_path)
    assert [r['iteration'] for r in run.val] == [50, 100]
    assert run.state == ''


def test_runs_that_differ_in_their_seed_alone_are_together(tmp_path):
    for name, options in dict(
        a=dict(seed=0), b=dict(seed=1), c=dict(seed=0, lr=0.2)
    ).items():
        write_run(tmp_path / name, train_records((1, 2), 0.2), **options)
    write_run(tmp_path / 'd', train_records((1,), 0.2))
    groups = group_runs(find_runs([tmp_path]))
    assert [[run.work_dir.name for run in g] for g in groups] == [
        ['a', 'b'],
        ['c'],
        ['d'],
    ]
    assert (
        describe_difference(groups[1][0].settings, groups[0][0].settings)
        == 'optim_wrapper.optimizer.lr=0.2'
    )


def test_metrics_nobody_knows_are_shown_as_they_are(tmp_path):
    write_run(
        tmp_path,
        [dict(loss=1.0, step=5, epoch=1), dict(RMSE=0.25, time=1.0, step=1, note='x')],
    )
    run = read_run(tmp_path)
    assert [(m.name, run.values(m)) for m in run.metrics()] == [('RMSE', [0.25])]


def test_a_folder_without_runs(tmp_path):
    assert find_runs([tmp_path]) == []
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        read_run(tmp_path)


def test_mean_and_spread():
    assert mean_and_spread([45.0], 1) == '45.0'
    assert mean_and_spread([40.0, 50.0], 1) == '45.0 ± 7.1'


def test_what_the_command_line_changed_is_what_differs_from_the_config(toy):
    for options, difference in (
        (dict(), ''),
        (
            dict(optim_wrapper__optimizer__lr=0.5, randomness__seed=3),
            'optim_wrapper.optimizer.lr=0.5',
        ),
    ):
        cfg = toy(**options)
        name = cfg.filename
        engine.train(cfg)
        run = read_run('work')
        assert (
            describe_difference(run.settings, settings_of(load_config(name)))
            == difference
        )
