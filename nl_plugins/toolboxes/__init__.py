"""What is different from toolbox to toolbox: one adapter each.

A further toolbox is a module with an adapter, and its line here.
"""

from mmengine.config import Config

from .base import Metric, Toolbox
from .mmaction import MMAction
from .mmdet import MMDetection
from .mmseg import MMSegmentation

__all__ = ['Metric', 'TOOLBOXES', 'Toolbox', 'toolbox_of']

#: The adapters, by the name of the package that they are for.
TOOLBOXES = {
    toolbox.name: toolbox for toolbox in (MMDetection(), MMSegmentation(), MMAction())
}


def toolbox_of(cfg: Config) -> Toolbox:
    """The toolbox of a config.

    Configs in pure Python have no default scope, but classes for types.

    Args:
        cfg (Config): A config.

    Returns:
        Toolbox: Its adapter; for a package without one the base class, which
        knows what mmengine alone knows.
    """
    name = cfg.get('default_scope')
    if name is None:
        dataset = (cfg.get('test_dataloader') or {}).get('dataset', {})
        name = getattr(dataset.get('type'), '__module__', '').split('.')[0]
    return TOOLBOXES.get(name) or Toolbox(name or None)
