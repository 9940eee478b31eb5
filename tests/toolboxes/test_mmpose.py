"""The adapter of MMPose: batches, files, and what a block of a model sees."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image

from nl_plugins.analysis.complexity import input_shape, measure_complexity
from nl_plugins.engine.config import build_model, load_config
from nl_plugins.errors import OptionError
from nl_plugins.toolboxes import toolbox_of
from nl_plugins.visualization import attention, changes, queries, records
from nl_plugins.visualization.samples import load_model, sample_from_file

pytest.importorskip('mmpose')
pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / 'configs/demo/td-hm_r18-2stages-nl-c3_demo.py'
COCO = 'mmpose::body_2d_keypoint/'
HEADS = [
    'topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py',
    'simcc/coco/simcc_res50_8xb64-210e_coco-256x192.py',
    'topdown_regression/coco/td-reg_res50_8xb64-210e_coco-256x192.py',
]


@pytest.mark.parametrize('name', HEADS)
def test_every_kind_of_head_takes_the_batch(name):
    cfg = load_config(COCO + name)
    assert input_shape(cfg) == (256, 192)
    cfg.model.backbone.init_cfg = None
    model = build_model(cfg)
    batch = toolbox_of(cfg).batch(model, (256, 192), 2)
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode='loss')
    assert torch.isfinite(losses['loss_kpt'])
    model.eval()
    with torch.no_grad():
        assert model.test_step(batch)[0].pred_instances.keypoints.shape == (1, 17, 2)


def test_another_size_has_labels_of_that_size():
    cfg = load_config(str(CONFIG))
    model = build_model(cfg)
    batch = toolbox_of(cfg).batch(model, (48, 64), 1)
    assert batch['data_samples'][0].gt_fields.heatmaps.shape == (1, 12, 16)
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    assert torch.isfinite(losses['loss_kpt'])


def test_parameters_and_flops_are_those_of_the_published_model():
    cfg = load_config(COCO + HEADS[0])
    cfg.model.backbone.init_cfg = None
    cost = measure_complexity(cfg)
    # Simple Baselines, Table 2: 34.0 M; GFLOPs of PyTorch's counter
    assert cost.parameters == pytest.approx(34.0e6, rel=1e-3)
    assert cost.flops == pytest.approx(5.45e9, rel=1e-2)


@pytest.fixture
def image(tmp_path) -> Path:
    """A dark image with one bright square of 5 x 5 pixels around (100, 20)."""
    pixels = np.zeros((60, 240, 3), np.uint8)
    pixels[18:23, 98:103] = 255
    path = tmp_path / 'image.png'
    Image.fromarray(pixels).save(path)
    return path


def test_a_pixel_of_the_image_is_found_in_the_box(image):
    cfg = load_config(str(CONFIG))
    # a box with a margin: the affine changes place and scale
    cfg.test_dataloader.dataset.pipeline[1].padding = 1.5
    model = build_model(cfg).eval()
    sample = sample_from_file(cfg, image)
    name, _ = records.choose_block(model)
    seen = records.record(model, sample, name)
    rows, columns = np.nonzero(seen.frames[0].max(axis=2) > 128)
    column, row = queries.seen_pixel(seen, (100, 20))
    assert column == pytest.approx(columns.mean(), abs=1)
    assert row == pytest.approx(rows.mean(), abs=1)
    # a position of the block that contains it has the map's query
    maps = queries.attention_from(seen, (100, 20))
    assert maps['pairwise'].weights.shape == seen.frames.shape[:3]
    left, top, width, _ = seen.window
    with pytest.raises(OptionError, match=f'from {left:.0f}, {top:.0f}'):
        queries.attention_from(seen, (left + width + 1, 20))
    # the keypoint, which may be half of a pixel of the heatmap outside
    (point,) = queries.default_points(seen)
    keypoint = seen.result.pred_instances.keypoints[0, 0]
    assert point == pytest.approx(keypoint, abs=8)
    queries.attention_from(seen, point)


def test_the_change_is_in_pixels(image):
    cfg = load_config(str(CONFIG))
    model = build_model(cfg).eval()
    sample = sample_from_file(cfg, image)
    with torch.no_grad():
        (one,) = model.test_step(pseudo_collate([sample]))
    other = copy.deepcopy(one)
    other.pred_instances.keypoints = one.pred_instances.keypoints + [3, 4]
    (line,) = changes.describe_change(one, other)
    assert line.startswith('keypoints move by 5.0 px, at most 5.0 px; ')


def test_pictures(image, tmp_path):
    cfg = load_config(str(CONFIG))
    checkpoint = tmp_path / 'model.pth'
    torch.save(dict(state_dict=build_model(cfg).state_dict()), checkpoint)
    model = load_model(str(CONFIG), str(checkpoint))
    visualizer = attention.build_visualizer(
        model.cfg, str(tmp_path), model.dataset_meta
    )
    sample = sample_from_file(model.cfg, image)
    attention.plot_attention(model, sample, visualizer, 'image')
    pictures = (tmp_path / 'vis_data/vis_image').glob('image_*_0.png')
    names = {path.stem[len('image_') : -len('_0')] for path in pictures}
    assert names == {'point0', 'with_block', 'without_block'}
