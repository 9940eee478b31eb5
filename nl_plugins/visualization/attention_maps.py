"""What the blocks of several models attend to, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import mmcv
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from .records import attention_from, choose_block, record
from .samples import sample_from_file


def attention_maps(
    model: nn.Module, image: str | Path, query: tuple[float, float]
) -> dict[str, np.ndarray]:
    """Attention of a model's last block, seen from one pixel of an image.

    A segmentor that slides a window takes the whole image at once here.

    Args:
        model (nn.Module): Detector or segmentor with its config as ``cfg``.
        image (str | Path): File of the image.
        query (tuple[float, float]): Column and row of the query pixel.

    Returns:
        dict[str, np.ndarray]: The weights of the block's terms,
        ``'pairwise'`` and ``'unary'``, as far as it has them, enlarged to
        the image as the model sees it, ``(H, W)``.

    Raises:
        OptionError: If the model has no non-local block, or the image no
            such pixel.
    """
    seen = record(model, sample_from_file(model.cfg, image), choose_block(model)[1])
    return {
        term: found.weights[0] for term, found in attention_from(seen, query).items()
    }


def draw_attention(
    models: Mapping[str, nn.Module],
    queries: Sequence[tuple[str | Path, tuple[float, float]]],
    path: str | Path,
) -> None:
    """Draw images and, over them, the maps of each model's block.

    Args:
        models (Mapping[str, nn.Module]): Models by name, as for
            :func:`attention_maps`.
        queries (Sequence[tuple]): Rows of the picture: the file of an image
            and the query pixel, column and row.
        path (str | Path): PNG file to write.
    """
    rows = []
    for file, query in queries:
        panels = [('query point', None)]
        for name, model in models.items():
            maps = attention_maps(model, file, query)
            panels += [(f'{name}: {term}', maps[term]) for term in maps]
        rows.append(panels)
    figure = Figure(figsize=(3.2 * len(rows[0]), 1.9 * len(rows)), layout='constrained')
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for (title, _), axes in zip(rows[0], grid[0]):
        axes.set_title(title, fontsize=9)
    for (file, query), panels, line in zip(queries, rows, grid):
        image = mmcv.imread(file, channel_order='rgb')
        for (_, weights), axes in zip(panels, line):
            draw_panel(axes, image, query, weights)
    figure.savefig(path, dpi=120)


def draw_panel(
    axes: Axes,
    image: np.ndarray,
    query: tuple[float, float] | None,
    weights: np.ndarray | None,
    largest: float | None = None,
) -> None:
    """Draw an image, a map over it, and the query pixel.

    Args:
        axes (Axes): Where to draw.
        image (np.ndarray): RGB, ``(H, W, 3)``, uint8.
        query (tuple[float, float], optional): Column and row.
        weights (np.ndarray, optional): The map, enlarged to the image or to
            what the model sees of it.
        largest (float, optional): Weight of the brightest colour. Defaults
            to None, that of this map.
    """
    axes.imshow(image)
    if weights is not None:
        height, width = image.shape[:2]
        axes.imshow(
            weights,
            cmap='inferno',
            alpha=0.7,
            vmin=None if largest is None else 0,
            vmax=largest,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )
    if query is not None:
        axes.plot(*query, '+', color='lime', markersize=10, markeredgewidth=2)
    axes.set_axis_off()
