"""A page that shows the attention of the pixel below the pointer."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
import mmcv
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer
from torch import Tensor
from torch.nn import functional

from ..errors import OptionError
from .changes import describe_change, name_all_classes, scores_of_classes
from .figures import COLOURS, OPACITY, UNIFORM, plot_scores, to_pixels, to_url
from .queries import grid_of
from .records import (
    Record,
    choose_block,
    original_image,
    record_all,
    run,
    switched_off,
    whole_images,
)

#: Limits of what a page keeps: query and key positions of a block, frames of
#: a clip.
_QUERIES, _KEYS, _FRAMES = 256, 8192, 8


def write_page(
    model: BaseModel, data: dict[str, Any], visualizer: Visualizer, path: Path
) -> None:
    """Write a page with the maps of a grid of queries, for every block.

    Moving the pointer over the image shows what the position below it attends
    to. Beside it stand the predictions with and without the chosen block. The
    page is one file and needs no network.

    Args:
        model (BaseModel): Detector, segmentor, recognizer, classifier or pose
            estimator in evaluation mode.
        data (dict[str, Any]): A sample of the dataset.
        visualizer (Visualizer): The toolbox's own, draws the predictions.
        path (Path): HTML file to write.

    Raises:
        OptionError: If the model has no block that sees the whole image or
            clip.
    """
    choose_block(model)
    found = record_all(model, data)
    seen = [record for record in found.values() if isinstance(record, Record)]
    if not seen:
        raise OptionError('; '.join(map(str, found.values())))
    without = []
    for record in seen:
        with whole_images(model), switched_off(record.block):
            without.append(run(model, data))
    meta = visualizer.dataset_meta
    visualizer.dataset_meta = name_all_classes(meta, seen[0].result, *without)
    classes = visualizer.dataset_meta.get('classes')
    count, height, width = seen[0].frames.shape[:3]
    shown = (np.arange(min(count, _FRAMES)) + 0.5) * count / min(count, _FRAMES)
    frames = shown.astype(int).tolist()
    blocks = [
        dict(
            name=record.name,
            pictures=_pictures(visualizer, record, result),
            changes=describe_change(record.result, result, classes),
        )
        for record, result in zip(seen, without)
    ]
    template = jinja2.Template(
        Path(__file__).with_suffix('.html').read_text(encoding='utf-8'),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = template.render(
        title=path.stem,
        image=to_url(np.hstack(seen[0].frames[frames])[..., ::-1], 'jpeg'),
        blocks=blocks,
        maps={record.name: _maps(record, frames) for record in seen},
        colours=[to_hex(colour) for colour in colormaps[COLOURS](range(256))],
        opacity=OPACITY,
        uniform=UNIFORM,
        # the maps cover the padding too
        covered=[seen[0].padded[1] / width, seen[0].padded[0] / height],
        frames=[1 + frame for frame in frames],
        aspect=len(frames) * width / height,
    )
    visualizer.dataset_meta = meta
    path.write_text(text, encoding='utf-8')


def _maps(seen: Record, frames: Sequence[int]) -> dict[str, dict]:
    """What a page needs of the maps of a block's terms.

    Args:
        seen (Record): What the model did.
        frames (Sequence[int]): The frames that are shown, side by side.

    Returns:
        dict[str, dict]: By term, the numbers of rows and columns of the
        queries and of each map, the peaks of the maps in multiples of their
        mean, and a picture with a map in each row, as the root of its weights
        in parts of the peak, 0 to 255. The unary term has one map.
    """
    count, height, width = grid_of(seen)
    step = max(1.0, (len(frames) * height * width / _QUERIES) ** 0.5)
    rows, columns = max(1, int(height / step)), max(1, int(width / step))
    places = torch.cartesian_prod(
        ((torch.arange(rows) + 0.5) * height / rows).long(),
        torch.tensor([int(frame * count / len(seen.frames)) for frame in frames]),
        ((torch.arange(columns) + 0.5) * width / columns).long(),
    )
    positions = places[:, [1, 0, 2]] if seen.block.ndim == 3 else places[:, [0, 2]]
    pairwise, unary = seen.block.attention_weights(seen.features, positions)
    found = {}
    if pairwise is not None:
        queries = rows, len(frames) * columns
        found['pairwise'] = _pack(seen, frames, pairwise[0].float(), queries)
    if unary is not None:
        found['unary'] = _pack(seen, frames, unary[:1].float(), (1, 1))
    return found


def _pack(
    seen: Record, frames: Sequence[int], maps: Tensor, queries: tuple[int, int]
) -> dict[str, Any]:
    """What a page needs of the maps of one term, see :func:`_maps`."""
    maps = maps.reshape(len(maps), -1, *maps.shape[-2:])
    mean = maps.flatten(1).abs().mean(dim=1).clamp(min=1e-30)
    peaks = (maps.flatten(1).amax(dim=1) / mean).clamp(min=1e-30)
    keys = maps.shape[1]
    maps = maps[:, [int(frame * keys / len(seen.frames)) for frame in frames]]
    shrink = (_KEYS / maps[0].numel()) ** 0.5
    if shrink < 1:
        size = [max(1, int(side * shrink)) for side in maps.shape[2:]]
        maps = functional.interpolate(maps, size, mode='area')
    strips = maps.transpose(1, 2).flatten(2)  # (queries, height, frames * width)
    levels = (strips / (peaks * mean)[:, None, None]).clamp(0, 1).sqrt() * 255
    return dict(
        queries=queries,
        keys=tuple(strips.shape[1:]),
        peaks=[float(f'{peak:.4g}') for peak in peaks.tolist()],
        picture=to_url(levels.round().byte().flatten(1).cpu().numpy(), 'png'),
    )


def _pictures(
    visualizer: Visualizer, seen: Record, without: BaseDataElement
) -> dict[str, str]:
    """The toolbox's pictures of two predictions, or bars for classes."""
    if 'pred_score' in without:
        classes = visualizer.dataset_meta.get('classes')
        bars = to_pixels(plot_scores(*scores_of_classes(seen.result, without, classes)))
        return {'scores': to_url(bars[..., ::-1], 'png')}
    found = {}
    for title, result in {'with': seen.result, 'without': without}.items():
        with TemporaryDirectory() as folder:
            file = f'{folder}/prediction.jpg'
            visualizer.add_datasample(
                'prediction',
                original_image(seen),
                result.cpu(),
                draw_gt=False,
                out_file=file,
            )
            found[f'{title} the block'] = to_url(mmcv.imread(file), 'jpeg')
    return found
