"""What a block attends to from a query pixel."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import OptionError
from .records import Record


class AttentionMap(NamedTuple):
    """What a block attends to from one position.

    Attributes:
        weights (np.ndarray): Enlarged to the frames, ``(T, H, W)``.
        mean (float): Mean of the absolute weights of all key positions.
        peak (float): The largest weight, in multiples of the mean. 1 is a
            block that attends to all positions alike.
    """

    weights: np.ndarray
    mean: float
    peak: float


def attention_from(
    seen: Record, point: tuple[float, float], frame: int = 0
) -> dict[str, AttentionMap]:
    """What a block attends to from one pixel.

    Args:
        seen (Record): What the model did.
        point (tuple[float, float]): Column and row of the query pixel in
            the original image, or in the frames as the model sees them.
        frame (int): Frame of a video, negative ones from the end. Defaults
            to 0.

    Returns:
        dict[str, AttentionMap]: The block's terms, ``'pairwise'`` and
        ``'unary'``, as far as it has them.

    Raises:
        OptionError: If the image has no such pixel.
    """
    left, top, width, height = seen.window
    if not (left <= point[0] < left + width and top <= point[1] < top + height):
        what = 'the frames' if seen.block.ndim == 3 else 'the image'
        size = f'the size is {width:.0f} x {height:.0f}'
        if left or top:
            what = f'the part of {what} that the model sees'
            size += f' from {left:.0f}, {top:.0f}'
        raise OptionError(f'{point} is no pixel (column, row) of {what}, as {size}')
    grid = grid_of(seen)
    place = [
        int(value / padded * positions)
        for value, padded, positions in zip(
            seen_pixel(seen, point)[::-1], seen.padded, grid[1:]
        )
    ]
    if seen.block.ndim == 3:
        frame %= len(seen.frames)
        place.insert(0, int(frame / len(seen.frames) * grid[0]))
    pairwise, unary = seen.block.attention_weights(seen.features, torch.tensor([place]))
    found = {}
    if pairwise is not None:
        found['pairwise'] = pairwise[0, 0]
    if unary is not None:
        found['unary'] = unary[0]
    return {
        term: AttentionMap(_enlarge(seen, w), mean, float(w.max()) / mean)
        for term, w in found.items()
        for mean in [float(w.abs().mean().clamp(min=1e-30))]
    }


def seen_pixel(seen: Record, point: tuple[float, float]) -> tuple[float, float]:
    """Find a pixel of the original image in what the model sees.

    Args:
        seen (Record): What the model did.
        point (tuple[float, float]): Column and row in the original image.

    Returns:
        tuple[float, float]: Column and row in the frames.
    """
    left, top, width, height = seen.window
    rows, columns = seen.frames.shape[1:3]
    return (point[0] - left) * columns / width, (point[1] - top) * rows / height


def default_points(seen: Record, most: int = 4) -> list[tuple[float, float]]:
    """Pixels to look from if nobody chose any.

    Args:
        seen (Record): What the model did.
        most (int): How many detections. Defaults to 4.

    Returns:
        list[tuple[float, float]]: Column and row of the keypoints, or of the
        centres of the detections, with the highest scores, or a grid of four.
    """
    left, top, width, height = seen.window
    found = seen.result.get('pred_instances')
    if found is not None and 'keypoints' in found:
        best = found.keypoint_scores[0].argsort()[::-1][:most]
        # half of a pixel of the heatmap may lie outside
        inside = np.clip(
            found.keypoints[0][best], (left, top), (left + width - 1, top + height - 1)
        )
        return [(float(x), float(y)) for x, y in inside]
    if found is not None:
        boxes = found.bboxes[found.scores.argsort(descending=True)]
        # some detectors of masks leave their boxes empty
        boxes = boxes[(boxes[:, 2:4] > boxes[:, :2]).all(dim=1)][:most]
    if found is not None and len(boxes):
        centres = (boxes[:, :2] + boxes[:, 2:4]) / 2
        limit = centres.new_tensor([width - 1, height - 1])
        return [tuple(c) for c in centres.clamp(min=0).minimum(limit).tolist()]
    return [
        (left + width * x / 4, top + height * y / 4) for y in (1, 3) for x in (1, 3)
    ]


def grid_of(seen: Record) -> tuple[int, ...]:
    """Frames, rows and columns of the block's positions."""
    size = tuple(seen.features.shape[2:])
    if seen.block.ndim == 2:
        return 1, *size
    frames: Any = seen.block.num_frames
    return (frames, *size) if frames else size


def _enlarge(seen: Record, weights: Tensor) -> np.ndarray:
    """Weights of key positions for every pixel that the model sees."""
    count, height, width = seen.frames.shape[:3]
    mode: str = 'bilinear'
    size: tuple[int, ...] = seen.padded
    if weights.dim() == 3:
        mode, size = 'trilinear', (count, *size)
    large = functional.interpolate(weights[None, None].float(), size, mode=mode)
    return large.reshape(count, *seen.padded)[:, :height, :width].cpu().numpy()
