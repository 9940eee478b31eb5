"""The scenes as a small dataset in COCO's format.

A detector that cannot look across the image finds every shape and guesses
its class.

How far is far? The receptive field of one position of the detector's
features, with the ResNet-18 of two stages and the one-level FPN of
``configs/demo``:

=====================  ======  ==========  ===================
layer                  stride  kernel      receptive field, px
=====================  ======  ==========  ===================
stem convolution       2       7           7
max pooling            4       3           11
layer1, 4 convs        4       3           11 + 4 * 8 = 43
layer2, first conv     8       3           43 + 8 = 51
layer2, 3 convs        8       3           51 + 3 * 16 = 99
FPN output conv        8       3           99 + 16 = 115
=====================  ======  ==========  ===================

So a position sees (115 - 1) / 2 = 57 px to each side, and RoIAlign, which
interpolates between neighbouring positions, up to 8 px more: 65 px from any
point of a box. The lamp is at least :data:`.scene.MIN_DISTANCE` px away from
every shape, which leaves room for boxes that are predicted too large.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import mmcv
import pycocotools.mask as coco_mask

from .scene import HEIGHT, WIDTH, Scene, encode, sample_subsets

CLASSES = ('orange', 'blue')


def generate_dataset(
    root: str | Path, num_train: int = 400, num_val: int = 100, seed: int = 0
) -> None:
    """Write the dataset: two folders of PNG images, two annotation files.

    The same arguments give the same bytes; the two subsets are sampled from
    independent random streams, and each has as many images of one class as
    of the other. Files that are already there are overwritten.

    Args:
        root (str | Path): Folder to write to, made if missing. Gets
            ``train/``, ``val/`` and ``annotations/instances_train.json``
            and ``instances_val.json``.
        num_train (int): Images to train on. Defaults to 400.
        num_val (int): Images to evaluate on. Defaults to 100.
        seed (int): Seed of both random streams. Defaults to 0.

    Raises:
        ValueError: If there is not at least one image of every class in each
            subset.
    """
    root = Path(root)
    for subset, scenes in sample_subsets(num_train, num_val, seed):
        _write_subset(root, subset, scenes)


def _write_subset(root: Path, subset: str, scenes: Iterable[Scene]) -> None:
    folder = root / subset
    images, annotations = [], []
    for image_id, scene in enumerate(scenes, start=1):
        name = f'{image_id:06d}.png'
        mmcv.imwrite(mmcv.rgb2bgr(scene.image), str(folder / name))
        images.append(dict(id=image_id, file_name=name, height=HEIGHT, width=WIDTH))
        for polygon in scene.polygons:
            rle = encode(polygon)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=scene.label + 1,
                    segmentation=[polygon],
                    bbox=coco_mask.toBbox(rle).tolist(),
                    area=int(coco_mask.area(rle)),
                    iscrowd=0,
                )
            )
    content = dict(
        info=dict(description='Shapes named by the colour of a far lamp'),
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)],
    )
    path = root / 'annotations' / f'instances_{subset}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def find_queries(root: str | Path) -> list[tuple[Path, tuple[float, float]]]:
    """Choose a shape of each class to look at.

    Args:
        root (str | Path): Folder of a generated dataset.

    Returns:
        list[tuple[Path, tuple[float, float]]]: For each class, the first
        image of ``val/`` with it and the centre (column, row) of a shape.
    """
    root = Path(root)
    content = json.loads((root / 'annotations' / 'instances_val.json').read_text())
    names = {image['id']: image['file_name'] for image in content['images']}
    queries = []
    for category in content['categories']:
        shape = next(
            annotation
            for annotation in content['annotations']
            if annotation['category_id'] == category['id']
        )
        x, y, width, height = shape['bbox']
        queries.append(
            (root / 'val' / names[shape['image_id']], (x + width / 2, y + height / 2))
        )
    return queries
