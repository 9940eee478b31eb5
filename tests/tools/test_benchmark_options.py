"""The options of tools/benchmark.py."""

import sys


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
