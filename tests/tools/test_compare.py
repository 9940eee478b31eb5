"""The tool that compares models with their baseline."""

import sys
from pathlib import Path

import pytest
from analysis.comparison.recorded import train_records, write_run

CONFIGS = Path(__file__).parents[2] / 'configs' / 'demo'


def arguments(tmp_path, *options):
    return [
        'compare.py',
        str(CONFIGS / 'dnl_r18-2stages_demo.py'),
        '--baseline',
        str(CONFIGS / 'fcn_r18-2stages_demo.py'),
        '--shape',
        '32x64',
        '--repeats',
        '0',
        '--out',
        str(tmp_path / 'out'),
        *options,
    ]


def test_everything_is_written(load_tool, tmp_path, monkeypatch, capsys):
    write_run(tmp_path / 'runs', train_records((1, 2), 0.2), 'dnl_r18-2stages_demo')
    write_run(tmp_path / 'others', train_records((1, 2), 0.2), 'stranger')
    monkeypatch.setattr(sys, 'argv', arguments(tmp_path, '--work-dirs', str(tmp_path)))
    load_tool('compare').main()
    out = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'comparison.html',
        'comparison.md',
        'models.csv',
        'runs.csv',
    ]
    text = (tmp_path / 'out/comparison.md').read_text()
    assert text in out and '32 x 64' in text and '40.0' in text
    assert 'Time and memory' not in text
    assert f'left out, of another config: {tmp_path / "others"}' in out


@pytest.mark.parametrize(
    'options, message',
    [
        (['--repeats', '-1'], "'-1' is no integer of at least 0"),
        (['--batch-size', '0'], "'0' is no integer of at least 1"),
        (['--shape', '0x3'], "'0x3' is not L, HxW or TxHxW"),
        (['--device', 'cuda:99'], "'cuda:99' is no device of this machine"),
    ],
)
def test_bad_options_are_refused(
    load_tool, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.setattr(sys, 'argv', arguments(tmp_path, *options))
    with pytest.raises(SystemExit):
        load_tool('compare').main()
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(load_tool, tmp_path, monkeypatch):
    (tmp_path / 'out').write_text('a file')
    monkeypatch.setattr(sys, 'argv', arguments(tmp_path))
    with pytest.raises(SystemExit, match='out cannot be made: File exists'):
        load_tool('compare').main()
