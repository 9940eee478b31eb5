"""The options of tools/benchmark.py."""

import sys
from pathlib import Path

from nl_plugins.analysis.benchmark.measure import Result


def test_a_preset_sets_what_the_command_line_does_not(load_tool, monkeypatch):
    tool = load_tool('benchmark')
    monkeypatch.setattr(sys, 'argv', ['benchmark.py'])
    assert tool.parse_args().sizes == [(64, 128)]
    command = ['benchmark.py', '--preset', 'readme', '--channels', '64', '--repeats=1']
    monkeypatch.setattr(sys, 'argv', command)
    args = tool.parse_args()
    assert args.channels == [64] and args.repeats == 1
    assert args.dtypes == ['fp32', 'tf32', 'bf16', 'fp16']
    assert args.sizes[0] == (14, 14) and args.sizes[-1] == (128, 256)


def test_what_was_written_is_named(load_tool, monkeypatch, tmp_path, capsys):
    tool = load_tool('benchmark')
    command = f'benchmark.py --blocks gaussian --sizes 4 --out {tmp_path}'.split()
    monkeypatch.setattr(sys, 'argv', command)
    result = dict.fromkeys(('upstream', 'nl_plugins', 'matmul'), Result(1.0, 1.0))
    monkeypatch.setattr(tool, 'compare', lambda case, repeats: result)
    tool.main()
    files = [f'{tmp_path}/benchmark.{suffix}' for suffix in ('md', 'csv', 'png')]
    assert capsys.readouterr().out.endswith(f'written: {", ".join(files)}\n')
    assert all(Path(file).is_file() for file in files)
