"""--data-root: one folder for all splits and metrics."""

import pytest

from nl_plugins.engine import load_config, set_data_root
from nl_plugins.errors import OptionError


def strings(node):
    values = node.values() if isinstance(node, dict) else node
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, (dict, list, tuple)):
            yield from strings(value)


def data_of(cfg):
    return [
        text
        for split in ('train', 'val', 'test')
        for kind in ('dataloader', 'evaluator')
        if cfg.get(f'{split}_{kind}')
        for text in strings(cfg[f'{split}_{kind}'])
    ]


@pytest.mark.parametrize(
    'name, root, moved',
    [
        (
            'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
            'data/coco',
            '/new/annotations/instances_val2017.json',
        ),
        (
            'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            'data/cityscapes',
            '/new',
        ),
        (
            'mmaction::recognition/tsm/'
            'tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb.py',
            'data/kinetics400',
            '/new/kinetics400_val_list_videos.txt',
        ),
        (
            'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
            'td-hm_res50_8xb64-210e_coco-256x192.py',
            'data/coco',
            '/new/person_detection_results/COCO_val2017_detections_AP_H_56_person.json',
        ),
        ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'data/imagenet', '/new'),
    ],
)
def test_every_path_of_a_config_moves(name, root, moved):
    pytest.importorskip(name.partition('::')[0])
    cfg = load_config(name)
    before = data_of(cfg)
    assert any(text.startswith(root) for text in before)
    set_data_root(cfg, '/new')
    after = data_of(cfg)
    assert not any(text.startswith(root) for text in after)
    assert moved in after
    # and nothing else changes
    for old, new in zip(before, after, strict=True):
        assert new == old or (old.startswith(root) and new.startswith('/new'))


def test_concatenated_datasets_of_one_folder_move():
    cfg = load_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    dataset = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset] * 2)
    set_data_root(cfg, '/new')
    assert [d.data_root for d in cfg.train_dataloader.dataset.datasets] == ['/new'] * 2


def test_several_folders_or_none_are_refused():
    cfg = load_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    cfg.val_dataloader.dataset.data_root = 'data/other/'
    with pytest.raises(OptionError, match='has data/coco, data/other: set each'):
        set_data_root(cfg, '/new')
    for split in 'train', 'val', 'test':
        cfg[f'{split}_dataloader'] = None
    with pytest.raises(OptionError, match='has none'):
        set_data_root(cfg, '/new')
