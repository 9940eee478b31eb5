"""Find and load configs, of this repository and of the toolboxes."""
import difflib
import importlib
import importlib.util
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from .compat import name_videos
from .errors import ConfigNotFoundError, ToolboxNotInstalledError

#: The toolboxes that this project is for, with the extra that brings them.
TOOLBOXES = dict(mmdet='det', mmseg='seg', mmaction='video')
# Whose configs a wrong name may have meant.
_PACKAGES = (*TOOLBOXES, __package__)


def load_config(name: str,
                options: dict | None = None,
                work_dir: str | None = None,
                launcher: str = 'none') -> Config:
    """Load a config from a file or, by its name, from a package.

    Args:
        name (str): Path of a config, or its name in upstream's form, such as
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
        Config: The config, its toolbox imported and registered.

    Raises:
        ConfigNotFoundError: There is no such config.
        ToolboxNotInstalledError: Its toolbox cannot be imported.
    """
    path = find_config(name)
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise ConfigNotFoundError(
            f'{name}: a config that it inherits is missing: {error}') from None
    except ModuleNotFoundError as error:
        raise ToolboxNotInstalledError(
            f'{name}: {error}. {_how_to_install(error)}') from None
    cfg.merge_from_dict(options or {})
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', path.stem)
    _import_toolbox(cfg.get('default_scope'))
    return cfg


def find_config(name: str) -> Path:
    """Find the file of a config.

    Args:
        name (str): Path of a config, or its name in upstream's form.

    Returns:
        Path: The file.

    Raises:
        ConfigNotFoundError: There is no such config.
        ToolboxNotInstalledError: The toolbox in the name is not installed.
    """
    package, separator, inner = name.rpartition('::')
    if not separator:
        path = Path(name)
        if path.is_file():
            return path
        raise ConfigNotFoundError(
            f"there is no config '{name}'"
            f'{_suggest(name, _spell_configs(*_PACKAGES))}')
    if package not in (*MODULE2PACKAGE, __package__):
        raise ConfigNotFoundError(
            f"there is no config '{name}': '{package}' is no toolbox of "
            f'OpenMMLab{_suggest(package, {key: key for key in _PACKAGES})}')
    root = upstream_configs(package)
    if root is None:
        raise ToolboxNotInstalledError(
            f"'{name}' needs {package}, which is not installed. "
            f'{_how_to_install(package)}')
    if (root / inner).is_file():
        return root / inner
    raise ConfigNotFoundError(
        f"there is no config '{inner}' in {package}"
        f'{_suggest(inner, _spell_configs(package))}')


def upstream_configs(package: str) -> Path | None:
    """Find the configs that a package brings, without importing it.

    Args:
        package (str): Name of a toolbox or of this package, such as
            ``'mmdet'``.

    Returns:
        Path, optional: Their folder, or None without the package.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    return Path(spec.submodule_search_locations[0], '.mim', 'configs')


def _spell_configs(*packages: str) -> dict[str, str]:
    """Configs of those packages that are installed, and their full names."""
    roots = {package: upstream_configs(package) for package in packages}
    found = [(path.relative_to(root).as_posix(), package)
             for package, root in roots.items() if root
             for path in root.rglob('*.py')]
    return {name: f'{package}::{name}' for name, package in found}


def _suggest(name: str, known: dict[str, str]) -> str:
    """The end of a message about an unknown name: what it resembles."""
    name = name.rpartition('configs/')[2]
    close = difflib.get_close_matches(name, known, n=3)
    if not close:
        return ''
    return '; did you mean ' + ' or '.join(known[key] for key in close) + '?'


# Toolboxes ----------------------------------------------------------------


def _import_toolbox(scope: str | None) -> None:
    """Import the toolbox that a config names and register its modules."""
    if scope in (None, 'mmengine', 'nl_plugins'):
        return
    try:
        utils = importlib.import_module(f'{scope}.utils')
        utils.register_all_modules(init_default_scope=False)
    except ModuleNotFoundError as error:
        raise ToolboxNotInstalledError(
            f'the config needs {scope}, which cannot be imported: {error}. '
            f'{_how_to_install(scope)}') from error
    if scope == 'mmaction':
        name_videos()
    if scope == 'mmdet':
        # As its tools do: fewer repeated compilations with torch.compile.
        utils.setup_cache_size_limit_of_dynamo()


def toolbox(cfg: Config) -> str | None:
    """The toolbox of a config.

    Configs in pure Python have no default scope, but classes for types.

    Args:
        cfg (Config): A config.

    Returns:
        str, optional: Name of its package, such as ``'mmdet'``.
    """
    scope = cfg.get('default_scope')
    if scope is None:
        dataset = (cfg.get('test_dataloader') or {}).get('dataset', {})
        scope = getattr(dataset.get('type'), '__module__', '').split('.')[0]
    return scope


def inner_dataset(dataset: dict) -> dict:
    """The config of the data set inside of wrappers, the first of several.

    Args:
        dataset (dict): ``dataset`` of a data loader.

    Returns:
        dict: The first one that has a pipeline, or else the innermost.
    """
    while 'pipeline' not in dataset:
        if 'datasets' in dataset:
            dataset = dataset['datasets'][0]
        elif 'dataset' in dataset:
            dataset = dataset['dataset']
        else:
            break
    return dataset


def _how_to_install(missing: object) -> str:
    """What to do about a toolbox that is missing."""
    extra = next((extra for name, extra in TOOLBOXES.items()
                  if name in str(missing)), 'all')
    return ('Install it with: bash tools/install.sh, or: pip install '
            f"'nl_plugins[{extra}]'")
