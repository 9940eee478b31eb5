"""Attention of a recognizer's block, over the frames of a video."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from demo import video
from mmengine.config import Config

from nl_plugins import NonLocal3d
from nl_plugins.errors import OptionError
from nl_plugins.visualization import attention

init_recognizer = pytest.importorskip('mmaction.apis').init_recognizer

CONFIGS = Path(__file__).parents[2] / 'configs' / 'demo'


def recognizer(name):
    return init_recognizer(
        str(CONFIGS / f'c2d_r18-2stages{name}_demo.py'), device='cpu'
    )


@pytest.fixture(scope='module')
def queries(tmp_path_factory):
    root = tmp_path_factory.mktemp('dataset')
    video.generate_dataset(root, 8, 8)
    return video.find_queries(root)


def peak_at(size, *position):
    weights = torch.zeros(size)
    weights[position] = 1
    return weights


def test_maps_belong_to_the_query_in_the_last_frame(queries, monkeypatch):
    asked = []

    def attention_weights(block, x, positions):
        asked.append((tuple(x.shape), positions.tolist()))
        return peak_at((4, 8, 16), 1, 3, 5)[None, None], peak_at((4, 8, 16), 0, 7, 15)[
            None
        ]

    monkeypatch.setattr(NonLocal3d, 'attention_weights', attention_weights)
    seen, maps = attention.attention_maps(
        recognizer('-nl-c3'), queries[0][0], (100.0, 50.0)
    )
    # stride 8: row 50 // 8, column 100 // 8
    assert asked == [((1, 32, 4, 8, 16), [[3, 6, 12]])]
    frames = seen.frames
    assert frames.shape == (4, video.HEIGHT, video.WIDTH, 3)
    for name, (t, row, column) in (('pairwise', (1, 3, 5)), ('unary', (0, 7, 15))):
        weights = maps[name].weights
        assert weights.shape == frames.shape[:3]
        peak = np.unravel_index(weights.argmax(), weights.shape)
        assert (peak[0], peak[1] // 8, peak[2] // 8) == (t, row, column)


def test_frames_and_crops_of_a_2d_recognizer(queries, monkeypatch):
    # Ten crops of four frames come as one batch of forty.
    cfg = Config.fromfile(CONFIGS / 'c2d_r18-2stages_demo.py')
    cfg.model = dict(
        type='Recognizer2D',
        backbone=dict(
            type='nl_plugins.WithBlocks',
            base='ResNetTSM',
            depth=18,
            num_segments=4,
            pretrained2d=False,
            blocks=[dict(type='nl_plugins.NonLocal3d', num_frames=4, after='layer2.0')],
        ),
        cls_head=dict(
            type='TSMHead',
            num_segments=4,
            num_classes=2,
            in_channels=512,
            average_clips='prob',
        ),
        data_preprocessor=dict(type='ActionDataPreprocessor'),
    )
    cfg.test_pipeline = [
        dict(type='DecordInit'),
        dict(type='SampleFrames', clip_len=1, num_clips=4, test_mode=True),
        dict(type='DecordDecode'),
        dict(type='TenCrop', crop_size=64),
        dict(type='FormatShape', input_format='NCHW'),
        dict(type='PackActionInputs'),
    ]
    cfg.test_dataloader.dataset.pipeline = cfg.test_pipeline
    model = init_recognizer(cfg, device='cpu')
    asked = []

    def attention_weights(block, x, positions):
        asked.append((tuple(x.shape), positions.tolist()))
        return peak_at((4, 8, 8), 0, 2, 1)[None, None], None

    monkeypatch.setattr(NonLocal3d, 'attention_weights', attention_weights)
    seen, maps = attention.attention_maps(model, queries[0][0], (50.0, 10.0))
    assert asked == [((4, 128, 8, 8), [[3, 1, 6]])]
    frames = seen.frames
    assert frames.shape == (4, 64, 64, 3)
    assert maps['pairwise'].weights.shape == frames.shape[:3]
    # the first of the crops, at the upper left
    whole, _ = attention.attention_maps(recognizer('-nl-c3'), queries[0][0], (0, 0))
    assert np.abs(frames[0].astype(int) - whole.frames[0, :64, :64]).mean() < 8


def test_a_block_for_images_is_refused(queries):
    cfg = Config.fromfile(CONFIGS / 'c2d_r18-2stages_demo.py')
    cfg.model.backbone = dict(
        type='nl_plugins.WithBlocks',
        base='mmaction.C2D',
        depth=18,
        blocks=[dict(type='nl_plugins.NonLocal2d', after='layer3.0')],
    )
    cfg.model.cls_head.in_channels = 512
    with pytest.raises(OptionError, match='for clips, but .* NonLocal2d'):
        attention.attention_maps(
            init_recognizer(cfg, device='cpu'), queries[0][0], (0, 0)
        )


def test_a_pixel_outside_is_named(queries):
    with pytest.raises(OptionError, match=r'\(128, 3\) is no pixel.*128 x 64'):
        attention.attention_maps(recognizer('-nl-c3'), queries[0][0], (128, 3))


def test_picture_has_a_strip_per_query_and_term(queries, tmp_path, monkeypatch, panels):
    models = dict(NL=recognizer('-nl-c3'), DNL=recognizer('-dnl-c3'))
    attention.compare_attention(models, queries, tmp_path / 'strips.png')
    (rows,) = panels
    # the input once, and three maps, each over the whole width
    strips = [panel for (panel,) in rows]
    titles = ['query in frame 4 of 4', 'NL: pairwise', 'DNL: pairwise', 'DNL: unary']
    assert [strip.title.splitlines()[0] for strip in strips] == 2 * titles
    space = round(0.02 * video.WIDTH)
    last = 3 * (video.WIDTH + space)
    for strip, (x, y) in zip(strips, [point for _, point in queries for _ in titles]):
        # in the last of four frames
        assert strip.cross == (last + x, y)
        assert strip.border == (last, video.WIDTH)
        assert strip.image.shape == (video.HEIGHT, last + video.WIDTH, 3)
        if strip.values is not None:
            frames = [
                strip.values[:, left : left + video.WIDTH]
                for left in range(0, last + 1, video.WIDTH + space)
            ]
            assert not any(np.array_equal(a, b) for a, b in zip(frames, frames[1:]))
            assert np.isnan(strip.values[:, video.WIDTH : video.WIDTH + space]).all()
    assert cv2.imread(str(tmp_path / 'strips.png')).shape[1] == 1380
