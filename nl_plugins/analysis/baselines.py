"""Which upstream config a config inherits from, and what was published.

Nothing is typed in here: figures come from the ``metafile.yml`` files that
the installed toolboxes bring with their configs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load

from ..engine.config import TOOLBOXES, config_folder, find_config
from ..errors import ConfigNotFoundError
from ..toolboxes import toolbox_of
from .describe import describe_blocks


@dataclass(frozen=True)
class PublishedResult:
    """What was published for a model on one task.

    Attributes:
        task (str): Such as ``'Object Detection'``.
        dataset (str): Such as ``'COCO'``.
        metrics (dict[str, float]): Figures by the name of their metric, such
            as ``{'box AP': 38.2}``.
        model (str): Name of the model.
        weights (str): URL of its checkpoint, the first one of a pipeline of
            models, ``''`` if there is none.
    """

    task: str
    dataset: str
    metrics: dict[str, float]
    model: str
    weights: str


def find_baseline(config: str) -> str | None:
    """Find the upstream config that a config inherits from.

    Fragments (``mmdet::_base_/...``, and others without a model) are no
    baselines. Between the two may stand configs that change more than the
    blocks, such as the depth: :func:`inherited` lists them.

    Args:
        config (str): Path of a config, or its name in upstream's form.

    Returns:
        str, optional: Name of the first such config, as in
        ``'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'``. None for a config
        that is itself upstream's, that inherits from nobody outside, or that
        is in pure Python (the toolboxes' wheels bring no such configs).

    Raises:
        ConfigNotFoundError: The config, or one that it inherits, does not
            exist.
        ToolboxNotInstalledError: The toolbox of one is not installed.
    """
    for path in inherited(config):
        name = upstream_name(path)
        if name and '_base_' not in path.parts and _has_model(path):
            return name
    return None


def fair_baseline(config: str) -> str | None:
    """Find what a config with blocks is to be compared with.

    Args:
        config (str): Path of a config, or its name.

    Returns:
        str, optional: Name of the upstream config that it inherits, or path
        of one without blocks that stands between them: that has another
        depth, clip or head. None if there is neither.

    Raises:
        ConfigNotFoundError: The config, or one that it inherits, does not
            exist.
        ToolboxNotInstalledError: The toolbox of one is not installed.
    """
    for base in inherited(config):
        if (
            not upstream_name(base)
            and '_base_' not in base.parts
            and _has_model(base)
            and not any(describe_blocks(Config.fromfile(base).model))
        ):
            return str(base)
    return find_baseline(config)


def fair_baselines(config: str) -> list[str]:
    """Find all that a config with blocks is to be compared with.

    Args:
        config (str): Path of a config, or its name.

    Returns:
        list[str]: The model without a block first, see :func:`fair_baseline`.
        Where that has a block of upstream's own, as the non-local heads of
        MMSegmentation, it stands second, after the model of the same backbone,
        data and schedule without one. Empty if there is none.

    Raises:
        ConfigNotFoundError: The config, or one that it inherits, does not
            exist.
        ToolboxNotInstalledError: The toolbox of one is not installed.
    """
    found = fair_baseline(config)
    if found and not any(describe_blocks(Config.fromfile(find_config(found)).model)):
        return [found]
    cfg = Config.fromfile(find_config(config))
    plain = toolbox_of(cfg).config_without_blocks(cfg) if 'model' in cfg else None
    try:
        find_config(plain or '')
    except ConfigNotFoundError:
        plain = None
    return [name for name in (plain, found) if name]


@cache
def _has_model(path: Path) -> bool:
    """Whether a config has a model, and is no fragment."""
    return 'model' in Config.fromfile(path)


def inherited(config: str) -> Iterator[Path]:
    """Go through what a config inherits, up to the toolboxes' configs.

    Args:
        config (str): Path of a config, or its name in upstream's form.

    Yields:
        Path: Files, each before those that it inherits itself. What
        upstream's configs inherit is left out.

    Raises:
        ConfigNotFoundError: The config, or one that it inherits, does not
            exist.
        ToolboxNotInstalledError: The toolbox of one is not installed.
    """
    path = find_config(config)
    # Configs in pure Python are found by import, upstream's are no modules.
    if upstream_name(path) or Config._is_lazy_import(str(path)):
        return
    for base in Config._get_base_files(str(path)):
        if '::' not in base:
            base = str(path.parent / base)
        yield find_config(base)
        yield from inherited(base)


def upstream_name(path: Path) -> str | None:
    """Name a file in the form that stands for toolboxes' configs.

    Args:
        path (Path): Path of a config.

    Returns:
        str, optional: Such as ``'mmdet::_base_/default_runtime.py'``, None
        for a file that no installed toolbox has brought.
    """
    for package in TOOLBOXES:
        root = config_folder(package)
        if root and path.resolve().is_relative_to(root.resolve()):
            inner = path.resolve().relative_to(root.resolve()).as_posix()
            return f'{package}::{inner}'
    return None


def published_results(name: str) -> list[PublishedResult]:
    """Read what was published for a config.

    Args:
        name (str): Name of a config in upstream's form, or the path of a
            config with a ``metafile.yml``.

    Returns:
        list[PublishedResult]: One for each task and each checkpoint, empty if
        the metafile does not list the config or gives no figures.

    Raises:
        ConfigNotFoundError: There is no such config.
        ToolboxNotInstalledError: Its toolbox is not installed.
    """
    path = find_config(name)
    return [
        result
        for model in _models_beside(path)
        # Some write their folder in another way, or no suffix.
        if _stem(model['Config']) == _stem(path.name)
        for result in results_of(model)
    ]


def results_of(model: dict) -> list[PublishedResult]:
    """Read the results in an entry of a metafile.

    Args:
        model (dict): One of ``Models``.

    Returns:
        list[PublishedResult]: One for each task that has figures.
    """
    weights = (_as_list(model.get('Weights')) or [''])[0]
    found = []
    for result in _as_list(model.get('Results')):
        metrics = {
            name: value
            for name, value in (result.get('Metrics') or {}).items()
            if value is not None  # announced, not given
        }
        if metrics:
            found.append(
                PublishedResult(
                    result['Task'], result['Dataset'], metrics, model['Name'], weights
                )
            )
    return found


def _models_beside(path: Path) -> list[dict]:
    """The models of the metafiles of a config's folder or the one above."""
    for folder in path.resolve().parents[:2]:
        # MMPose has one for each backbone, named after it.
        contents = [_load(file) for file in sorted(folder.glob('*.y*ml'))]
        if contents:
            return [
                model
                for content in contents
                # Those of another collection may stand alone.
                for model in (
                    content if isinstance(content, list) else content.get('Models', [])
                )
            ]
    return []


_load = cache(load)


def _stem(config: str) -> str:
    return config.rpartition('/')[2].partition('.py')[0]


def _as_list(value: Any) -> list:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
