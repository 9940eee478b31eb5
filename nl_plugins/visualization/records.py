"""What the blocks of a trained model see."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..blocks.base import NonLocalBlock
from ..errors import OptionError


class Record(NamedTuple):
    """One forward of a model.

    Attributes:
        name (str): Name of the block in the model.
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

    name: str
    block: NonLocalBlock
    features: Tensor
    frames: np.ndarray
    padded: tuple[int, int]
    window: tuple[float, float, float, float]
    result: BaseDataElement


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


def record(model: BaseModel, data: dict[str, Any], block: str | None = None) -> Record:
    """Run a model and keep what a block gets.

    A segmentor that slides a window takes the whole image at once here. Of
    several clips and crops of a video the first one is looked at.

    Args:
        model (BaseModel): Detector, segmentor or recognizer in evaluation
            mode.
        data (dict[str, Any]): A sample as the dataset gives it.
        block (str, optional): Name of a block of the model. Defaults to
            None, the last one that sees the whole image or clip.

    Returns:
        Record: What was seen.

    Raises:
        OptionError: If the model has no such block, or the block is none for
            images, or in a recognizer none for clips, did not run, or does not
            see the whole image.
    """
    name, _ = choose_block(model, block)
    seen = record_all(model, data)
    usable = [name for name, found in seen.items() if isinstance(found, Record)]
    if block is None and usable:
        name = usable[-1]
    found = seen[name]
    if isinstance(found, Record):
        return found
    hint = f'; choose another block (--block): {", ".join(usable)}' if usable else ''
    raise OptionError(f'{found}{hint}')


def record_all(model: BaseModel, data: dict[str, Any]) -> dict[str, Record | str]:
    """Run a model and keep what each of its blocks gets.

    Args:
        model (BaseModel): As for :func:`record`.
        data (dict[str, Any]): A sample as the dataset gives it.

    Returns:
        dict[str, Record | str]: By the names of the blocks, what was seen, or
        the reason why the block cannot be looked at.
    """
    blocks = find_blocks(model)
    inputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Tensor]) -> None:
        inputs.setdefault(module, args[0])

    handles = [block.register_forward_pre_hook(keep) for block in blocks.values()]
    try:
        with whole_images(model):
            result = run(model, data)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: _reason(name, block, data['inputs'], inputs.get(block))
        or _record_of(name, block, data['inputs'], inputs[block], result)
        for name, block in blocks.items()
    }


def _reason(
    name: str, block: NonLocalBlock, images: Tensor, features: Tensor | None
) -> str:
    """Why a block cannot be looked at, or an empty string."""
    is_video = images.dim() > 3
    if block.ndim != (3 if is_video else 2):
        return (
            f'{name} must be a block for {"clips" if is_video else "images"}, '
            f'but it is a {type(block).__name__}'
        )
    if features is None:
        return f'{name} does not run when the model predicts'
    if not is_video and len(features) != 1:
        return f'{name} does not see the whole image, but {len(features)} regions of it'
    return ''


def _record_of(
    name: str,
    block: NonLocalBlock,
    images: Tensor,
    features: Tensor,
    result: BaseDataElement,
) -> Record:
    """Put together what was seen."""
    height, width = images.shape[-2:]
    if images.dim() == 3:
        keys = ('batch_input_shape', 'pad_shape')
        padded = next((result.get(key) for key in keys if key in result), None)
        return Record(
            name,
            block,
            features,
            images.permute(1, 2, 0).numpy()[None, ..., ::-1],
            padded[:2] if padded else (height, width),
            _window(result, (height, width)),
            result,
        )
    if images.dim() == 5:  # clips
        frames = images[0].transpose(0, 1)
    else:  # frames of a 2D recognizer, of all its crops
        frames = images[: block.num_frames or features.shape[2]]
    return Record(
        name,
        block,
        features[: block.num_frames or 1],
        frames.permute(0, 2, 3, 1).numpy(),
        (height, width),
        (0, 0, width, height),
        result,
    )


def original_image(seen: Record) -> np.ndarray:
    """The image in the size in which the toolbox predicts.

    Args:
        seen (Record): What the model did with an image.

    Returns:
        np.ndarray: RGB, ``(H, W, 3)``, uint8.
    """
    if 'input_center' in seen.result:  # a person, not the whole image
        return mmcv.imread(seen.result.img_path, channel_order='rgb')
    height, width = seen.result.ori_shape[:2]
    return cv2.resize(seen.frames[0], (width, height))


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
