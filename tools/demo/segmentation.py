"""The scenes as a small dataset in the layout of Cityscapes.

The road is the background; a shape is a car or a bus by the colour of the
lamp, which is a traffic light. A network that cannot look across the image
segments every shape and guesses its class.

How far is far? The receptive field of one position of the head's output, with
the ResNet-18 of two stages of ``configs/demo`` and two 3 x 3 convolutions:

=====================  ======  ==========  ===================
layer                  stride  kernel      receptive field, px
=====================  ======  ==========  ===================
backbone               8                   99
head, 2 convs          8       3           99 + 2 * 16 = 131
=====================  ======  ==========  ===================

So a position sees (131 - 1) / 2 = 65 px to each side, and the enlargement of
the output to the image up to 8 px more: 73 px. The lamp is at least
:data:`.scene.MIN_DISTANCE` px away from every shape.
"""

from pathlib import Path

import mmcv
import numpy as np
import pycocotools.mask as coco_mask

from .scene import HEIGHT, WIDTH, Scene, encode, sample_subsets

#: Train ids of Cityscapes.
ROAD, TRAFFIC_LIGHT = 0, 6
SHAPES = (13, 15)  # car and bus, by the colour of the lamp


def generate_dataset(
    root: str | Path, num_train: int = 400, num_val: int = 100, seed: int = 0
) -> None:
    """Write the dataset: images and label maps, PNG.

    The same arguments give the same bytes. Files that are already there are
    overwritten.

    Args:
        root (str | Path): Folder to write to, made if missing. Gets
            ``leftImg8bit/`` and ``gtFine/``, each with ``train/demo`` and
            ``val/demo``.
        num_train (int): Images to train on. Defaults to 400.
        num_val (int): Images to evaluate on. Defaults to 100.
        seed (int): Seed of both random streams. Defaults to 0.

    Raises:
        ValueError: If there is not at least one image of every class in each
            subset.
    """
    root = Path(root)
    for subset, scenes in sample_subsets(num_train, num_val, seed):
        for number, scene in enumerate(scenes, start=1):
            name = f'{subset}/demo/demo_{number:06d}'
            mmcv.imwrite(
                mmcv.rgb2bgr(scene.image),
                str(root / 'leftImg8bit' / f'{name}_leftImg8bit.png'),
            )
            mmcv.imwrite(
                label_map(scene),
                str(root / 'gtFine' / f'{name}_gtFine_labelTrainIds.png'),
            )


def label_map(scene: Scene) -> np.ndarray:
    """The train id of every pixel, ``(H, W)``, uint8."""
    labels = np.full((HEIGHT, WIDTH), ROAD, np.uint8)
    labels[scene.lamp] = TRAFFIC_LIGHT
    for polygon in scene.polygons:
        labels[coco_mask.decode(encode(polygon)) > 0] = SHAPES[scene.label]
    return labels


def find_queries(root: str | Path) -> list[tuple[Path, tuple[float, float]]]:
    """Choose a shape of each class to look at.

    Args:
        root (str | Path): Folder of a generated dataset.

    Returns:
        list[tuple[Path, tuple[float, float]]]: For each class, the first
        image of ``val`` with it and a pixel (column, row) of a shape.
    """
    queries = []
    for shape in SHAPES:
        for path in sorted(Path(root, 'gtFine/val/demo').iterdir()):
            rows, columns = np.nonzero(mmcv.imread(path, flag='unchanged') == shape)
            if len(rows):
                # The pixel in the middle of its list lies inside of a shape.
                middle = len(rows) // 2
                image = Path(
                    root,
                    'leftImg8bit/val/demo',
                    path.name.replace('gtFine_labelTrainIds', 'leftImg8bit'),
                )
                queries.append((image, (float(columns[middle]), float(rows[middle]))))
                break
    return queries
