"""A COCO dataset of a few small pictures, and a Mask R-CNN of that size.

The options turn a COCO config of MMDetection into a run of seconds; they are
what a user would write after ``--cfg-options``.
"""

import json
from pathlib import Path

import cv2
import hub
import numpy as np
from mmdet.datasets import CocoDataset

# All of COCO's classes, of which two occur.
CLASSES = CocoDataset.METAINFO['classes']
PERSON = 1 + CLASSES.index('person')
CAR = 1 + CLASSES.index('car')

# Mask R-CNN R50-FPN, cut down to about 50000 parameters. Nothing in it is
# random after the first weights: no flip, no picture twice as likely, no
# sampling of proposals.
SMALL_MASK_RCNN = {
    'model.backbone.depth': 18,
    'model.backbone.stem_channels': 8,
    'model.backbone.base_channels': 8,
    'model.backbone.frozen_stages': -1,
    'model.backbone.norm_eval': False,
    'model.neck.in_channels': [8, 16, 32, 64],
    'model.neck.out_channels': 16,
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.roi_head.bbox_roi_extractor.out_channels': 16,
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.fc_out_channels': 32,
    'model.roi_head.mask_roi_extractor.out_channels': 16,
    'model.roi_head.mask_head.in_channels': 16,
    'model.roi_head.mask_head.conv_out_channels': 16,
    'model.roi_head.mask_head.num_convs': 1,
    'model.train_cfg.rpn.sampler.num': 10**6,
    'model.train_cfg.rpn_proposal.max_per_img': 20,
    'model.train_cfg.rcnn.sampler.num': 10**6,
    'model.test_cfg.rpn.max_per_img': 20,
    'model.test_cfg.rcnn.max_per_img': 5,
    'model.test_cfg.rcnn.score_thr': 0.0,
}


def write(root: Path, num_train: int = 4, num_val: int = 2, size: int = 64) -> Path:
    """Write the dataset: one person (an ellipse) and one car per picture.

    Args:
        root (Path): Folder to write into, laid out like COCO 2017.
        num_train (int): Number of pictures to train on. Defaults to 4.
        num_val (int): Number of pictures to validate on. Defaults to 2.
        size (int): Width and height of a picture. Defaults to 64.

    Returns:
        Path: ``root``.
    """
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    for split, count in ('train2017', num_train), ('val2017', num_val):
        (root / split).mkdir()
        images, annotations = [], []
        for image_id in range(1, count + 1):
            picture = rng.integers(0, 64, (size, size, 3), dtype=np.uint8)
            for category in (PERSON, CAR):
                polygon = _shape(rng, category, size)
                color = rng.integers(128, 256, 3).tolist()
                cv2.fillPoly(picture, [polygon], color)
                x, y, width, height = cv2.boundingRect(polygon)
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': image_id,
                        'category_id': category,
                        'segmentation': [polygon.ravel().tolist()],
                        'bbox': [x, y, width, height],
                        'area': cv2.contourArea(polygon),
                        'iscrowd': 0,
                    }
                )
            name = f'{image_id:012d}.png'
            cv2.imwrite(str(root / split / name), picture)
            images.append(
                {'id': image_id, 'file_name': name, 'width': size, 'height': size}
            )
        (root / 'annotations' / f'instances_{split}.json').write_text(
            json.dumps(
                {
                    'images': images,
                    'annotations': annotations,
                    'categories': [
                        {'id': id, 'name': name} for id, name in enumerate(CLASSES, 1)
                    ],
                }
            )
        )
    return root


def _shape(rng: np.random.Generator, category: int, size: int) -> np.ndarray:
    """The outline of an object, of shape (points, 2)."""
    width, height = rng.integers(size // 4, size // 2, 2)
    x, y = rng.integers(0, size - size // 2, 2)
    if category == CAR:
        corners = [[0, 0], [width, 0], [width, height], [0, height]]
        return np.array(corners, dtype=np.int32) + np.array([x, y], dtype=np.int32)
    return cv2.ellipse2Poly(
        (int(x + width // 2), int(y + height // 2)),
        (int(width // 2), int(height // 2)),
        0,
        0,
        360,
        30,
    )


def write_pretrained(home: Path) -> None:
    """Write the pretrained file of the small Mask R-CNN.

    Args:
        home (Path): Folder that TORCH_HOME names.
    """
    hub.write(home, 'torchvision://resnet50', hub.resnet(18, width=8, stem=8))


def data_options(root: Path, size: int = 64) -> dict:
    """Options that let a COCO config of MMDetection read the dataset.

    Args:
        root (Path): Folder of the dataset.
        size (int): Width and height that pictures are scaled to. Defaults
            to 64.

    Returns:
        dict: Dotted keys and values for ``Config.merge_from_dict``.
    """
    options = {
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.pipeline.2.scale': (size, size),
        'train_dataloader.dataset.pipeline.3.prob': 0.0,
    }
    for split, inner in ('train', 2), ('val', 1), ('test', 1):
        loader = f'{split}_dataloader'
        options |= {
            f'{loader}.num_workers': 0,
            f'{loader}.persistent_workers': False,
            f'{loader}.dataset.data_root': f'{root}/',
            f'{loader}.dataset.pipeline.{inner}.scale': (size, size),
        }
    for split in 'val', 'test':
        options[f'{split}_evaluator.ann_file'] = (
            f'{root}/annotations/instances_val2017.json'
        )
    return options


def as_arguments(options: dict) -> list[str]:
    """Options as they are written behind ``--cfg-options``."""
    return [f'{key}={value}'.replace(' ', '') for key, value in options.items()]
