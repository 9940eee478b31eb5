"""The tool that draws what a block attends to."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nl_plugins.engine.config import load_config
from nl_plugins.registry import MODELS

CONFIG = Path(__file__).parents[2] / (
    'configs/demo/mask-rcnn_r18-2stages-nl-c3_fpn_demo.py'
)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Config, checkpoint with random weights, and image."""
    folder = tmp_path_factory.mktemp('files')
    model = MODELS.build(load_config(str(CONFIG)).model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'model.pth')
    pixels = np.random.default_rng(0).integers(0, 256, (96, 192, 3), np.uint8)
    Image.fromarray(pixels).save(folder / 'picture.png')
    return [str(CONFIG), *(str(folder / name) for name in ('model.pth', 'picture.png'))]


def test_a_detectors_block_is_drawn(load_tool, files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'visualize_attention.py',
            *files,
            '--point',
            '20',
            '30',
            '--point',
            '150.5',
            '60',
            '--show-dir',
            str(tmp_path),
        ],
    )
    load_tool('visualize_attention').main()
    out = capsys.readouterr().out
    assert out.endswith(f'written: {tmp_path}\n')
    assert 'block: backbone.layer2.1.non_local_block\n' in out
    assert 'detections with a score of at least 0.5: ' in out
    assert sorted(path.name for path in tmp_path.rglob('*.png')) == [
        f'picture_{what}_0.png'
        for what in ('point0', 'point1', 'with_block', 'without_block')
    ]


@pytest.mark.parametrize(
    'changed, options, message',
    [
        (1, [], "no checkpoint 'no'"),
        (2, [], "no file 'no'"),
        (None, ['--block', 'no'], "no block 'no', it has 'backbone.layer2.1.non_"),
        (None, ['--point', '192', '0'], r'\(192.0, 0.0\) is no pixel .*192 x 96'),
    ],
)
def test_what_is_wrong_is_named(
    load_tool, files, tmp_path, monkeypatch, changed, options, message
):
    arguments = ['no' if i == changed else f for i, f in enumerate(files)]
    monkeypatch.setattr(
        sys,
        'argv',
        ['visualize_attention.py', *arguments, *options, '--show-dir', str(tmp_path)],
    )
    with pytest.raises(SystemExit, match=f'error: .*{message}'):
        load_tool('visualize_attention').main()
