"""Tables in a terminal and as Markdown, CSV files, and the progress bar."""

import csv
import itertools
import sys
from types import SimpleNamespace

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


def test_a_plotted_table_in_a_terminal(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    show('## [group]', TABLE)
    out = capsys.readouterr().out
    for text in '## [group]', 'Size', 'a [b]', '1 | 2', 'remark', '┃':
        assert text in out
    assert '|---' not in out


def test_csv_leaves_what_is_missing_empty(tmp_path):
    write_csv(tmp_path / 'a.csv', ['x', 'y'], [dict(x=1), dict(x=2, y='z')])
    with open(tmp_path / 'a.csv') as file:
        assert list(csv.reader(file)) == [['x', 'y'], ['1', ''], ['2', 'z']]


@pytest.fixture
def clock(monkeypatch):
    """Steps take 2 minutes each."""
    times = itertools.count(0, 120)
    clock = SimpleNamespace(monotonic=lambda: next(times))
    monkeypatch.setattr('nl_plugins.analysis.progress.time', clock)


def test_progress_is_a_line_for_each_step(clock, capsys):
    with progress(3) as tell:
        tell('first')
        tell('second')
        tell('third')
    assert capsys.readouterr().err.splitlines() == [
        '   1 of 3: first',
        '   2 of 3, 4 min left: second',
        '   3 of 3, 2 min left: third',
    ]


def test_progress_is_a_bar_in_a_terminal(clock, terminal, capsys):
    with progress(3) as tell:
        tell('first')
        tell('second')
    err = capsys.readouterr().err
    assert '1 of 3: first' in err and '2 of 3, 4 min left: second' in err
    assert '━' in err
