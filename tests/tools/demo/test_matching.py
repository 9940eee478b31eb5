"""The images of patches: what is drawn is labelled, and its cue far away."""

import json
from collections import Counter
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from demo import matching
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from scenes import columns_seen, files, stripes

CONFIGS = Path(__file__).parents[3] / 'configs' / 'demo'
COUNTS = dict(train=16, val=8)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp('dataset')
    matching.generate_dataset(root, *COUNTS.values())
    return root


def patch_of(mask):
    """Rows and columns of a patch, without its dark stripes at the edges."""
    rows, columns = np.nonzero(mask)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def look(image):
    """Boxes and stripes of the three patches of an image."""
    image = image.astype(int)
    red_minus_blue = image[..., 0] - image[..., 2]
    masks = dict(
        orange=red_minus_blue > 90,
        blue=red_minus_blue < -90,
        grey=image.min(axis=2) > 130,
    )
    boxes = {name: patch_of(mask) for name, mask in masks.items()}
    return {name: (box, stripes(image[box])) for name, box in boxes.items()}


@pytest.mark.parametrize('subset', COUNTS)
def test_class_and_keypoint_are_the_patch_with_the_stripes_of_the_grey_one(
    dataset, subset
):
    path = dataset / 'annotations' / f'person_keypoints_{subset}.json'
    content = json.loads(path.read_text())
    kinds = Counter()
    for info, annotation in zip(content['images'], content['annotations']):
        image = mmcv.imread(dataset / subset / info['file_name'], channel_order='rgb')
        assert image.shape == (info['height'], info['width'], 3)
        seen = look(image)
        match = next(
            name for name in matching.CLASSES if seen[name][1] == seen['grey'][1]
        )
        assert info['file_name'].startswith(f'{match}/')
        assert {seen[name][1] for name in matching.CLASSES} == {
            'vertical',
            'horizontal',
        }
        assert annotation['image_id'] == info['id']
        x, y, visible = annotation['keypoints']
        rows, columns = seen[match][0]
        assert visible == 2
        # the last stripe of a patch is dark
        assert x == pytest.approx((columns.start + columns.stop) / 2, abs=3)
        assert y == pytest.approx((rows.start + rows.stop) / 2, abs=3)
        grey = seen['grey'][0][1]
        for name in matching.CLASSES:
            other = seen[name][0][1]
            gap = max(other.start - grey.stop, grey.start - other.stop)
            assert gap >= matching.MIN_DISTANCE
        kinds[match, seen['grey'][1]] += 1
    assert set(kinds.values()) == {COUNTS[subset] // 4}


def test_same_arguments_give_the_same_bytes(dataset, tmp_path):
    matching.generate_dataset(tmp_path / 'a', *COUNTS.values())
    assert files(tmp_path / 'a') == files(dataset)


def test_queries_are_in_the_matching_patch_of_each_class(dataset):
    queries = matching.find_queries(dataset)
    assert [path.parent.name for path, _ in queries] == list(matching.CLASSES)
    for path, (x, y) in queries:
        seen = look(mmcv.imread(path, channel_order='rgb'))
        rows, columns = seen[path.parent.name][0]
        assert columns.start <= x < columns.stop and rows.start <= y < rows.stop


@pytest.mark.parametrize(
    'name, toolbox',
    [('resnet18-2stages', 'mmpretrain'), ('td-hm_r18-2stages', 'mmpose')],
)
def test_only_a_block_lets_a_position_see_both(name, toolbox):
    pytest.importorskip(toolbox)
    seen = {}
    for block in '', '-nl-c3', '-dnl-c3':
        cfg = Config.fromfile(CONFIGS / f'{name}{block}_demo.py')
        init_default_scope(toolbox)
        model = MODELS.build(cfg.model)
        model.init_weights()
        layers = [model.backbone]
        if toolbox == 'mmpose':
            layers += [Heatmaps(model.head)]
        seen[block] = len(columns_seen(torch.nn.Sequential(*layers))[0])
    # the table of the module
    assert seen.pop('') <= {'mmpretrain': 99, 'mmpose': 107}[toolbox]
    assert seen['-nl-c3'] == seen['-dnl-c3'] > 2 * matching.MIN_DISTANCE


class Heatmaps(torch.nn.Module):
    """A head, whose map is in a list like features."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, features):
        return [self.head(features)]
