"""What the block of a trained recognizer attends to, over the frames."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from ..errors import OptionError
from .attention_maps import draw_panel, enlarged_maps, recorded_input


def clip_attention(
    model: nn.Module, video: str | Path, query: tuple[float, float]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Attention of a model's block, seen from a pixel of the last frame.

    Args:
        model (nn.Module): Recognizer of
            :func:`mmaction.apis.init_recognizer`, with one non-local block
            for clips.
        video (str | Path): File of the video. Of several clips and crops,
            the first one is looked at.
        query (tuple[float, float]): Column and row of the query pixel, in
            the frames as the model sees them.

    Returns:
        tuple[np.ndarray, dict[str, np.ndarray]]: The frames, RGB,
        ``(T, H, W, 3)``, and the weights of the block's terms
        (``'pairwise'``, ``'unary'``) enlarged to them, ``(T, H, W)``.

    Raises:
        OptionError: If the model has not exactly one non-local block, it is
            none for clips, or the frames have no such pixel.
    """
    init_default_scope(model.cfg.default_scope)
    data = Compose(model.cfg.test_pipeline)(
        dict(filename=str(video), label=-1, start_index=0, modality='RGB'))
    frames = data['inputs']
    with recorded_input(model) as (block, features), torch.no_grad():
        if block.ndim != 3:
            raise OptionError(f'the block must be one for clips, but it is a '
                              f'{type(block).__name__}')
        model.test_step(pseudo_collate([data]))
    if frames.dim() == 5:  # clips
        frames = frames[0].transpose(0, 1)
    else:  # frames of a 2D recognizer, of all its crops
        frames = frames[:block.num_frames]
    frames = frames.permute(0, 2, 3, 1).numpy()
    count, height, width = frames.shape[:3]
    if not (0 <= query[0] < width and 0 <= query[1] < height):
        raise OptionError(f'{query} is no pixel (column, row) of {video}, '
                          f'which the model sees with {width} x {height}')
    first = features[0][:block.num_frames or 1]
    size = (block.num_frames, *first.shape[2:]) if block.num_frames else (
        first.shape[2:])
    position = torch.tensor([[
        size[0] - 1,
        int(query[1] / height * size[1]),
        int(query[0] / width * size[2])
    ]])
    return frames, enlarged_maps(block, first, position,
                                 (count, height, width))


def draw_clip_attention(models: Mapping[str, nn.Module],
                        queries: Sequence[tuple[str | Path, tuple[float,
                                                                  float]]],
                        path: str | Path) -> None:
    """Draw strips of frames and, over them, the maps of each model's block.

    Args:
        models (Mapping[str, nn.Module]): Recognizers by name, as for
            :func:`clip_attention`.
        queries (Sequence[tuple]): The file of a video and the query pixel,
            column and row in its last frame.
        path (str | Path): PNG file to write.
    """
    strips = []
    for video, query in queries:
        for number, (name, model) in enumerate(models.items()):
            frames, maps = clip_attention(model, video, query)
            if number == 0:
                strips.append(('query, last frame', query, frames, None))
            strips += [(f'{name}: {term}', query, frames, weights)
                       for term, weights in maps.items()]
    columns = max(len(frames) for _, _, frames, _ in strips)
    height, width = strips[0][2].shape[1:3]
    figure = Figure(
        figsize=(2.4 * columns + 1.6, 2.4 * height / width * len(strips)
                 + .2 * len(strips)),
        layout='constrained')
    grid = figure.subplots(len(strips), columns, squeeze=False)
    for (title, query, frames, weights), line in zip(strips, grid):
        line[0].set_title(title, fontsize=9, loc='left')
        for axes in line:
            axes.set_axis_off()
        for time, (frame, axes) in enumerate(zip(frames, line)):
            last = time == len(frames) - 1
            draw_panel(axes, frame, query if last else None,
                       None if weights is None else weights[time],
                       None if weights is None else weights.max())
    figure.savefig(path, dpi=110)
