"""Everything that differs between the toolboxes: one adapter for each.

To add a toolbox, write a module with its adapter and list it here.
"""

from importlib import metadata

from mmengine.config import Config

from .base import Metric, Toolbox
from .mmaction import MMAction
from .mmdet import MMDetection
from .mmpose import MMPose
from .mmpretrain import MMPreTrain
from .mmseg import MMSegmentation

__all__ = ['Metric', 'TOOLBOXES', 'Toolbox', 'installed_versions', 'toolbox_of']

#: The adapters by the name of the toolbox's package.
TOOLBOXES: dict[str, Toolbox] = {
    'mmdet': MMDetection(),
    'mmseg': MMSegmentation(),
    'mmaction': MMAction(),
    'mmpose': MMPose(),
    'mmpretrain': MMPreTrain(),
}


def toolbox_of(cfg: Config) -> Toolbox:
    """The toolbox of a config, by its default scope.

    mmengine's pure Python configs have no default scope: there the package of
    the test dataset's class decides.

    Args:
        cfg (Config): A config.

    Returns:
        Toolbox: Its adapter; for a package without one an instance of the
        base class.
    """
    name = cfg.get('default_scope')
    if name is None:
        dataset = (cfg.get('test_dataloader') or {}).get('dataset', {})
        name = getattr(dataset.get('type'), '__module__', '').split('.')[0]
    return TOOLBOXES.get(name) or Toolbox(name or None)


def installed_versions() -> str:
    """The versions of this package, its base and the toolboxes.

    Returns:
        str: Such as ``'nl_plugins 0.1.0, torch 2.13.0, mmdet 3.3.0'``, of those
        that are installed.
    """
    found = []
    toolboxes = (toolbox.distribution or name for name, toolbox in TOOLBOXES.items())
    for package in ('nl_plugins', 'torch', 'mmengine', 'mmcv', *toolboxes):
        try:
            found.append(f'{package} {metadata.version(package)}')
        except metadata.PackageNotFoundError:
            continue
    return ', '.join(found)
