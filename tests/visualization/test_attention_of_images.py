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
    titles, marks = panels
    models = {'NL': detector('-nl-c3'), 'DNL': detector('-dnl-c3')}
    attention.compare_attention(models, queries, tmp_path / 'attention.png')
    row = ['query', 'NL: pairwise', 'query', 'DNL: pairwise', 'DNL: unary']
    assert titles == row * 2
    # enlarged by 2, to a width at which a title can be read
    assert marks == [(2 * x, 2 * y) for _, (x, y) in queries for _ in row]
    picture = cv2.imread(str(tmp_path / 'attention.png'))
    height, width = 2 * scene.HEIGHT + attention._TITLE, 2 * scene.WIDTH
    assert picture.shape == (2 * height, 4 * width, 3)  # the input once
    # a map over the image, not the image
    shown = [
        picture[attention._TITLE : height, k * width : (k + 1) * width]
        for k in range(4)
    ]
    assert not any(np.array_equal(shown[0], panel) for panel in shown[1:])


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
