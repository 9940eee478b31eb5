"""The generated dataset: reproducible, balanced, and its cue far away."""

import json
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from demo import detection, scene
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from pycocotools.coco import COCO
from scenes import columns_seen, files, lamp_columns

CONFIGS = Path(__file__).parents[3] / 'configs' / 'demo'
BASELINE = 'mask-rcnn_r18-2stages_fpn_demo.py'
WITH_BLOCKS = [
    'mask-rcnn_r18-2stages-nl-c3_fpn_demo.py',
    'mask-rcnn_r18-2stages-dnl-c3_fpn_demo.py',
]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp('dataset')
    detection.generate_dataset(root, num_train=24, num_val=10)
    return root


def test_same_arguments_give_the_same_bytes(dataset, tmp_path):
    detection.generate_dataset(tmp_path / 'a', num_train=24, num_val=10)
    assert files(tmp_path / 'a') == files(dataset)
    detection.generate_dataset(tmp_path / 'b', num_train=24, num_val=10, seed=1)
    other = files(tmp_path / 'b')
    assert other.keys() == files(dataset).keys()
    assert not other.items() & files(dataset).items()


def test_training_and_validation_share_no_image(dataset):
    images = [(dataset / subset).glob('*.png') for subset in ('train', 'val')]
    train, val = ({path.read_bytes() for path in paths} for paths in images)
    assert len(train) == 24 and len(val) == 10
    assert not train & val


@pytest.mark.parametrize('subset', ['train', 'val'])
def test_annotations_describe_the_images(dataset, subset):
    coco = COCO(dataset / 'annotations' / f'instances_{subset}.json')
    names = tuple(c['name'] for c in coco.loadCats(coco.getCatIds()))
    assert names == detection.CLASSES
    lamps = []
    for info in coco.loadImgs(coco.getImgIds()):
        image = mmcv.imread(dataset / subset / info['file_name'], channel_order='rgb')
        assert image.shape == (info['height'], info['width'], 3)
        annotations = coco.loadAnns(coco.getAnnIds(info['id']))
        columns = lamp_columns(image)
        red, _, blue = image[:, columns].max(axis=0).mean(axis=0)
        lamps.append('orange' if red > blue else 'blue')
        taken = np.zeros(image.shape[:2], int)
        for annotation in annotations:
            assert names[annotation['category_id'] - 1] == lamps[-1]
            mask = coco.annToMask(annotation)
            taken += mask
            # what is drawn is what is annotated: bright inside, dark outside
            x, y, width, height = map(int, annotation['bbox'])
            box = np.s_[y : y + height, x : x + width]
            assert mask.sum() == mask[box].sum() == annotation['area']
            bright = image[box].mean(axis=2) > 135
            assert (bright == mask[box]).mean() > 0.99
            # the gap between the shape and the lamp
            gap = max(columns.min() - (x + width), x - (columns.max() + 1))
            assert gap >= scene.MIN_DISTANCE
        assert taken.max() == 1
    assert lamps.count('orange') == lamps.count('blue')


def test_too_few_images_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match='num_val must be at least 2.*got 1'):
        detection.generate_dataset(tmp_path / 'a', num_val=1)
    assert not (tmp_path / 'a').exists()


def test_config_and_data_set_agree_on_the_classes():
    cfg = Config.fromfile(CONFIGS / BASELINE)
    assert cfg.metainfo.classes == detection.CLASSES


def test_queries_are_shapes_of_each_class(dataset):
    queries = detection.find_queries(dataset)
    assert len(queries) == len(detection.CLASSES)
    content = json.loads((dataset / 'annotations' / 'instances_val.json').read_text())
    names = {image['file_name']: image['id'] for image in content['images']}
    coco = COCO(dataset / 'annotations' / 'instances_val.json')
    for label, (path, (x, y)) in enumerate(queries):
        shapes = coco.loadAnns(coco.getAnnIds(names[path.name], catIds=label + 1))
        assert any(coco.annToMask(shape)[int(y), int(x)] for shape in shapes)


def features_of(config):
    """Backbone and neck of a demo config."""
    cfg = Config.fromfile(CONFIGS / config)
    init_default_scope('mmdet')
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    return torch.nn.Sequential(detector.backbone, detector.neck)


def test_baseline_cannot_see_the_lamp_from_a_shape():
    columns, pixel, stride = columns_seen(features_of(BASELINE))
    # 115 px as in the table of the module, centred on the first pixel of the
    # feature's cell
    assert (columns.min(), columns.max()) == (pixel - 57, pixel + 57)
    # RoIAlign reads up to one more cell to each side
    assert 57 + stride < scene.MIN_DISTANCE


@pytest.mark.parametrize('config', WITH_BLOCKS)
def test_detectors_with_a_block_see_all(config):
    columns, _, _ = columns_seen(features_of(config))
    assert len(columns) == 2 * scene.WIDTH
