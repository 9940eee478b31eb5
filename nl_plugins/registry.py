"""The registries of this package, children of mmengine's.

``type='nl_plugins.NonLocal2d'`` finds a module here from any toolbox.
"""

from importlib import import_module
from typing import Any

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

#: What needs a toolbox, by the module that registers it when it is used.
LAZY = dict.fromkeys(('NLHead', 'DNLHead'), 'toolboxes.mmseg_heads')


class _LazyRegistry(Registry):
    """A registry that imports a toolbox only when something of it is used."""

    def get(self, key: str) -> Any:
        name = key.rpartition('.')[2]
        if name in LAZY:
            import_module(f'{__package__}.{LAZY[name]}')
        return super().get(key)


MODELS = _LazyRegistry(
    'model', parent=MMENGINE_MODELS, scope='nl_plugins', locations=['nl_plugins']
)
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, scope='nl_plugins', locations=['nl_plugins']
)
