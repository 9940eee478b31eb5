"""A small COCO-format data set whose classes can only be told from far away.

Every image shows a few grey shapes at one end and a coloured lamp at the
other. The shapes look alike whatever their class: a shape's class is the
colour of the lamp. Localising and segmenting a shape is a local task, naming
it is not, so a detector that cannot look across the image finds every shape
and guesses its class.

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
point of a box. The lamp is at least :data:`MIN_DISTANCE` px away from every
shape, which leaves room for boxes that are predicted too large.
"""
import json
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pycocotools.mask as coco_mask

CLASSES = ('orange', 'blue')
LAMP_COLOURS = ((250, 140, 20), (30, 110, 250))  # RGB
HEIGHT, WIDTH = 96, 192
LAMP_WIDTH, LAMP_HEIGHT = 28, 56
#: Smallest horizontal gap in pixels between the lamp and any shape.
MIN_DISTANCE = 80
SHAPE_SIZES = (22, 32)  # smallest and largest, px
MAX_SHAPES = 3


def generate_dataset(root: str | Path,
                             num_train: int = 400,
                             num_val: int = 100,
                             seed: int = 0) -> None:
    """Write the data set: two folders of PNG images, two annotation files.

    The same arguments give the same bytes; the two subsets are drawn from
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
    for name, number in (('num_train', num_train), ('num_val', num_val)):
        if number < len(CLASSES):
            raise ValueError(f'{name} must be at least {len(CLASSES)}, one '
                             f'image per class, but got {number}')
    root = Path(root)
    streams = np.random.SeedSequence(seed).spawn(2)
    for subset, number, stream in zip(('train', 'val'), (num_train, num_val),
                                      streams):
        _write_subset(root, subset, number, np.random.default_rng(stream))


def _write_subset(root: Path, subset: str, number: int,
                  rng: np.random.Generator) -> None:
    folder = root / subset
    labels = rng.permutation(np.arange(number) % len(CLASSES))
    images, annotations = [], []
    for image_id, label in enumerate(labels.tolist(), start=1):
        image, polygons = draw_image(rng, label)
        name = f'{image_id:06d}.png'
        mmcv.imwrite(mmcv.rgb2bgr(image), str(folder / name))
        images.append(
            dict(id=image_id, file_name=name, height=HEIGHT, width=WIDTH))
        for polygon in polygons:
            rle = _encode(polygon)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    segmentation=[polygon],
                    bbox=coco_mask.toBbox(rle).tolist(),
                    area=int(coco_mask.area(rle)),
                    iscrowd=0))
    content = dict(
        info=dict(description='Shapes named by the colour of a far lamp'),
        images=images,
        annotations=annotations,
        categories=[
            dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)
        ])
    path = root / 'annotations' / f'instances_{subset}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def find_queries(
        root: str | Path) -> list[tuple[Path, tuple[float, float]]]:
    """Choose a shape of each class to look at.

    Args:
        root (str | Path): Folder of a generated data set.

    Returns:
        list[tuple[Path, tuple[float, float]]]: For each class, the first
        image of ``val/`` with it and the centre (column, row) of a shape.
    """
    root = Path(root)
    content = json.loads(
        (root / 'annotations' / 'instances_val.json').read_text())
    names = {image['id']: image['file_name'] for image in content['images']}
    queries = []
    for category in content['categories']:
        shape = next(annotation for annotation in content['annotations']
                     if annotation['category_id'] == category['id'])
        x, y, width, height = shape['bbox']
        queries.append((root / 'val' / names[shape['image_id']],
                        (x + width / 2, y + height / 2)))
    return queries


def draw_image(rng: np.random.Generator,
               label: int) -> tuple[np.ndarray, list[list[float]]]:
    """Draw one image.

    Args:
        rng (numpy.random.Generator): Source of everything but the class.
        label (int): Index into :data:`CLASSES`.

    Returns:
        tuple[np.ndarray, list[list[float]]]: The RGB image ``(H, W, 3)``,
        uint8, and the polygon ``[x0, y0, x1, y1, ...]`` of each shape.
    """
    # everything is placed for a lamp on the left, then mirrored or not
    lamp_x = int(rng.integers(0, 5))
    lamp_y = int(rng.integers(0, HEIGHT - LAMP_HEIGHT + 1))
    boxes = _place_shapes(rng, lamp_x + LAMP_WIDTH + MIN_DISTANCE)
    if rng.random() < 0.5:
        lamp_x = WIDTH - LAMP_WIDTH - lamp_x
        boxes = [(WIDTH - size - x, y, size) for x, y, size in boxes]

    image = np.full((HEIGHT, WIDTH, 3), rng.uniform(60, 110))
    image[lamp_y:lamp_y + LAMP_HEIGHT,
          lamp_x:lamp_x + LAMP_WIDTH] = LAMP_COLOURS[label]
    polygons = [_draw_outline(rng, *box) for box in boxes]
    for polygon in polygons:
        image[coco_mask.decode(_encode(polygon)) > 0] = rng.uniform(160, 220)
    image += rng.normal(0, 8, image.shape)
    return image.clip(0, 255).round().astype(np.uint8), polygons


def _place_shapes(rng: np.random.Generator,
                  left: int) -> list[tuple[int, int, int]]:
    """One to MAX_SHAPES squares ``(x, y, size)`` that do not touch."""
    boxes = []
    for _ in range(int(rng.integers(1, MAX_SHAPES + 1))):
        size = int(rng.integers(SHAPE_SIZES[0], SHAPE_SIZES[1] + 1))
        x = int(rng.integers(left, WIDTH - size + 1))
        y = int(rng.integers(0, HEIGHT - size + 1))
        # a place that is taken stays empty: fewer shapes, never none
        if all(
                max(abs(2 * (x - u) + size - s), abs(2 * (y - v) + size - s))
                > size + s for u, v, s in boxes):
            boxes.append((x, y, size))
    return boxes


def _draw_outline(rng: np.random.Generator, x: int, y: int,
                  size: int) -> list[float]:
    """A triangle, square or circle inside a square, turned at random."""
    corners = rng.choice((3, 4, 24))
    angles = 2 * np.pi * (np.arange(corners) / corners + rng.random())
    centre = np.array([x, y]) + size / 2
    points = centre + size / 2 * np.stack(
        [np.cos(angles), np.sin(angles)], axis=1)
    return points.round(2).ravel().tolist()


def _encode(polygon: list[float]) -> dict[str, Any]:
    """The run-length code of one polygon."""
    return coco_mask.frPyObjects([polygon], HEIGHT, WIDTH)[0]
