"""Tables in a terminal and as Markdown, CSV files, and the progress bar."""

import csv

import pytest

from nl_plugins.analysis.progress import progress
from nl_plugins.analysis.tables import Table, show, write_csv

TABLE = Table('Size', ['model', 'FLOPs'], [['a [b]', '1 | 2'], ['c', '']], 'remark')


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')


def test_markdown_outside_of_a_terminal(capsys):
    show('## group', TABLE)
    assert capsys.readouterr().out == (
        '## group\n\n### Size\n\n'
        '| model | FLOPs  |\n'
        '|-------|--------|\n'
        '| a [b] | 1 \\| 2 |\n'
        '| c     |        |\n\n'
        'remark\n\n'
    )


def test_a_plotted_table_in_a_terminal(terminal, capsys):
    show('## [group]', TABLE)
    out = capsys.readouterr().out
    for text in '## [group]', 'Size', 'a [b]', '1 | 2', 'remark', '┃':
        assert text in out
    assert '|---' not in out


def test_csv_leaves_what_is_missing_empty(tmp_path):
    write_csv(tmp_path / 'a.csv', ['x', 'y'], [dict(x=1), dict(x=2, y='z')])
    with open(tmp_path / 'a.csv') as file:
        assert list(csv.reader(file)) == [['x', 'y'], ['1', ''], ['2', 'z']]


def test_progress_is_a_line_for_each_step(capsys):
    with progress(2) as tell:
        tell('first')
        tell('second')
    assert capsys.readouterr().err == '   1/2 first\n   2/2 second\n'


def test_progress_is_a_bar_in_a_terminal(terminal, capsys):
    with progress(2) as tell:
        tell('first')
        tell('second')
    err = capsys.readouterr().err
    assert '0/2' in err and '1/2' in err and 'second' in err
    assert 'left' in err
