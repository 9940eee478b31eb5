"""Parameters and FLOPs of whole models."""

import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from nl_plugins.analysis.complexity import input_shape, measure_complexity
from nl_plugins.engine.config import load_config
from nl_plugins.errors import OptionError

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'configs/demo'


def difference(baseline, config, shape):
    """What a config costs beyond its baseline."""
    found = []
    for name in baseline, config:
        cfg = Config.fromfile(DEMO / name)
        if 'test_cfg' in cfg.model and 'rpn' in cfg.model.test_cfg:
            # as many proposals, whatever the weights
            cfg.model.test_cfg.rpn.max_per_img = 1
        found.append(measure_complexity(cfg, shape))
    first, second = found
    assert first.shape == second.shape
    return (
        second.parameters - first.parameters,
        second.flops - first.flops,
        first.shape,
    )


@pytest.mark.parametrize(
    'axes, frames, places',
    [('', 1, 4 * 8 * 16), ('-space', 4, 8 * 16), ('-time', 8 * 16, 4)],
)
def test_a_block_in_a_recognizer(axes, frames, places):
    pytest.importorskip('mmaction')
    # 4 frames of 64 x 128 at stride 8; 32 channels, 16 of them inside
    parameters, flops, _ = difference(
        'c2d_r18-2stages_demo.py', f'c2d_r18-2stages-nl-c3{axes}_demo.py', (4, 64, 128)
    )
    assert parameters == 4 * 32 * 16 + 3 * 16 + 32
    positions = 4 * 8 * 16
    assert flops == (4 * positions * 32 * 16 + 2 * frames * places**2 * 16)


def test_a_head_of_a_segmentor():
    parameters, flops, shape = difference(
        'fcn_r18-2stages_demo.py', 'nonlocal_r18-2stages_demo.py', None
    )
    assert shape == (96, 192)  # that of the config
    # 64 channels, 32 of them inside; the output layer's norm has its own
    assert parameters == 4 * 64 * 32 + 3 * 32 + 2 * 64
    positions = 12 * 24
    block = 4 * positions * 64 * 32 + 2 * positions**2 * 32
    norm = flops - block
    assert 0 < norm <= 4 * positions * 64


def test_a_block_in_a_detector():
    parameters, flops, shape = difference(
        'mask-rcnn_r18-2stages_fpn_demo.py',
        'mask-rcnn_r18-2stages-nl-c3_fpn_demo.py',
        (96, 192),
    )
    assert parameters == 4 * 64 * 32 + 3 * 32 + 64
    positions = 12 * 24
    assert flops == 4 * positions * 64 * 32 + 2 * positions**2 * 32


@pytest.mark.slow
def test_a_2d_recognizer_runs_all_its_frames():
    # Twice the frames, twice the cost of everything but the classifier.
    pytest.importorskip('mmaction')
    cfg = Config.fromfile(
        ROOT / 'configs/tsm' / 'tsm_imagenet-pretrained-r50-nl-5blocks_8xb16-1x1x8-50e_'
        'kinetics400-rgb.py'
    )
    del cfg.model.backbone['blocks']
    cfg.model.backbone.type = cfg.model.backbone.pop('base')
    one, two = (measure_complexity(cfg, (frames, 32, 32)).flops for frames in (8, 16))
    assert two == pytest.approx(2 * one, rel=0.01)


@pytest.mark.parametrize(
    'name, shape',
    [
        ('c2d/c2d_r50-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb.py', (8, 224, 224)),
        (
            'tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb.py',
            (8, 224, 224),
        ),
        ('c3d/c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb.py', (16, 112, 112)),
        (
            'uniformer/uniformer-base_imagenet1k-pre_16x4x1_kinetics400-rgb.py',
            (16, 224, 224),
        ),
    ],
)
def test_the_input_is_that_of_the_pipeline(name, shape):
    pytest.importorskip('mmaction')
    cfg = load_config(f'mmaction::recognition/{name}')
    assert input_shape(cfg) == shape


def test_an_input_that_is_not_said_is_asked_for():
    cfg = Config.fromfile(DEMO / 'fcn_r18-2stages_demo.py')
    del cfg.model.data_preprocessor['size']
    with pytest.raises(OptionError, match='give it as --shape'):
        measure_complexity(cfg)


def test_a_wrong_number_of_sizes_is_named():
    cfg = Config.fromfile(DEMO / 'fcn_r18-2stages_demo.py')
    with pytest.raises(OptionError, match='is HxW, but got 4x64x64'):
        measure_complexity(cfg, (4, 64, 64))


def test_tool_prints_a_table(load_tool, monkeypatch, capsys):
    tool = load_tool('complexity')
    configs = [
        str(DEMO / f'{name}_r18-2stages_demo.py') for name in ('fcn', 'nonlocal')
    ]
    monkeypatch.setattr(sys, 'argv', ['complexity.py', *configs, '--shape', '64x64'])
    tool.main()
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('| fcn') or line.startswith('| nonlocal')
    ]
    assert [row[0] for row in rows] == [Path(c).stem for c in configs]
    assert rows[0][1:] == ['64 x 64', '0.265 M', '1.00x', rows[0][4], '1.00x']
    assert float(rows[1][3][:-1]) == pytest.approx(273331 / 264915, abs=0.01)


@pytest.mark.parametrize(
    'name, shape',
    [
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', (800, 1280)),
        ('mmdet::ssd/ssd300_coco.py', (300, 300)),
        ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', (640, 640)),
        ('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py', (769, 769)),
    ],
)
def test_images_are_as_large_as_the_config_makes_them(name, shape):
    assert input_shape(load_config(name)) == shape


def test_an_unknown_size_is_asked_for():
    with pytest.raises(OptionError, match='give it as --shape'):
        input_shape(
            load_config(
                str(DEMO / 'fcn_r18-2stages_demo.py'),
                {'model.data_preprocessor.size': None},
            )
        )
