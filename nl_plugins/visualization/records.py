"""What a block of a trained model sees, attends to and contributes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn import functional

from ..blocks.base import NonLocalBlock
from ..errors import OptionError


class Record(NamedTuple):
    """One forward of a model.

    Attributes:
        block (NonLocalBlock): The block that was looked at.
        features (Tensor): Its input, of one sample.
        frames (np.ndarray): What the model sees, RGB, ``(T, H, W, 3)``,
            uint8; an image is one frame. Without padding.
        padded (tuple[int, int]): Height and width with padding.
        window (tuple[float, ...]): Left, top, width and height of what the
            model sees, in pixels of the image before the pipeline changed it;
            of videos in those of ``frames``.
        result (BaseDataElement): The prediction, in the toolbox's own form.
    """

    block: NonLocalBlock
    features: Tensor
    frames: np.ndarray
    padded: tuple[int, int]
    window: tuple[float, float, float, float]
    result: BaseDataElement


class AttentionMap(NamedTuple):
    """What a block attends to from one position.

    Attributes:
        weights (np.ndarray): Enlarged to the frames, ``(T, H, W)``.
        peak (float): The largest weight, in multiples of the mean. 1 is a
            block that takes everything in alike.
    """

    weights: np.ndarray
    peak: float


def find_blocks(model: nn.Module) -> dict[str, NonLocalBlock]:
    """The non-local blocks of this package in a model, by their names."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, NonLocalBlock)
    }


def choose_block(
    model: nn.Module, name: str | None = None
) -> tuple[str, NonLocalBlock]:
    """Find a block of a model.

    Args:
        model (nn.Module): The model.
        name (str, optional): Name of the block. Defaults to None, the last
            one.

    Returns:
        tuple[str, NonLocalBlock]: Its name and the block.

    Raises:
        OptionError: If the model has no block, or none of that name.
    """
    blocks = find_blocks(model)
    if not blocks:
        raise OptionError(
            'the model must have at least one non-local block, but this '
            f'{type(model).__name__} has 0'
        )
    if name is None:
        name = list(blocks)[-1]
    if name not in blocks:
        raise OptionError(
            f'the model has no block {name!r}, it has ' + ', '.join(map(repr, blocks))
        )
    return name, blocks[name]


def record(model: BaseModel, data: dict[str, Any], block: NonLocalBlock) -> Record:
    """Run a model and keep what a block gets.

    A segmentor that slides a window takes the whole image at once here. Of
    several clips and crops of a video the first one is looked at.

    Args:
        model (BaseModel): Detector, segmentor or recognizer in evaluation
            mode.
        data (dict[str, Any]): A sample as the dataset gives it.
        block (NonLocalBlock): A block of the model.

    Returns:
        Record: What was seen.

    Raises:
        OptionError: If the block is none for images, or in a recognizer
            none for clips, did not run, or does not see the whole image.
    """
    inputs = data['inputs']
    is_video = inputs.dim() > 3
    if block.ndim != (3 if is_video else 2):
        raise OptionError(
            f'the block must be one for {"clips" if is_video else "images"}, '
            f'but it is a {type(block).__name__}'
        )
    features = []
    handle = block.register_forward_pre_hook(
        lambda module, args: features.append(args[0])
    )
    try:
        with whole_images(model):
            result = run(model, data)
    finally:
        handle.remove()
    if not features:
        raise OptionError(
            f'the {type(block).__name__} does not run when the model predicts'
        )
    if not is_video:
        if len(features[0]) != 1:
            raise OptionError(
                f'the {type(block).__name__} does not see the whole image, '
                f'but {len(features[0])} regions of it'
            )
        frames = inputs.permute(1, 2, 0).numpy()[None, ..., ::-1]
        shape = frames.shape[1:3]
        return Record(
            block,
            features[0][:1],
            frames,
            result.get('batch_input_shape', result.get('pad_shape', shape))[:2],
            _window(result, shape),
            result,
        )
    if inputs.dim() == 5:  # clips
        frames = inputs[0].transpose(0, 1)
    else:  # frames of a 2D recognizer, of all its crops
        frames = inputs[: block.num_frames or features[0].shape[2]]
    frames = frames.permute(0, 2, 3, 1).numpy()
    shape = frames.shape[1:3]
    window = (0, 0, shape[1], shape[0])
    return Record(
        block, features[0][: block.num_frames or 1], frames, shape, window, result
    )


def _window(
    result: BaseDataElement, shape: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Which part of the original image a model sees, as in :class:`Record`."""
    height, width = result.ori_shape[:2]
    if 'input_center' in result:  # a person
        size = np.ravel(result.input_scale)
        return (*(np.ravel(result.input_center) - size / 2), *size)
    if 'pred_score' in result and 'scale_factor' in result:  # a centre crop
        size = np.array(shape[::-1]) / result.scale_factor
        return (*((width, height) - size) / 2, *size)
    return 0, 0, width, height


def run(model: BaseModel, data: dict[str, Any]) -> BaseDataElement:
    """Predict one sample.

    Args:
        model (BaseModel): Detector, segmentor or recognizer in evaluation
            mode.
        data (dict[str, Any]): A sample as the dataset gives it.

    Returns:
        BaseDataElement: The prediction, in the toolbox's own form.
    """
    with torch.no_grad():
        return model.test_step(pseudo_collate([data]))[0]


@contextmanager
def switched_off(block: nn.Module) -> Iterator[None]:
    """Let a block hand its input on, as if it were not there.

    Args:
        block (nn.Module): Any block with a residual.
    """
    handle = block.register_forward_hook(lambda module, args, output: args[0])
    try:
        yield
    finally:
        handle.remove()


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
    grid = _grid(seen)
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
        term: AttentionMap(_enlarge(seen, w), float(w.max() / w.mean()))
        for term, w in found.items()
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


def _grid(seen: Record) -> tuple[int, ...]:
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


@contextmanager
def whole_images(model: BaseModel) -> Iterator[None]:
    """Let a segmentor that slides a window take the image at once.

    Args:
        model (BaseModel): Any model; others are left as they are.
    """
    test_cfg = getattr(model, 'test_cfg', None)
    if not isinstance(test_cfg, dict) or test_cfg.get('mode') != 'slide':
        yield
        return
    model.test_cfg = ConfigDict(test_cfg, mode='whole')
    try:
        yield
    finally:
        model.test_cfg = test_cfg


def describe_change(
    with_block: BaseDataElement,
    without: BaseDataElement,
    classes: Sequence[str] | None = None,
) -> list[str]:
    """Say what a block changes in a prediction.

    Args:
        with_block (BaseDataElement): The prediction, in the toolbox's form.
        without (BaseDataElement): The one with the block switched off.
        classes (Sequence[str], optional): Names of the classes. Defaults to
            None, their numbers.

    Returns:
        list[str]: Lines about the detections, keypoints, pixels or classes.
    """
    for name, field in (('pred_sem_seg', 'data'), ('pred_panoptic_seg', 'sem_seg')):
        if name in with_block:
            one, other = (
                result.get(name).get(field) for result in (with_block, without)
            )
            changed = (one != other).float().mean()
            return [f'{100 * changed:.1f} % of the pixels change their class']
    if 'pred_instances' in with_block and 'keypoints' in with_block.pred_instances:
        one, other = (result.pred_instances for result in (with_block, without))
        moved = np.linalg.norm(one.keypoints - other.keypoints, axis=-1)
        change = (one.keypoint_scores - other.keypoint_scores).mean()
        return [
            f'keypoints move by {moved.mean():.1f} px, at most {moved.max():.1f} px; '
            f'their scores change by {change:+.3f} in the mean'
        ]
    if 'pred_instances' in with_block:
        lines = []
        for threshold in (0.3, 0.5, 0.7):
            one, other = (
                int((result.pred_instances.scores >= threshold).sum())
                for result in (with_block, without)
            )
            lines.append(
                f'detections with a score of at least {threshold}: '
                f'{one} with the block, {other} without'
            )
        return lines
    scores, others = with_block.pred_score, without.pred_score
    return [
        f'class {classes[i] if classes else i}: {scores[i]:.3f} with the '
        f'block, {others[i]:.3f} without'
        for i in scores.topk(min(5, len(scores))).indices.tolist()
    ]
