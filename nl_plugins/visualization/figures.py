"""The style of all figures of attention: one colour map, bars, one scale.

Sizes are those of a paper: 6.9 inches for two columns, text of 8 pt.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image

from ..errors import OptionError

#: A perceptually uniform colour map, and its opacity over a grey image.
COLOURS, OPACITY = 'inferno', 0.7
#: Pixels per inch of PNG files and animations.
DPI = 200
#: Suffixes of animations, and how many frames of a clip they show per second.
ANIMATIONS, FPS = ('.gif', '.mp4'), 4
#: A map whose peak is smaller, in multiples of the mean, is called uniform.
UNIFORM = 1.2
#: What the colours of a map span, see :func:`plot_panels`.
SCALES = 'max', 'uniform', 'shared'

_PAGE, _PANEL, _GAP = 6.9, 2.2, 0.1  # inches
_LINE, _BAR, _TICKS = 0.15, 0.06, 0.22
_CROSS = 'lime'


class AttentionFigure(Figure):
    """A figure that displays itself in a notebook."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format='png', dpi=DPI)
        return buffer.getvalue()


@dataclass(frozen=True)
class Panel:
    """An image, and a map over it.

    Attributes:
        title (str): What stands above it, one or two lines.
        image (np.ndarray): RGB, ``(H, W, 3)``, uint8.
        values (np.ndarray, optional): ``(H, W)``, NaN where there is nothing.
            Defaults to None, the image alone.
        unit (str): Unit of the values. Defaults to multiples of the mean
            weight of the map. Others are values from 0 to 1.
        peak (float): The largest value, of the whole clip. Defaults to 0.
        cross (tuple[float, float], optional): Column and row of the query.
        border (tuple[float, float], optional): First column and width of what
            gets a border. Defaults to None, no border.
    """

    title: str
    image: np.ndarray
    values: np.ndarray | None = None
    unit: str = '× mean'
    peak: float = 0
    cross: tuple[float, float] | None = None
    border: tuple[float, float] | None = None


def check_scale(scale: str) -> None:
    """Check what the colours of maps shall span.

    Args:
        scale (str): Name of a scale, see :func:`plot_panels`.

    Raises:
        OptionError: If there is no such scale.
    """
    if scale not in SCALES:
        raise OptionError(f'scale must be one of {", ".join(SCALES)}, but got {scale}')


def plot_panels(rows: Sequence[Sequence[Panel]], scale: str = 'max') -> AttentionFigure:
    """Plot panels in rows, each map with a colour bar below it.

    Args:
        rows (Sequence[Sequence[Panel]]): The panels, those of one row in one
            size. Strips of frames, in rows of their own, get the whole width.
        scale (str): What the colours span. ``'max'``: from 0 to the largest
            weight of each map, ``'shared'``: of all maps of the figure; at
            least to twice the mean, so that a uniform map never has the
            colours of a peak. ``'uniform'``: from 0.1 to 10 times the mean,
            logarithmic, in every figure; uniform attention has the colour in
            the middle. Defaults to ``'max'``.

    Returns:
        AttentionFigure: At most as wide as two columns of a paper.

    Raises:
        OptionError: If there is no such scale.
    """
    check_scale(scale)
    maps = [p for row in rows for p in row if p.values is not None]
    columns = max(map(len, rows))
    strips = any(p.image.shape[1] > 3 * p.image.shape[0] for row in rows for p in row)
    largest = _PAGE if strips else _PANEL
    width = min(largest, (_PAGE - _GAP * (columns - 1)) / columns)
    sizes = [
        (
            _LINE * max(1 + panel.title.count('\n') for panel in row),
            width * max(p.image.shape[0] / p.image.shape[1] for p in row),
            _BAR + _TICKS if any(p.values is not None for p in row) else 0.04,
        )
        for row in rows
    ]
    total = columns * width + _GAP * (columns - 1), sum(map(sum, sizes))
    with rc_context({'font.size': 8, 'axes.titlesize': 8, 'svg.fonttype': 'none'}):
        figure = AttentionFigure(figsize=total)
        top = total[1]
        for row, (title, height, below) in zip(rows, sizes):
            top -= title + height
            for number, panel in enumerate(row):
                left = number * (width + _GAP)
                box = left, top, width, height
                axes = figure.add_axes(_fractions(box, total))
                bar = left, top - 0.04 - _BAR, min(width, _PANEL), _BAR
                _draw(axes, panel)
                if panel.values is not None:
                    norm = _norm(panel, scale, maps)
                    values = np.ma.masked_invalid(panel.values)
                    drawn = axes.imshow(values, COLOURS, norm, alpha=OPACITY)
                    _add_bar(figure.add_axes(_fractions(bar, total)), drawn, panel.unit)
            top -= below
    return figure


def plot_scores(
    names: Sequence[str], with_block: Sequence[float], without: Sequence[float]
) -> AttentionFigure:
    """Plot the scores of classes with and without a block, as bars.

    Args:
        names (Sequence[str]): The classes.
        with_block (Sequence[float]): Their scores, 0 to 1.
        without (Sequence[float]): The scores with the block switched off.

    Returns:
        AttentionFigure: One column of a paper wide.
    """
    with rc_context({'font.size': 8}):
        figure = AttentionFigure((3.3, 0.6 + 0.35 * len(names)), layout='constrained')
        axes = figure.add_subplot()
        places = np.arange(len(names))
        for shift, scores, label, colour in (
            (-0.2, with_block, 'with the block', 'C0'),
            (0.2, without, 'without', '0.7'),
        ):
            bars = axes.barh(places + shift, scores, 0.36, label=label, color=colour)
            axes.bar_label(bars, fmt='%.3f', padding=2)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15)
        axes.set_xticks([0, 0.5, 1])
        axes.set_xlabel('score')
        axes.spines[['top', 'right']].set_visible(False)
        figure.legend(loc='outside upper center', ncols=2, frameon=False)
    return figure


def to_pixels(figure: Figure) -> np.ndarray:
    """Render a figure.

    Args:
        figure (Figure): The figure.

    Returns:
        np.ndarray: RGB, ``(H, W, 3)``, uint8.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=DPI)
    return np.array(Image.open(buffer).convert('RGB'))


def to_url(pixels: np.ndarray, kind: str) -> str:
    """Encode a picture as a part of a page.

    Args:
        pixels (np.ndarray): BGR ``(H, W, 3)``, or grey ``(H, W)``, uint8.
        kind (str): ``'jpeg'`` or ``'png'``.

    Returns:
        str: A URL that holds the picture.
    """
    content = cv2.imencode(f'.{kind}', pixels)[1].tobytes()
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def animate(pictures: Iterable[np.ndarray], path: Path) -> None:
    """Write pictures one after another, four in a second.

    Args:
        pictures (Iterable[np.ndarray]): RGB, of one size.
        path (Path): GIF or MP4 file to write.

    Raises:
        OptionError: If this OpenCV writes no MP4 files.
    """
    first, *others = (Image.fromarray(picture) for picture in pictures)
    if path.suffix == '.gif':
        first.save(
            path, save_all=True, append_images=others, duration=1000 // FPS, loop=0
        )
        return
    size = first.width // 2 * 2, first.height // 2 * 2  # the codec needs even sides
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), FPS, size)
    if not writer.isOpened():
        raise OptionError(f'{path}: this OpenCV writes no MP4 files; choose gif')
    for picture in (first, *others):
        writer.write(np.asarray(picture)[: size[1], : size[0], ::-1])
    writer.release()


def _norm(panel: Panel, scale: str, maps: Sequence[Panel]) -> Normalize:
    """What the colours of a panel span."""
    if panel.unit != Panel.unit:
        return Normalize(0, 1)
    if scale == 'uniform':
        return LogNorm(0.1, 10, clip=True)
    peaks = [p.peak for p in ([panel] if scale == 'max' else maps)]
    return Normalize(0, max(2.0, *peaks), clip=True)


def _fractions(
    box: tuple[float, float, float, float], total: tuple[float, float]
) -> tuple[float, float, float, float]:
    """A box in inches, as fractions of a figure."""
    left, bottom, width, height = box
    return left / total[0], bottom / total[1], width / total[0], height / total[1]


def _draw(axes: Axes, panel: Panel) -> None:
    """Draw the image, grey below a map, the title, the cross and the border."""
    image = panel.image
    if panel.values is not None:
        image = cv2.cvtColor(
            cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB
        )
    axes.imshow(image, 'gray', vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_title(panel.title, loc='left', pad=2)
    if panel.cross is not None:
        # dark below light: seen on every colour
        for width, colour in ((2.4, 'black'), (1.2, _CROSS)):
            axes.plot(*panel.cross, '+', ms=8, mew=width, color=colour)
    if panel.border is not None:
        left, width = panel.border
        box = (left - 0.5, -0.5), width, len(image)
        line = Rectangle(*box, fill=False, color=_CROSS, lw=1.5, clip_on=False)
        axes.add_patch(line)


def _add_bar(axes: Axes, drawn: AxesImage, unit: str) -> None:
    """Add a colour bar with its unit."""
    bar = drawn.figure.colorbar(drawn, cax=axes, orientation='horizontal')
    bar.outline.set_linewidth(0.4)
    first, last = drawn.get_clim()
    # what uniform attention would be, where there is room for it
    ticks = [first, 1.0, last] if first or 1 < last < 6 else [first, last]
    labels = [f'{tick:.3g}' for tick in ticks]
    bar.set_ticks(ticks, labels=[*labels[:-1], f'{labels[-1]} {unit}'])
    bar.minorticks_off()
    axes.tick_params(labelsize=7, length=2, width=0.4, pad=1)
    axes.get_xticklabels()[0].set_horizontalalignment('left')
    axes.get_xticklabels()[-1].set_horizontalalignment('right')
