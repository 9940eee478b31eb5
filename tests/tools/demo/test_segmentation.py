"""The generated label maps: what is drawn is labelled, the cue far away."""

from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from demo import scene, segmentation
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from scenes import columns_seen, files, lamp_columns

CONFIGS = Path(__file__).parents[3] / 'configs' / 'demo'
BASELINE = 'fcn_r18-2stages_demo.py'
WITH_BLOCKS = ['nonlocal_r18-2stages_demo.py', 'dnl_r18-2stages_demo.py']
COUNTS = dict(train=8, val=6)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp('dataset')
    segmentation.generate_dataset(root, *COUNTS.values())
    return root


def samples_of(root, subset):
    """The images (RGB) and label maps, as MMSegmentation reads them."""
    cfg = Config.fromfile(CONFIGS / BASELINE)
    init_default_scope('mmseg')
    options = cfg[f'{subset}_dataloader'].dataset
    options.update(data_root=f'{root}/', pipeline=cfg.test_pipeline)
    samples = list(DATASETS.build(options))
    assert len(samples) == COUNTS[subset]
    for sample in samples:
        yield (
            sample['inputs'].numpy()[::-1].transpose(1, 2, 0),
            sample['data_samples'].gt_sem_seg.data[0].numpy(),
        )


def test_same_arguments_give_the_same_bytes(dataset, tmp_path):
    segmentation.generate_dataset(tmp_path / 'a', *COUNTS.values())
    assert files(tmp_path / 'a') == files(dataset)
    segmentation.generate_dataset(tmp_path / 'b', *COUNTS.values(), seed=1)
    other = files(tmp_path / 'b')
    assert other.keys() == files(dataset).keys()
    assert not other.items() & files(dataset).items()


@pytest.mark.parametrize('subset', COUNTS)
def test_labels_describe_the_images(dataset, subset):
    shapes = []
    for image, labels in samples_of(dataset, subset):
        assert image.shape == (*labels.shape, 3)
        lamp = labels == segmentation.TRAFFIC_LIGHT
        columns = lamp_columns(image)
        assert np.array_equal(np.flatnonzero(lamp.any(axis=0)), columns)
        red, _, blue = image[lamp].mean(axis=0)
        (kind,) = set(np.unique(labels)) - {
            segmentation.ROAD,
            segmentation.TRAFFIC_LIGHT,
        }
        assert kind == segmentation.SHAPES[0 if red > blue else 1]
        shapes.append(kind)
        shape = labels == kind
        bright = image.mean(axis=2) > 135
        assert (bright == shape)[~lamp].mean() > 0.99
        gap = np.abs(np.flatnonzero(shape.any(axis=0))[:, None] - columns).min() - 1
        assert gap >= scene.MIN_DISTANCE
    first, second = map(shapes.count, segmentation.SHAPES)
    assert first == second


def test_too_few_images_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match='num_val must be at least 2.*got 1'):
        segmentation.generate_dataset(tmp_path / 'a', num_val=1)
    assert not (tmp_path / 'a').exists()


def test_queries_are_shapes_of_each_class(dataset):
    queries = segmentation.find_queries(dataset)
    assert len(queries) == len(segmentation.SHAPES)
    for shape, (image, (x, y)) in zip(segmentation.SHAPES, queries):
        name = image.name.replace('leftImg8bit', 'gtFine_labelTrainIds')
        labels = mmcv.imread(dataset / 'gtFine/val/demo' / name, flag='unchanged')
        assert labels[int(y), int(x)] == shape


def segmentor(config):
    """A demo segmentor up to its label scores, as columns_seen wants it."""
    cfg = Config.fromfile(CONFIGS / config)
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    model.init_weights()
    return torch.nn.Sequential(model.backbone, AsList(model.decode_head))


class AsList(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return [self.module(x)]


def test_baseline_cannot_see_the_lamp_from_a_shape():
    columns, pixel, stride = columns_seen(segmentor(BASELINE))
    # 131 px as in the table of the module, centred on the first pixel of the
    # feature's cell
    assert (columns.min(), columns.max()) == (pixel - 65, pixel + 65)
    # enlarging to the image reads up to one more cell to each side
    assert 65 + stride < scene.MIN_DISTANCE


@pytest.mark.parametrize('config', WITH_BLOCKS)
def test_heads_with_a_block_see_all(config):
    columns, _, _ = columns_seen(segmentor(config))
    assert len(columns) == 2 * scene.WIDTH


@pytest.mark.parametrize('config', WITH_BLOCKS)
def test_the_value_path_takes_larger_steps_and_nothing_else(config):
    # The names in the config are those of the heads' parameters.
    cfg = Config.fromfile(CONFIGS / config)
    init_default_scope('mmseg')
    from mmengine.optim import build_optim_wrapper

    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    larger = {
        names[id(p)].rpartition('nl_block.')[2].split('.')[0]
        for group in optimizer.param_groups
        for p in group['params']
        if group['lr'] > cfg.optim_wrapper.optimizer.lr
    }
    assert larger == {'g', 'conv_out'}
