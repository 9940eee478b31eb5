"""Attention of blocks, plotted with mmengine's visualizers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from .records import (
    AttentionMap,
    Record,
    attention_from,
    choose_block,
    default_points,
    describe_change,
    record,
    run,
    seen_pixel,
    switched_off,
    whole_images,
)
from .samples import sample_from_file

#: Frames of a strip, and the widths in pixels that a panel may have.
_FRAMES, _WIDTHS = 8, (240, 640)
_TITLE = 22  # pixels above a panel


def build_visualizer(cfg: Config, save_dir: str, dataset_meta: dict) -> Visualizer:
    """Build the visualizer of a config, with all its backends.

    Args:
        cfg (Config): The config.
        save_dir (str): Where its backends write.
        dataset_meta (dict): Classes and colours of the data.

    Returns:
        Visualizer: The toolbox's own.
    """
    options = dict(cfg.get('visualizer') or dict(type='Visualizer'))
    if not options.get('vis_backends'):
        options['vis_backends'] = [dict(type='LocalVisBackend')]
    options |= dict(name=f'attention in {save_dir}', save_dir=save_dir)
    visualizer = VISUALIZERS.build(options)
    visualizer.dataset_meta = dataset_meta
    if 'skeleton_links' in dataset_meta:  # MMPose's, of another signature elsewhere
        visualizer.set_dataset_meta(dataset_meta)
    return visualizer


def plot_attention(
    model: BaseModel,
    data: dict[str, Any],
    visualizer: Visualizer,
    name: str,
    points: Sequence[tuple[float, float]] = (),
    block: str | None = None,
    step: int = 0,
) -> list[str]:
    """Plot what a block attends to and what it changes in the prediction.

    One picture for each point: what the model sees with the point, the
    pairwise and the unary map over it, with their largest weight in
    multiples of the mean; of a video the frames side by side, the point in
    the middle one. One or two for the predictions with and without the
    block.

    Args:
        model (BaseModel): Detector, segmentor or recognizer in evaluation
            mode.
        data (dict[str, Any]): A sample of the dataset.
        visualizer (Visualizer): Gets the pictures.
        name (str): Prefix of their names.
        points (Sequence[tuple[float, float]]): Query pixels, column and row
            in the original image, or in the frames of a video as the model
            sees them. Defaults to none, those of :func:`.records.
            default_points`.
        block (str, optional): Name of the block. Defaults to None, the last
            one.
        step (int): Step of the training. Defaults to 0.

    Returns:
        list[str]: Lines that say what the block changes.

    Raises:
        OptionError: If there is no such block or pixel, or the block is not
            for such data.
    """
    _, module = choose_block(model, block)
    seen = record(model, data, module)
    painter = Visualizer()  # MMPose's own paints text in another way
    middle = len(seen.frames) // 2
    for number, point in enumerate(points or default_points(seen)):
        maps = {
            f'{term}, peak {found.peak:.3g} x mean': found
            for term, found in attention_from(seen, point, middle).items()
        }
        panels = _panels(painter, seen, point, middle, maps)
        # images side by side, the strips of a video on one another
        picture = np.concatenate(panels, axis=int(len(seen.frames) == 1))
        visualizer.add_image(f'{name}_point{number}', picture, step)
    with whole_images(model), switched_off(module):
        without = run(model, data)
    meta = visualizer.dataset_meta
    visualizer.dataset_meta = name_all_classes(meta, seen.result, without)
    lines = describe_change(
        seen.result, without, visualizer.dataset_meta.get('classes')
    )
    _plot_change(visualizer, painter, seen, without, lines, name, step)
    visualizer.dataset_meta = meta
    return lines


def attention_maps(
    model: BaseModel, file: str | Path, point: tuple[float, float]
) -> tuple[Record, dict[str, AttentionMap]]:
    """Run a model on a file and look at the attention of its last block.

    Args:
        model (BaseModel): Detector, segmentor or recognizer with its config
            as ``cfg``.
        file (str | Path): Image or video.
        point (tuple[float, float]): Column and row of the query pixel; of a
            video in its last frame, as the model sees it.

    Returns:
        tuple[Record, dict[str, AttentionMap]]: What the model saw, and the
        maps of the block's terms, ``'pairwise'`` and ``'unary'``, as far as
        it has them.

    Raises:
        OptionError: If the model has no non-local block, the block is not
            for such data, or there is no such pixel.
    """
    seen = record(model, sample_from_file(model.cfg, file), choose_block(model)[1])
    return seen, attention_from(seen, point, frame=-1)


def compare_attention(
    models: Mapping[str, BaseModel],
    queries: Sequence[tuple[str | Path, tuple[float, float]]],
    path: str | Path,
) -> None:
    """Plot the attention of the last blocks of several models.

    Args:
        models (Mapping[str, BaseModel]): Models by name, as for
            :func:`attention_maps`.
        queries (Sequence[tuple]): File of an image or video, and the query
            pixel, each of which gets a row, of a video a strip for each map.
        path (str | Path): PNG file to write.

    Raises:
        OptionError: As :func:`attention_maps`.
    """
    painter = Visualizer()
    rows = []
    for file, point in queries:
        panels: list[np.ndarray] = []
        for name, model in models.items():
            seen, found = attention_maps(model, file, point)
            maps = {f'{name}: {term}': found[term] for term in found}
            last = len(seen.frames) - 1
            # the input once
            panels += _panels(painter, seen, point, last, maps)[bool(panels) :]
        rows.append(np.concatenate(panels, axis=int(last == 0)))
    mmcv.imwrite(mmcv.rgb2bgr(np.concatenate(rows)), str(path))


def name_all_classes(meta: dict | None, *results: BaseDataElement) -> dict:
    """Complete the names and colours of a dataset that names too few classes.

    The head of a model may predict more classes than its dataset names.

    Args:
        meta (dict, optional): ``'classes'`` and ``'palette'``, or None.
        results (BaseDataElement): Predictions.

    Returns:
        dict: ``meta`` with a name (``'class 3'``) and a colour for every
        predicted class, as far as it has names and colours at all.
    """
    meta = dict(meta or {})
    predicted = [
        labels
        for result in results
        for labels in (
            result.get('pred_instances', {}).get('labels'),
            result.get('pred_sem_seg', {}).get('data'),
            torch.arange(len(result.get('pred_score', ()))),
        )
        if labels is not None and labels.numel()
    ]
    number = 1 + max((int(labels.max()) for labels in predicted), default=-1)
    if meta.get('classes'):
        more = range(len(meta['classes']), number)
        meta['classes'] = (*meta['classes'], *(f'class {i}' for i in more))
    if isinstance(meta.get('palette'), (list, tuple)):
        colours = np.random.default_rng(0).integers(0, 256, (number, 3))
        meta['palette'] = [
            *meta['palette'],
            *map(tuple, colours[len(meta['palette']) :].tolist()),
        ]
    return meta


def _panels(
    painter: Visualizer,
    seen: Record,
    point: tuple[float, float],
    frame: int,
    maps: dict[str, AttentionMap],
) -> list[np.ndarray]:
    """The input with the point in a frame, and each map over the input."""
    count = len(seen.frames)
    shown = np.arange(count)
    if count > _FRAMES:
        # evenly spaced, the frame among them, in the middle if it can be
        step = count // _FRAMES
        before = max(_FRAMES // 2, _FRAMES - 1 - (count - 1 - frame) // step)
        shown = frame + step * (np.arange(_FRAMES) - min(before, frame // step))
    frames = [_fitted(image) for image in seen.frames[shown]]
    strip = np.concatenate(frames, axis=1)
    height, width = frames[0].shape[:2]
    scale = width / seen.frames.shape[2], height / seen.frames.shape[1]
    mark = np.array([seen_pixel(seen, point)]) * scale
    mark[0, 0] += shown.tolist().index(frame) * width
    title = 'query'
    if count > 1:
        title += f' in frame {frame + 1} of {count}'
    panels = [_titled(painter, strip, title, mark)]
    for title, found in maps.items():
        # one scale of colours for all frames
        weights = np.concatenate(list(found.weights[shown]), axis=1)
        weights = cv2.resize(weights, strip.shape[1::-1])
        heat = painter.draw_featmap(torch.from_numpy(weights)[None], strip)
        panels.append(_titled(painter, heat, title, mark))
    return panels


def _fitted(image: np.ndarray) -> np.ndarray:
    """An image in a size at which a title above it can be read."""
    width = image.shape[1]
    factor = -(-_WIDTHS[0] // width)  # whole pixels
    if width > _WIDTHS[1]:
        factor = _WIDTHS[1] / width
    size = [max(1, round(factor * side)) for side in image.shape[1::-1]]
    return cv2.resize(
        image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    )


def _titled(
    painter: Visualizer, image: np.ndarray, title: str, mark: np.ndarray
) -> np.ndarray:
    """A picture with a cross at a position and a title above it."""
    bar = np.full((_TITLE, image.shape[1], 3), 255, np.uint8)
    painter.set_image(np.concatenate([bar, image]))
    painter.draw_texts(title, np.array([4, 3]), 9, 'black')
    painter.draw_points(mark + [0, _TITLE], 'lime', '+', np.array([120]))
    return painter.get_image()


def _plot_change(
    visualizer: Visualizer,
    painter: Visualizer,
    seen: Record,
    without: BaseDataElement,
    lines: list[str],
    name: str,
    step: int,
) -> None:
    """The predictions with and without the block."""
    if 'pred_score' in without:  # classes of an image or a video
        page = np.full((_TITLE * (len(lines) + 1), 560, 3), 255, np.uint8)
        painter.set_image(page)
        for number, line in enumerate(lines):
            painter.draw_texts(line, np.array([8, _TITLE * number + 8]), 10, 'black')
        visualizer.add_image(f'{name}_change', painter.get_image(), step)
        return
    height, width = without.ori_shape[:2]
    if 'input_center' in without:  # a person, not the whole image
        image = mmcv.imread(without.img_path, channel_order='rgb')
    else:
        image = cv2.resize(seen.frames[0], (width, height))
    for suffix, result in (('with', seen.result), ('without', without)):
        visualizer.add_datasample(
            f'{name}_{suffix}_block', image, result.cpu(), draw_gt=False, step=step
        )
    if 'seg_logits' not in without:
        return
    one, other = (
        _probabilities(result.seg_logits.data) for result in (seen.result, without)
    )
    change = (one - other).abs().sum(dim=0, keepdim=True).cpu() / 2
    visualizer.add_image(f'{name}_change', painter.draw_featmap(change, image), step)


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Of each class, ``(C, H, W)``; a single one has a sigmoid."""
    return logits.softmax(dim=0) if len(logits) > 1 else logits.sigmoid()
