"""What a user can fix is one message."""

import pytest

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
