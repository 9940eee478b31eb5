"""Attention of blocks in an image: maps, and pictures of several models."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from demo import detection, scene

from nl_plugins import DisentangledNonLocal2d
from nl_plugins.visualization import attention

CONFIGS = Path(__file__).parents[2] / 'configs' / 'demo'


def detector(name):
    from mmdet.apis import init_detector

    return init_detector(
        str(CONFIGS / f'mask-rcnn_r18-2stages{name}_fpn_demo.py'),
        palette='random',
        device='cpu',
    )


@pytest.fixture(scope='module')
def queries(tmp_path_factory):
    root = tmp_path_factory.mktemp('dataset')
    detection.generate_dataset(root, num_train=2, num_val=2)
    return detection.find_queries(root)


def test_maps_belong_to_the_query_and_fit_the_image(queries, monkeypatch):
    model = detector('-dnl-c3')
    asked = []

    def attention_weights(block, x, positions):
        asked.append((tuple(x.shape[2:]), positions.tolist()))
        pairwise, unary = torch.zeros(2, 1, 12, 24)
        pairwise[0, 3, 5] = unary[0, 11, 23] = 1
        return pairwise[None], unary

    monkeypatch.setattr(DisentangledNonLocal2d, 'attention_weights', attention_weights)
    _, maps = attention.attention_maps(model, queries[0][0], (100.0, 50.0))
    # stride 8: row 50 // 8, column 100 // 8
    assert asked == [((12, 24), [[6, 12]])]
    assert list(maps) == ['pairwise', 'unary']
    for term, row, column in (('pairwise', 3, 5), ('unary', 11, 23)):
        (weights,) = maps[term].weights
        assert weights.shape == (scene.HEIGHT, scene.WIDTH)
        peak = np.unravel_index(weights.argmax(), weights.shape)
        assert (peak[0] // 8, peak[1] // 8) == (row, column)


def test_plain_block_has_no_unary_map(queries):
    _, maps = attention.attention_maps(detector('-nl-c3'), *queries[0])
    assert list(maps) == ['pairwise']


def test_model_without_block_is_refused(queries):
    with pytest.raises(ValueError, match='one non-local block, .* has 0'):
        attention.attention_maps(detector(''), *queries[0])


def test_picture_has_a_row_per_query_and_a_panel_per_map(queries, tmp_path, panels):
    models = {'NL': detector('-nl-c3'), 'DNL': detector('-dnl-c3')}
    attention.compare_attention(models, queries, tmp_path / 'attention.png')
    (rows,) = panels
    for row, (_, point) in zip(rows, queries, strict=True):
        # the input once
        titles = [panel.title.splitlines()[0] for panel in row]
        assert titles == ['query', 'NL: pairwise', 'DNL: pairwise', 'DNL: unary']
        assert all(panel.cross == point for panel in row)
        assert row[0].values is None
        for panel in row[1:]:
            assert f'\npeak {panel.peak:.3g} × mean' in panel.title
            assert panel.values.shape == (scene.HEIGHT, scene.WIDTH)
            # multiples of the mean
            assert 0.9 < panel.values.mean() < 1.1 and panel.values.max() <= panel.peak
    picture = cv2.imread(str(tmp_path / 'attention.png'))
    assert picture.shape[1] == 1380  # two columns of a paper, at 200 pixels per inch


def test_a_window_that_slides_is_not_taken_for_the_image(tmp_path):
    # The window alone would show the map of its own corner.
    from demo import segmentation
    from mmseg.apis import init_model

    segmentation.generate_dataset(tmp_path, 2, 2)
    image, query = segmentation.find_queries(tmp_path)[0]
    model = init_model(str(CONFIGS / 'nonlocal_r18-2stages_demo.py'), device='cpu')
    expected = attention.attention_maps(model, image, query)[1]['pairwise'].weights
    slide = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    model.test_cfg = slide
    actual = attention.attention_maps(model, image, query)[1]['pairwise'].weights
    assert model.test_cfg is slide
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
