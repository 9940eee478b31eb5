"""A comparison as one HTML page that needs nothing else."""

import io
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import jinja2
import mmcv
import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ...toolboxes import installed_versions
from ...visualization.figures import to_url
from .models import Comparison, Group
from .runs import Run
from .tables import shared_metrics, tables

#: Pictures of one model on the page, and their largest width in pixels.
_PICTURES, _WIDTH = 8, 900


def write_page(comparison: Comparison, path: str | Path, command: str = '') -> None:
    """Write the tables, the curves of all runs and their pictures.

    Curves and pictures are part of the file. The pictures are those that
    the visualizer has kept (``vis_data/vis_image``) and PNG files in the
    work directories, the latest of each model.

    Args:
        comparison (Comparison): What was found.
        path (str | Path): HTML file to write.
        command (str): What the page names as its command. Defaults to ``''``,
            none.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['number'] = _number
    groups = [
        dict(
            name=group.models[0].name,
            tables=tables(comparison, group),
            colours={
                model.name: _colour(number) for number, model in enumerate(group.models)
            },
            curves=list(_curves(group)),
            pictures=[
                (model.name, *_pictures(model.all_runs)) for model in group.models
            ],
        )
        for group in comparison.groups
    ]
    text = environment.get_template('page.html').render(
        groups=groups,
        other_runs=comparison.other_runs,
        command=command,
        machine=_machine(comparison.setting.device),
    )
    Path(path).write_text(text, encoding='utf-8')


def _colour(number: int) -> str:
    return to_hex(f'C{number}')


def _number(cell: str) -> float | None:
    """The number that a cell begins with, by which its column is sorted."""
    found = re.match(r'([+-]?\d+(?:\.\d+)?)(?: (ms|h)\b)?', cell)
    # beside them stand s and min
    return float(found[1]) * {'ms': 0.001, 'h': 60}.get(found[2], 1) if found else None


def _curves(group: Group) -> Iterable[tuple[str, str]]:
    """Titles and plots, as SVG."""
    runs = [
        (number, run)
        for number, model in enumerate(group.models)
        for run in model.all_runs
        if run.train
    ]
    names = [model.name for model in group.models]
    losses = dict.fromkeys(
        key for _, run in runs for key in run.train[-1] if 'loss' in key
    )
    for metric in shared_metrics(group):
        values = [
            (
                number,
                [
                    (r['iteration'], metric.factor * r[metric.key])
                    for r in run.val
                    if metric.key in r
                ],
            )
            for number, run in runs
        ]
        yield metric.name, _plot(values, 'o-', names)
    for key in losses:
        values = [
            (number, [(r['iteration'], r[key]) for r in run.train if key in r])
            for number, run in runs
        ]
        yield key, _plot(values, '-', names)


def _plot(
    lines: list[tuple[int, list[tuple[int, float]]]], style: str, names: list[str]
) -> str:
    """Lines of models; losses, without markers, on a log axis."""
    grey = '#808890'  # readable on white and on black
    options: Any = {'svg.fonttype': 'none', 'text.color': grey, 'axes.edgecolor': grey}
    options |= {'xtick.color': grey, 'ytick.color': grey, 'axes.labelcolor': grey}
    hints: dict[str, tuple[str, list[str]]] = {}
    with rc_context(options):
        figure = Figure(figsize=(4.6, 3), layout='constrained')
        axes = figure.subplots()
        for number, points in lines:
            if not points:
                continue
            (line,) = axes.plot(
                *zip(*points),
                style,
                color=_colour(number),
                markersize=3,
                linewidth=1.2,
                alpha=0.8,
            )
            values = [f'{names[number]}: {y:.4g} at {x}' for x, y in points]
            identity = f'run{len(hints)}'
            line.set_gid(identity)
            hints[identity] = names[number], values
        axes.set_xlabel('iteration')
        if style == '-' and all(y > 0 for _, points in lines for _, y in points):
            axes.set_yscale('log')
        axes.grid(alpha=0.3)
        file = io.BytesIO()
        figure.savefig(file, format='svg', transparent=True)
    return _with_hints(file.getvalue(), hints)


def _with_hints(svg: bytes, hints: dict[str, tuple[str, list[str]]]) -> str:
    """An SVG of matplotlib, which shows a text where the pointer is.

    Args:
        svg (bytes): The file.
        hints (dict): Texts of a line and of its markers, by its id.
    """
    space = '{http://www.w3.org/2000/svg}'
    ElementTree.register_namespace('', space[1:-1])
    ElementTree.register_namespace('xlink', 'http://www.w3.org/1999/xlink')
    root = ElementTree.fromstring(svg)
    for child in root.findall(f'{space}metadata'):
        root.remove(child)
    for group in root.iter(f'{space}g'):
        name, values = hints.get(group.get('id', ''), ('', []))
        if name:
            ElementTree.SubElement(group, f'{space}title').text = name
            for marker, value in zip(group.iter(f'{space}use'), values):
                ElementTree.SubElement(marker, f'{space}title').text = value
            del group.attrib['id']
    root.attrib.pop('width'), root.attrib.pop('height')
    return ElementTree.tostring(root, encoding='unicode')


def _pictures(runs: Iterable[Run]) -> tuple[list[tuple[str, str]], int]:
    """The latest pictures of a model, and how many there are besides."""
    latest: dict[tuple[Path, str], tuple[tuple[str, int], Path]] = {}
    for run in runs:
        kept = [
            *run.work_dir.glob('*/vis_data/vis_image/*'),
            *run.work_dir.glob('*.png'),
        ]
        for path in kept:
            if path.suffix.lower() not in ('.png', '.jpg', '.jpeg') or (
                not path.is_file()
            ):
                continue
            # mmengine appends the step: 12 of image_12.png
            ((name, step),) = re.findall(r'^(.*?)_?(\d*)$', path.stem)
            order = (path.parent.as_posix(), int(step or 0))
            key = run.work_dir, name
            if key not in latest or order > latest[key][0]:
                latest[key] = order, path
    paths = [path for _, path in latest.values()]
    shown = [(path.stem, _shrunk(path)) for path in paths[:_PICTURES]]
    return [(name, url) for name, url in shown if url], len(paths[_PICTURES:])


def _shrunk(path: Path) -> str:
    """A picture as a URL of data, '' if it cannot be read."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image is None:
        return ''
    width = image.shape[1]
    if width > _WIDTH:
        image = mmcv.imrescale(image, _WIDTH / width)
    return to_url(image, 'jpeg')


def _machine(device: str) -> str:
    """What the figures were measured on and with."""
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
    return f'{name}; Python {platform.python_version()}, {installed_versions()}'
