"""What the block of a trained model attends to."""
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import mmcv
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn import functional

from ..blocks.base import NonLocalBlock
from ..errors import OptionError


def find_blocks(model: nn.Module) -> list[NonLocalBlock]:
    """The non-local blocks of this package in a model."""
    return [m for m in model.modules() if isinstance(m, NonLocalBlock)]


@contextmanager
def recorded_input(
        model: nn.Module) -> Iterator[tuple[NonLocalBlock, list[Tensor]]]:
    """Keep what the block of a model gets while the model runs.

    Args:
        model (nn.Module): Any model with one non-local block.

    Yields:
        tuple[NonLocalBlock, list[Tensor]]: The block and a list, to which
        each forward of the block adds its input.

    Raises:
        OptionError: If the model has not exactly one non-local block.
    """
    blocks = find_blocks(model)
    if len(blocks) != 1:
        raise OptionError(
            'the model must have one non-local block, but this '
            f'{type(model).__name__} has {len(blocks)}')
    features = []
    handle = blocks[0].register_forward_pre_hook(
        lambda module, args: features.append(args[0]))
    try:
        yield blocks[0], features
    finally:
        handle.remove()


def attention_maps(model: nn.Module, image: str | Path,
                   query: tuple[float, float]) -> dict[str, np.ndarray]:
    """Attention of a model's block, seen from one pixel of an image.

    A segmentor that slides a window takes the whole image at once here.

    Args:
        model (nn.Module): Detector of :func:`mmdet.apis.init_detector` or
            segmentor of :func:`mmseg.apis.init_model`, with one non-local
            block.
        image (str | Path): File of the image.
        query (tuple[float, float]): Column and row of the query pixel.

    Returns:
        dict[str, np.ndarray]: The weights of the block's terms,
        ``'pairwise'`` and ``'unary'``, as far as it has them, enlarged to
        the image as the model sees it, ``(H, W)``.

    Raises:
        OptionError: If the model has not exactly one non-local block, or
            the image no such pixel.
    """
    with recorded_input(model) as (block, features), _whole_images(model):
        result = infer(model, image)
    height, width = result.ori_shape[:2]
    if not (0 <= query[0] < width and 0 <= query[1] < height):
        raise OptionError(f'{query} is no pixel (column, row) of {image}, '
                          f'which has {width} x {height}')
    padded_height, padded_width = result.get(
        'batch_input_shape', result.img_shape)[:2]
    rows, columns = features[0].shape[2:]
    scale_x, scale_y = result.get('scale_factor', (1., 1.))
    position = features[0].new_tensor([[
        query[1] * scale_y / padded_height * rows,
        query[0] * scale_x / padded_width * columns
    ]]).long()

    maps = enlarged_maps(block, features[0], position,
                         (padded_height, padded_width))
    height, width = result.img_shape[:2]
    return {term: weights[:height, :width] for term, weights in maps.items()}


def enlarged_maps(block: NonLocalBlock, x: Tensor, position: Tensor,
                  size: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What a block attends to from one position, enlarged.

    Args:
        block (NonLocalBlock): A block for images or clips.
        x (Tensor): Its input, of one sample.
        position (Tensor): The query, shape ``(1, block.ndim)``, integers.
        size (tuple[int, ...]): ``(H, W)`` or ``(T, H, W)`` of the result.

    Returns:
        dict[str, np.ndarray]: The weights of the block's terms,
        ``'pairwise'`` and ``'unary'``, as far as it has them.
    """
    pairwise, unary = block.attention_weights(x, position)
    maps = {}
    if pairwise is not None:
        maps['pairwise'] = pairwise[0, 0]
    if unary is not None:
        maps['unary'] = unary[0]
    mode = 'trilinear' if len(size) == 3 else 'bilinear'
    return {
        term: functional.interpolate(weights[None, None], size,
                                     mode=mode)[0, 0].cpu().numpy()
        for term, weights in maps.items()
    }


@contextmanager
def _whole_images(model: nn.Module) -> Iterator[None]:
    """Let a segmentor that slides a window take the image at once."""
    test_cfg = getattr(model, 'test_cfg', None)
    if not isinstance(test_cfg, dict) or test_cfg.get('mode') != 'slide':
        yield
        return
    model.test_cfg = ConfigDict(test_cfg, mode='whole')
    try:
        yield
    finally:
        model.test_cfg = test_cfg


def infer(model: nn.Module, image: str | Path) -> BaseDataElement:
    """Run the toolbox's own test pipeline and the model on an image.

    Args:
        model (nn.Module): Detector of :func:`mmdet.apis.init_detector` or
            segmentor of :func:`mmseg.apis.init_model`.
        image (str | Path): File of the image.

    Returns:
        BaseDataElement: The prediction, in the toolbox's own form.
    """
    if model.cfg.default_scope == 'mmseg':
        from mmseg.apis import inference_model
        return inference_model(model, str(image))
    from mmdet.apis import inference_detector
    return inference_detector(model, str(image))


def draw_attention(models: Mapping[str, nn.Module],
                   queries: Sequence[tuple[str | Path, tuple[float, float]]],
                   path: str | Path) -> None:
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
    figure = Figure(
        figsize=(3.2 * len(rows[0]), 1.9 * len(rows)), layout='constrained')
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for (title, _), axes in zip(rows[0], grid[0]):
        axes.set_title(title, fontsize=9)
    for (file, query), panels, line in zip(queries, rows, grid):
        image = mmcv.imread(file, channel_order='rgb')
        for (_, weights), axes in zip(panels, line):
            draw_panel(axes, image, query, weights)
    figure.savefig(path, dpi=120)


def draw_panel(axes: Axes,
               image: np.ndarray,
               query: tuple[float, float] | None,
               weights: np.ndarray | None,
               largest: float | None = None) -> None:
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
            extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    if query is not None:
        axes.plot(*query, '+', color='lime', markersize=10, markeredgewidth=2)
    axes.set_axis_off()
