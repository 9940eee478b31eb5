"""Images whose answer is a relation between two distant patches.

On one side an image shows an orange and a blue patch, one of them with
vertical and the other with horizontal stripes; on the other side a grey patch
with the stripes of one of the two. Two tasks have these images:

- classification: the class is the colour of the patch with the same stripes;
- pose estimation: the only keypoint is the centre of that patch.

Every class holds all directions of the stripes equally often, so a network
that adds up what it finds at single positions cannot tell more than chance,
and one that cannot look across the image finds two patches and guesses.

How far is far? The receptive field of one position, with the ResNet-18 of two
stages of ``configs/demo``:

=====================  ======  ==========  ===================
layer                  stride  kernel      receptive field, px
=====================  ======  ==========  ===================
stem convolution       2       7           7
max pooling            4       3           11
layer1, 4 convs        4       3           11 + 4 * 8 = 43
layer2, first conv     8       3           43 + 8 = 51
layer2, 3 convs        8       3           51 + 3 * 16 = 99
pose: deconvolution    4       4           at most 99 + 8 = 107
=====================  ======  ==========  ===================

The grey patch is at least :data:`MIN_DISTANCE` px away from the others, so no
position sees both.
"""

import json
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np

from .scene import HEIGHT, LAMP_COLOURS, WIDTH, sample_balanced
from .video import PATCH, draw_patch, place_patches

CLASSES = ('orange', 'blue')
#: Smallest horizontal gap in pixels between the grey patch and the others.
MIN_DISTANCE = 108


class Example(NamedTuple):
    """An image and what it shows.

    Attributes:
        label (int): Its class, the index of the matching patch's colour.
        image (np.ndarray): RGB, shape ``(H, W, 3)``, uint8.
        patches (tuple[tuple[int, int], ...]): Corners ``(x, y)`` of the
            patch that matches, of the other one, and of the grey one.
    """

    label: int
    image: np.ndarray
    patches: tuple[tuple[int, int], ...]


def generate_dataset(
    root: str | Path, num_train: int = 800, num_val: int = 200, seed: int = 0
) -> None:
    """Write the images, one folder a class, and keypoints in COCO's format.

    The same arguments give the same bytes. Files that are already there are
    overwritten.

    Args:
        root (str | Path): Folder to write to, made if missing. Gets
            ``train/``, ``val/``, each with ``orange/`` and ``blue/``, and
            ``annotations/person_keypoints_train.json`` and ``_val.json``.
        num_train (int): Images to train on. Defaults to 800.
        num_val (int): Images to evaluate on. Defaults to 200.
        seed (int): Seed of both random streams. Defaults to 0.

    Raises:
        ValueError: If there is not at least one image of every kind in each
            subset.
    """
    root = Path(root)
    kinds = 2 * 2  # class, stripes of the grey patch
    for subset, examples in sample_balanced(
        kinds, num_train, num_val, seed, sample_example
    ):
        content = dict(
            images=[],
            annotations=[],
            categories=[dict(id=1, name='person', keypoints=['match'], skeleton=[])],
        )
        for number, example in enumerate(examples, start=1):
            name = f'{CLASSES[example.label]}/{number:06d}.png'
            mmcv.imwrite(mmcv.rgb2bgr(example.image), str(root / subset / name))
            content['images'].append(
                dict(id=number, file_name=name, height=HEIGHT, width=WIDTH)
            )
            x, y = (corner + PATCH / 2 for corner in example.patches[0])
            content['annotations'].append(
                dict(
                    id=number,
                    image_id=number,
                    category_id=1,
                    keypoints=[x, y, 2],
                    num_keypoints=1,
                    bbox=[0, 0, WIDTH, HEIGHT],
                    area=WIDTH * HEIGHT,
                    iscrowd=0,
                )
            )
        path = root / 'annotations' / f'person_keypoints_{subset}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


def sample_example(rng: np.random.Generator, kind: int) -> Example:
    """Sample one image.

    Args:
        rng (numpy.random.Generator): Source of everything but the kind.
        kind (int): 0 to 3: bit 0 is the class, bit 1 the direction of the
            stripes that match.

    Returns:
        Example: The image and what it shows.
    """
    label, vertical = kind & 1, kind >> 1 & 1
    patches = place_patches(rng, HEIGHT, WIDTH, MIN_DISTANCE)
    image = np.full((HEIGHT, WIDTH, 3), rng.uniform(20, 60))
    match, other, grey = patches
    draw_patch(image, match, vertical, LAMP_COLOURS[label])
    draw_patch(image, other, 1 - vertical, LAMP_COLOURS[1 - label])
    draw_patch(image, grey, vertical, (200, 200, 200))
    image += rng.normal(0, 6, image.shape)
    image = image.clip(0, 255).round().astype(np.uint8)
    return Example(label, image, patches)


def find_queries(root: str | Path) -> list[tuple[Path, tuple[float, float]]]:
    """Choose an image of each class to look at.

    Args:
        root (str | Path): Folder of a generated dataset.

    Returns:
        list[tuple[Path, tuple[float, float]]]: For each class, the first
        image for validation and the pixel (column, row) in the middle of the
        patch that matches.
    """
    folder = Path(root)
    path = folder / 'annotations' / 'person_keypoints_val.json'
    content = json.loads(path.read_text())
    queries = {}
    for image, annotation in zip(content['images'], content['annotations']):
        name = image['file_name']
        point = tuple(annotation['keypoints'][:2])
        queries.setdefault(name.split('/')[0], (folder / 'val' / name, point))
    return [queries[name] for name in CLASSES]
