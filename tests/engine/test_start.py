"""A start that fails leaves its error, and nothing else."""

import time
from pathlib import Path

import pytest
import torch
from toy_run import ToyDataset, ToyModel

from nl_plugins import engine, errors
from nl_plugins.engine.start import Start


def fail(error):
    def forward(*args, **kwargs):
        raise error

    return forward


def test_a_failed_start_shows_no_log_and_leaves_no_folder(toy, monkeypatch, capsys):
    monkeypatch.setattr(ToyModel, 'forward', fail(errors.OptionError('wrong')))
    with pytest.raises(errors.OptionError):
        engine.train(toy())
    assert capsys.readouterr().out == 'Starting, in work\n'
    assert not Path('work').exists()


def test_the_log_of_an_unexpected_error_is_shown(toy, monkeypatch, capsys):
    monkeypatch.setattr(ToyModel, 'forward', fail(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        engine.train(toy())
    assert 'System environment' in capsys.readouterr().out
    assert not Path('work').exists()


@pytest.mark.parametrize('command', ['resume', 'test'])
def test_a_failed_start_leaves_what_was_there(toy, checkpoint, monkeypatch, command):
    def files():
        return {path: path.is_file() and path.read_bytes() for path in work.rglob('*')}

    work = Path('work')
    before = files()
    time.sleep(1)  # the name of the next run's folder is its time in seconds
    monkeypatch.setattr(ToyModel, 'forward', fail(errors.OptionError('wrong')))
    with pytest.raises(errors.OptionError):
        if command == 'test':
            engine.test(toy(), checkpoint)
        else:
            engine.train(toy(train_cfg__max_epochs=2000), resume=checkpoint)
    assert files() == before


def test_a_folder_with_more_than_the_log_stays(toy, monkeypatch):
    def forward(*args, **kwargs):
        (log,) = Path('work').glob('*/*.log')
        log.with_suffix('.png').touch()
        raise errors.OptionError('wrong')

    monkeypatch.setattr(ToyModel, 'forward', forward)
    with pytest.raises(errors.OptionError):
        engine.train(toy())
    assert len([*Path('work').glob('*/*.log')]) == 1


def test_a_run_that_has_started_keeps_its_folder_and_shows_its_log(
    toy, monkeypatch, capsys
):
    forward, calls = ToyModel.forward, []

    def forward_once(*args, **kwargs):
        calls.append(None)
        if len(calls) > 1:
            raise errors.OptionError('wrong')
        return forward(*args, **kwargs)

    monkeypatch.setattr(ToyModel, 'forward', forward_once)
    with pytest.raises(errors.OptionError):
        engine.train(toy())
    assert 'System environment' in capsys.readouterr().out
    assert [*Path('work').glob('*/*.log')]


def test_what_workers_print_is_shown(toy, monkeypatch, capfd):
    def get(self, index):
        print('from a worker', flush=True)
        return {'inputs': torch.zeros(1)}

    monkeypatch.setattr(ToyDataset, '__getitem__', get)
    engine.train(toy(train_dataloader__num_workers=1, train_cfg__max_epochs=1))
    assert capfd.readouterr().out.count('from a worker') == 4


def test_an_interrupted_start_leaves_no_folder(toy, monkeypatch):
    monkeypatch.setattr(ToyModel, 'forward', fail(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        engine.train(toy())
    assert not Path('work').exists()


@pytest.mark.parametrize('launcher, stays', [('none', True), ('pytorch', False)])
def test_an_empty_work_dir_goes_if_another_process_made_it(toy, launcher, stays):
    cfg = toy()
    cfg.launcher = launcher
    Path('work').mkdir()
    with pytest.raises(errors.OptionError), Start(cfg):
        raise errors.OptionError('wrong')
    assert Path('work').exists() == stays
