"""What the block of a trained recognizer attends to, over the frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from .attention_maps import draw_panel
from .records import attention_from, choose_block, record
from .samples import sample_from_file


def clip_attention(
    model: nn.Module, video: str | Path, query: tuple[float, float]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Attention of a model's last block, from a pixel of the last frame.

    Args:
        model (nn.Module): Recognizer with its config as ``cfg``.
        video (str | Path): File of the video. Of several clips and crops,
            the first one is looked at.
        query (tuple[float, float]): Column and row of the query pixel, in
            the frames as the model sees them.

    Returns:
        tuple[np.ndarray, dict[str, np.ndarray]]: The frames, RGB,
        ``(T, H, W, 3)``, and the weights of the block's terms
        (``'pairwise'``, ``'unary'``) enlarged to them, ``(T, H, W)``.

    Raises:
        OptionError: If the model has no non-local block, the last one is
            none for clips, or the frames have no such pixel.
    """
    seen = record(model, sample_from_file(model.cfg, video), choose_block(model)[1])
    maps = attention_from(seen, query, frame=-1)
    return seen.frames, {term: m.weights for term, m in maps.items()}


def draw_clip_attention(
    models: Mapping[str, nn.Module],
    queries: Sequence[tuple[str | Path, tuple[float, float]]],
    path: str | Path,
) -> None:
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
            strips += [
                (f'{name}: {term}', query, frames, weights)
                for term, weights in maps.items()
            ]
    columns = max(len(frames) for _, _, frames, _ in strips)
    height, width = strips[0][2].shape[1:3]
    figure = Figure(
        figsize=(
            2.4 * columns + 1.6,
            2.4 * height / width * len(strips) + 0.2 * len(strips),
        ),
        layout='constrained',
    )
    grid = figure.subplots(len(strips), columns, squeeze=False)
    for (title, query, frames, weights), line in zip(strips, grid):
        line[0].set_title(title, fontsize=9, loc='left')
        for axes in line:
            axes.set_axis_off()
        for time, (frame, axes) in enumerate(zip(frames, line)):
            last = time == len(frames) - 1
            draw_panel(
                axes,
                frame,
                query if last else None,
                None if weights is None else weights[time],
                None if weights is None else weights.max(),
            )
    figure.savefig(path, dpi=110)
