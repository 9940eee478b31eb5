"""Find and load configs, of this repository and of the toolboxes."""

import difflib
import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import check_file_exist
from torch import nn

from ..errors import (
    ConfigError,
    ConfigNotFoundError,
    ToolboxNotInstalledError,
    first_line,
)
from ..toolboxes import TOOLBOXES, Toolbox, toolbox_of
from .mistakes import name_mistakes

#: Name of this package.
NAME = __name__.partition('.')[0]
# Packages whose configs are suggested for a wrong name.
_PACKAGES = (*TOOLBOXES, NAME)


def load_config(
    name: str,
    options: dict | None = None,
    work_dir: str | None = None,
    launcher: str = 'none',
) -> Config:
    """Load a config from a file or, by its name, from a package.

    Args:
        name (str): Path of a config, or its name in a package, such as
            ``'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'`` or
            ``'nl_plugins::mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py'``.
        options (dict, optional): Settings to override, with dotted keys.
            Defaults to None.
        work_dir (str, optional): Folder of logs and checkpoints. Defaults to
            None: ``work_dir`` of the config, or
            ``./work_dirs/<name of the config>``.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
            Defaults to ``'none'``.

    Returns:
        Config: The config. Its toolbox is imported and registered.

    Raises:
        ConfigNotFoundError: If the config or a base of it does not exist.
        ConfigError: If it cannot be loaded, or the options do not fit it.
        ToolboxNotInstalledError: If its toolbox cannot be imported.
    """
    path = find_config(name)
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise ConfigNotFoundError(
            f'{name}: a config that it inherits is missing: {error}'
        ) from None
    except ModuleNotFoundError as error:
        raise ToolboxNotInstalledError(
            f'{name}: {error}. {_how_to_install(error)}'
        ) from None
    except Exception as error:  # a config is Python code
        raise ConfigError(
            f'{name} cannot be loaded: {type(error).__name__}: {first_line(error)}'
        ) from error
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError) as error:
        raise ConfigError(f'--cfg-options: {error.args[0]}') from error
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', path.stem)
    if cfg.get('default_scope'):
        _register(toolbox_of(cfg))
    return cfg


def find_config(name: str) -> Path:
    """Find the file of a config.

    Args:
        name (str): Path of a config, or its name in a package.

    Returns:
        Path: The file.

    Raises:
        ConfigNotFoundError: If there is no such config.
        ToolboxNotInstalledError: If the package in the name is not installed.
    """
    package, separator, inner = name.rpartition('::')
    if not separator:
        path = Path(name)
        if path.is_file():
            return path
        raise ConfigNotFoundError(
            f"there is no config '{name}'{_suggest(name, _full_names(*_PACKAGES))}"
        )
    if package not in (*MODULE2PACKAGE, NAME):
        raise ConfigNotFoundError(
            f"there is no config '{name}': '{package}' is no toolbox of "
            f'OpenMMLab{_suggest(package, {key: key for key in _PACKAGES})}'
        )
    root = config_folder(package)
    if root is None:
        raise ToolboxNotInstalledError(
            f"'{name}' needs {package}, which is not installed. "
            f'{_how_to_install(package)}'
        )
    if (root / inner).is_file():
        return root / inner
    raise ConfigNotFoundError(
        f"there is no config '{inner}' in {package}"
        f'{_suggest(inner, _full_names(package))}'
    )


def config_folder(package: str) -> Path | None:
    """Find the folder of configs in a package, without importing it.

    Args:
        package (str): Name of a toolbox, such as ``'mmdet'``, or of this
            package.

    Returns:
        Path, optional: The folder, or None if the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], '.mim', 'configs')


def _full_names(*packages: str) -> dict[str, str]:
    """Full names of the installed packages' configs, by their paths."""
    roots = {package: config_folder(package) for package in packages}
    return {
        name: f'{package}::{name}'
        for package, root in roots.items()
        if root
        for name in (path.relative_to(root).as_posix() for path in root.rglob('*.py'))
    }


def _suggest(name: str, known: dict[str, str]) -> str:
    """The end of a message about an unknown name: similar known names."""
    name = name.rpartition('configs/')[2]
    close = difflib.get_close_matches(name, known, n=3)
    if not close:
        return ''
    return '; did you mean ' + ' or '.join(known[key] for key in close) + '?'


# Toolboxes and models -------------------------------------------------------


def _register(toolbox: Toolbox) -> None:
    """Import a toolbox and register its modules."""
    if toolbox.name in (None, 'mmengine', NAME):
        return
    try:
        toolbox.register()
    except ModuleNotFoundError as error:
        raise ToolboxNotInstalledError(
            f'the config needs {toolbox.name}, which cannot be imported: '
            f'{error}. {_how_to_install(toolbox.name)}'
        ) from error


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config for one process.

    Args:
        cfg (Config): Config from :func:`load_config`.

    Returns:
        nn.Module: The model, with BN in place of SyncBN. Its ``init_weights``
        is not called.

    Raises:
        ConfigError: If the config names a type or an argument that does not
            exist.
    """
    init_default_scope(toolbox_of(cfg).name or 'mmengine')
    with name_mistakes(cfg):
        return revert_sync_batchnorm(MODELS.build(cfg.model))


def _how_to_install(missing: object) -> str:
    """The end of a message about a missing toolbox: how to install it."""
    found = (toolbox for name, toolbox in TOOLBOXES.items() if name in str(missing))
    toolbox = next(found, Toolbox())
    option = f' --with {toolbox.extra}' if toolbox.is_optional else ''
    return (
        f'Install it with: bash tools/install.sh{option}, or: pip install '
        f"'nl_plugins[{toolbox.extra}]'"
    )


# Names of this package's configs --------------------------------------------


@functools.cache
def resolve_own_configs() -> None:
    """Patch mmengine to resolve ``_base_ = 'nl_plugins::...'``.

    mmengine only knows OpenMMLab's packages. Importing ``nl_plugins`` calls
    it. A second call does nothing.
    """
    Config._get_cfg_path = staticmethod(_find_base(Config._get_cfg_path))


def _find_base(find: Callable) -> Callable:
    @functools.wraps(find)
    def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, _, name = cfg_path.partition('::')
        if package != NAME:
            return find(cfg_path, filename)
        path = f'{config_folder(NAME)}/{name}'
        check_file_exist(path)
        # Without a scope the types in these configs are the toolbox's.
        return path, None

    return _get_cfg_path
