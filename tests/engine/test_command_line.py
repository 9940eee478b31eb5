"""What a user can fix is one message."""

from pathlib import Path

import pytest
import torch

from nl_plugins import errors
from nl_plugins.engine import command_line
from nl_plugins.errors import CheckpointReadError


@pytest.mark.parametrize(
    'error',
    [
        errors.OptionError('what to do'),
        CheckpointReadError('what to do'),
    ],
)
def test_errors_are_one_message(monkeypatch, error):
    with pytest.raises(SystemExit) as caught, command_line.report_errors():
        raise error
    assert caught.value.code == 'error: what to do'
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    with pytest.raises(SystemExit) as caught, command_line.report_errors():
        raise error
    assert caught.value.code == 1


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), command_line.report_errors():
        raise ZeroDivisionError


def test_an_interruption_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught, command_line.report_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_what_was_written_is_one_line_of_the_first_process(capsys, monkeypatch):
    path = Path('work', 'epoch_1.pth')
    command_line.report_written(path.absolute(), None, '/shown')
    assert capsys.readouterr().out == f'written: {path}, /shown\n'
    monkeypatch.setenv('RANK', '1')
    command_line.report_written(path)
    assert not capsys.readouterr().out


def test_a_full_memory_says_what_to_try():
    with pytest.raises(SystemExit) as caught, command_line.report_errors():
        raise torch.cuda.OutOfMemoryError('CUDA out of memory.\nand so on')
    assert caught.value.code.startswith('error: CUDA out of memory. Try --amp')
