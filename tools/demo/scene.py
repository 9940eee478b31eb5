"""Images whose classes can only be told from far away.

Every image shows a few grey shapes at one end and a coloured lamp at the
other. The shapes look alike whatever their class: a shape's class is the
colour of the lamp. Finding a shape is a local task, naming it is not.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pycocotools.mask as coco_mask

T = TypeVar('T')

LAMP_COLOURS = ((250, 140, 20), (30, 110, 250))  # RGB, one for each class
HEIGHT, WIDTH = 96, 192
LAMP_WIDTH, LAMP_HEIGHT = 28, 56
#: Smallest horizontal gap in pixels between the lamp and any shape.
MIN_DISTANCE = 80
SHAPE_SIZES = (22, 32)  # smallest and largest, px
MAX_SHAPES = 3


class Scene(NamedTuple):
    """An image and what it shows.

    Attributes:
        label (int): The class of all its shapes, index of the lamp's colour.
        image (np.ndarray): RGB, shape ``(H, W, 3)``, uint8.
        polygons (list[list[float]]): ``[x0, y0, x1, y1, ...]`` of each
            shape.
        lamp (tuple[slice, slice]): Rows and columns of the lamp.
    """

    label: int
    image: np.ndarray
    polygons: list[list[float]]
    lamp: tuple[slice, slice]


def sample_balanced(
    kinds: int,
    num_train: int,
    num_val: int,
    seed: int,
    sample: Callable[[np.random.Generator, int], T],
) -> Iterator[tuple[str, Iterator[T]]]:
    """Sample a dataset, as many of each kind.

    The same arguments give the same samples; the two subsets are sampled from
    independent random streams.

    Args:
        kinds (int): Number of kinds.
        num_train (int): Samples to train on.
        num_val (int): Samples to evaluate on.
        seed (int): Seed of both random streams.
        sample (Callable): Makes one sample, given a
            :class:`numpy.random.Generator` and the index of the kind.

    Yields:
        tuple[str, Iterator]: ``'train'`` and ``'val'`` with their samples.

    Raises:
        ValueError: If there is not at least one sample of every kind in each
            subset.
    """
    for name, number in (('num_train', num_train), ('num_val', num_val)):
        if number < kinds:
            raise ValueError(
                f'{name} must be at least {kinds}, one sample '
                f'of each kind, but got {number}'
            )
    streams = np.random.SeedSequence(seed).spawn(2)
    for subset, number, stream in zip(('train', 'val'), (num_train, num_val), streams):
        rng = np.random.default_rng(stream)
        found = rng.permutation(np.arange(number) % kinds)
        yield subset, (sample(rng, kind) for kind in found.tolist())


def sample_subsets(
    num_train: int, num_val: int, seed: int
) -> Iterator[tuple[str, Iterator[Scene]]]:
    """Sample the scenes of a dataset, see :func:`sample_balanced`."""
    return sample_balanced(len(LAMP_COLOURS), num_train, num_val, seed, sample_scene)


def sample_scene(rng: np.random.Generator, label: int) -> Scene:
    """Sample one image.

    Args:
        rng (numpy.random.Generator): Source of everything but the class.
        label (int): Index into :data:`LAMP_COLOURS`.

    Returns:
        Scene: The image and what it shows.
    """
    # everything is placed for a lamp on the left, then mirrored or not
    lamp_x = int(rng.integers(0, 5))
    lamp_y = int(rng.integers(0, HEIGHT - LAMP_HEIGHT + 1))
    boxes = _place_shapes(rng, lamp_x + LAMP_WIDTH + MIN_DISTANCE)
    if rng.random() < 0.5:
        lamp_x = WIDTH - LAMP_WIDTH - lamp_x
        boxes = [(WIDTH - size - x, y, size) for x, y, size in boxes]

    image = np.full((HEIGHT, WIDTH, 3), rng.uniform(60, 110))
    lamp = (slice(lamp_y, lamp_y + LAMP_HEIGHT), slice(lamp_x, lamp_x + LAMP_WIDTH))
    image[lamp] = LAMP_COLOURS[label]
    polygons = [_draw_outline(rng, *box) for box in boxes]
    for polygon in polygons:
        image[coco_mask.decode(encode(polygon)) > 0] = rng.uniform(160, 220)
    image += rng.normal(0, 8, image.shape)
    image = image.clip(0, 255).round().astype(np.uint8)
    return Scene(label, image, polygons, lamp)


def _place_shapes(rng: np.random.Generator, left: int) -> list[tuple[int, int, int]]:
    """One to MAX_SHAPES squares ``(x, y, size)`` that do not touch."""
    boxes = []
    for _ in range(int(rng.integers(1, MAX_SHAPES + 1))):
        size = int(rng.integers(SHAPE_SIZES[0], SHAPE_SIZES[1] + 1))
        x = int(rng.integers(left, WIDTH - size + 1))
        y = int(rng.integers(0, HEIGHT - size + 1))
        # a place that is taken stays empty: fewer shapes, never none
        if all(
            max(abs(2 * (x - u) + size - s), abs(2 * (y - v) + size - s)) > size + s
            for u, v, s in boxes
        ):
            boxes.append((x, y, size))
    return boxes


def _draw_outline(rng: np.random.Generator, x: int, y: int, size: int) -> list[float]:
    """A triangle, square or circle inside a square, turned at random."""
    corners = rng.choice((3, 4, 24))
    angles = 2 * np.pi * (np.arange(corners) / corners + rng.random())
    centre = np.array([x, y]) + size / 2
    points = centre + size / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return points.round(2).ravel().tolist()


def encode(polygon: list[float]) -> dict[str, Any]:
    """The run-length code of one polygon, as COCO's tools want it."""
    return coco_mask.frPyObjects([polygon], HEIGHT, WIDTH)[0]
