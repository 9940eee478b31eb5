"""Attention of blocks in images and videos, plotted."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import mmcv
import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from .changes import (
    change_of_probabilities,
    describe_change,
    name_all_classes,
    scores_of_classes,
)
from .figures import (
    ANIMATIONS,
    DPI,
    UNIFORM,
    AttentionFigure,
    Panel,
    animate,
    plot_panels,
    plot_scores,
    to_pixels,
)
from .queries import AttentionMap, attention_from, default_points, seen_pixel
from .records import (
    Record,
    find_blocks,
    original_image,
    record,
    run,
    switched_off,
    whole_images,
)
from .samples import sample_from_file

#: Frames of a strip, and the space between them as a part of their width.
_FRAMES, _SPACE = 8, 0.02


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
    scale: str = 'max',
    files: Sequence[Path] = (),
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
            sees them. Defaults to none, those of :func:`.queries.
            default_points`.
        block (str, optional): Name of the block. Defaults to None, the last
            one that sees the whole image or clip.
        step (int): Step of the training. Defaults to 0.
        scale (str): What the colours span, as in :func:`.figures.
            plot_panels`. Defaults to ``'max'``.
        files (Sequence[Path]): Names of files without what follows the
            prefix, such as ``dir/image.pdf``: the figures are also written
            as ``dir/image_point0.pdf``. A ``.gif`` or ``.mp4`` has the frames
            of a clip one after another. Defaults to none.

    Returns:
        list[str]: The block and the others, and what the block changes.

    Raises:
        OptionError: If there is no such block or pixel, or the block is not
            for such data.
    """
    seen = record(model, data, block)
    with whole_images(model), switched_off(seen.block):
        without = run(model, data)
    meta = visualizer.dataset_meta
    visualizer.dataset_meta = name_all_classes(meta, seen.result, without)
    classes = visualizer.dataset_meta.get('classes')
    for suffix, figure in _figures(seen, without, points, classes, scale):
        visualizer.add_image(f'{name}_{suffix}', to_pixels(figure), step)
        for file in files:
            if file.suffix not in ANIMATIONS:
                figure.savefig(file.with_name(f'{file.stem}_{suffix}{file.suffix}'))
    for file in files:
        if file.suffix in ANIMATIONS:
            for number, point in enumerate(points or default_points(seen)):
                path = file.with_name(f'{file.stem}_point{number}{file.suffix}')
                animate(_frames_of_clip(seen, point, scale), path)
    _add_predictions(visualizer, seen, without, name, step)
    visualizer.dataset_meta = meta
    others = [other for other in find_blocks(model) if other != seen.name]
    return [
        f'block: {seen.name}' + (f' (others: {", ".join(others)})' if others else ''),
        *describe_change(seen.result, without, classes),
    ]


def show_attention(
    model: BaseModel,
    image: str | Path | np.ndarray,
    point: tuple[float, float] | None = None,
    block: str | None = None,
    scale: str = 'max',
) -> AttentionFigure:
    """Plot what a block attends to from a pixel, for a notebook.

    Args:
        model (BaseModel): A model in evaluation mode with its config as
            ``cfg``, such as the ``model`` of a toolbox's inferencer.
        image (str | Path | np.ndarray): File of an image or video, or an
            image, BGR as of ``mmcv.imread``.
        point (tuple[float, float], optional): Column and row of the query
            pixel; of a video in its middle frame. Defaults to None, the first
            of :func:`.queries.default_points`.
        block (str, optional): Name of the block. Defaults to None, the last
            one that sees the whole image or clip.
        scale (str): What the colours span, as in :func:`.figures.
            plot_panels`. Defaults to ``'max'``.

    Returns:
        AttentionFigure: Query and maps. It displays itself in a notebook;
        ``savefig('attention.pdf')`` writes it.

    Raises:
        OptionError: As :func:`plot_attention`, or there is no such file.
    """
    with TemporaryDirectory() as folder:
        if isinstance(image, np.ndarray):
            mmcv.imwrite(image, f'{folder}/image.png')
            image = f'{folder}/image.png'
        data = sample_from_file(model.cfg, image)
    seen = record(model, data, block)
    return _plot_query(seen, point or default_points(seen)[0], scale)


def attention_maps(
    model: BaseModel, file: str | Path, point: tuple[float, float]
) -> tuple[Record, dict[str, AttentionMap]]:
    """Run a model on a file and look at the attention of its last block.

    It is the last one that sees the whole image or clip.

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
    seen = record(model, sample_from_file(model.cfg, file))
    return seen, attention_from(seen, point, frame=-1)


def compare_attention(
    models: Mapping[str, BaseModel],
    queries: Sequence[tuple[str | Path, tuple[float, float]]],
    path: str | Path,
    scale: str = 'max',
) -> None:
    """Plot the attention of the last blocks of several models.

    Args:
        models (Mapping[str, BaseModel]): Models by name, as for
            :func:`attention_maps`.
        queries (Sequence[tuple]): File of an image or video, and the query
            pixel, each of which gets a row, of a video a strip for each map.
        path (str | Path): PNG, PDF or SVG file to write.
        scale (str): What the colours span, as in :func:`.figures.
            plot_panels`. Defaults to ``'max'``.

    Raises:
        OptionError: As :func:`attention_maps`.
    """
    rows: list[list[Panel]] = []
    for file, point in queries:
        panels: list[Panel] = []
        for name, model in models.items():
            seen, found = attention_maps(model, file, point)
            maps = {f'{name}: {term}': found[term] for term in found}
            last = len(seen.frames) - 1
            # the input once
            panels += _panels(seen, point, last, maps)[bool(panels) :]
        rows += [panels] if last == 0 else [[panel] for panel in panels]
    plot_panels(rows, scale).savefig(path, dpi=DPI)


def _figures(
    seen: Record,
    without: BaseDataElement,
    points: Sequence[tuple[float, float]],
    classes: Sequence[str] | None,
    scale: str,
) -> Iterator[tuple[str, Figure]]:
    """The figures of a record and what follows the prefix in their names."""
    for number, point in enumerate(points or default_points(seen)):
        yield f'point{number}', _plot_query(seen, point, scale)
    if 'pred_score' in without:  # classes of an image or a video
        yield 'change', plot_scores(*scores_of_classes(seen.result, without, classes))
    if 'seg_logits' in without:
        change = change_of_probabilities(seen.result, without)
        image = cv2.resize(seen.frames[0], change.shape[::-1])
        title = f'change of probabilities, mean {change.mean():.3f}'
        yield 'change', plot_panels([[Panel(title, image, change, unit='')]])


def _plot_query(
    seen: Record, point: tuple[float, float], scale: str
) -> AttentionFigure:
    """What a block attends to from a pixel, of a clip in its middle frame."""
    frame = len(seen.frames) // 2
    panels = _panels(seen, point, frame, attention_from(seen, point, frame))
    # images side by side, the strips of a video on one another
    return plot_panels(
        [panels] if len(seen.frames) == 1 else [[panel] for panel in panels], scale
    )


def _panels(
    seen: Record,
    point: tuple[float, float],
    frame: int,
    maps: Mapping[str, AttentionMap],
) -> list[Panel]:
    """The input with the point in a frame, and each map over the input."""
    count, _, width = seen.frames.shape[:3]
    shown = np.arange(count)
    if count > _FRAMES:
        # evenly spaced, the frame among them, in the middle if it can be
        step = count // _FRAMES
        before = max(_FRAMES // 2, _FRAMES - 1 - (count - 1 - frame) // step)
        shown = frame + step * (np.arange(_FRAMES) - min(before, frame // step))
    space = max(1, round(_SPACE * width))
    left = shown.tolist().index(frame) * (width + space)
    column, row = seen_pixel(seen, point)
    return _query_and_maps(
        f'query in frame {frame + 1} of {count}' if count > 1 else 'query',
        _side_by_side(seen.frames[shown], space, 255),
        {
            title: (found, _side_by_side(found.weights[shown], space, np.nan))
            for title, found in maps.items()
        },
        (left + column, row),
        (left, width) if count > 1 else None,
    )


def _frames_of_clip(
    seen: Record, point: tuple[float, float], scale: str
) -> Iterator[np.ndarray]:
    """The pictures of an animation: each frame, and the maps over it."""
    count, _, width = seen.frames.shape[:3]
    middle = count // 2
    maps = attention_from(seen, point, middle)
    for number, image in enumerate(seen.frames):
        weights = {term: (found, found.weights[number]) for term, found in maps.items()}
        title = f'frame {number + 1} of {count}'
        if number == middle:
            cross = seen_pixel(seen, point)
            panels = _query_and_maps(title, image, weights, cross, (0, width))
        else:
            panels = _query_and_maps(title, image, weights)
        yield to_pixels(plot_panels([panels], scale))


def _query_and_maps(
    title: str,
    image: np.ndarray,
    maps: Mapping[str, tuple[AttentionMap, np.ndarray]],
    cross: tuple[float, float] | None = None,
    border: tuple[float, float] | None = None,
) -> list[Panel]:
    """An image, and over it what is shown of the weights of each map."""
    panels = [Panel(title, image, cross=cross, border=border)]
    for term, (found, weights) in maps.items():
        uniform = ', uniform' if found.peak < UNIFORM else ''
        panels.append(
            Panel(
                f'{term}\npeak {found.peak:.3g} × mean{uniform}',
                image,
                weights / found.mean,
                peak=found.peak,
                cross=cross,
                border=border,
            )
        )
    return panels


def _side_by_side(frames: np.ndarray, space: int, value: float) -> np.ndarray:
    """Frames in a row, with a space of a value between them."""
    gaps = [(0, 0), (0, 0), (0, space)] + [(0, 0)] * (frames.ndim - 3)
    padded = np.pad(frames, gaps, constant_values=value)
    return np.concatenate(list(padded), axis=1)[:, :-space]


def _add_predictions(
    visualizer: Visualizer,
    seen: Record,
    without: BaseDataElement,
    name: str,
    step: int,
) -> None:
    """Add the toolbox's own pictures of the two predictions."""
    if 'pred_score' in without:  # bars show them
        return
    image = original_image(seen)
    for suffix, result in (('with', seen.result), ('without', without)):
        visualizer.add_datasample(
            f'{name}_{suffix}_block', image, result.cpu(), draw_gt=False, step=step
        )
