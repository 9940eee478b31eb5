"""The registries of this package, children of mmengine's.

``type='nl_plugins.NonLocal2d'`` is found here from the scope of any toolbox.
"""

from importlib import import_module
from typing import Any

import mmengine.registry
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

#: Modules of the models for MMSegmentation, which are registered on use.
FOR_MMSEG = {
    'NLHead': 'toolboxes.mmseg_heads',
    'DNLHead': 'toolboxes.mmseg_heads',
    'OHEMCrossEntropyLoss': 'toolboxes.mmseg_losses',
}
#: Modules of the names which need a toolbox or matplotlib, imported on use.
LAZY = FOR_MMSEG | {
    'compare': 'analysis.comparison.report',
    'show_attention': 'visualization.attention',
}


class _LazyRegistry(Registry):
    """A registry that imports the modules of ``FOR_MMSEG`` on use."""

    def get(self, key: str) -> Any:
        name = key.rpartition('.')[2]
        if name in FOR_MMSEG:
            import_module(f'{__package__}.{LAZY[name]}')
        return super().get(key)


MODELS = _LazyRegistry(
    'model', parent=MMENGINE_MODELS, scope='nl_plugins', locations=['nl_plugins']
)
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, scope='nl_plugins', locations=['nl_plugins']
)


def registered() -> dict[str, Any]:
    """What mmengine's registries and their children hold, of all toolboxes.

    Returns:
        dict[str, Any]: Classes and functions by their names, and by their names
        with the scope. Those of ``FOR_MMSEG`` are there once they were used.
    """
    registries = [r for r in vars(mmengine.registry).values() if type(r) is Registry]
    found = {}
    for registry in registries:
        registries += registry.children.values()
        for name, module in registry.module_dict.items():
            found[name] = found[f'{registry.scope}.{name}'] = module
    return found


def find_type(name: Any) -> Any:
    """Find a type of a model's config in the current scope.

    Args:
        name (str | Any): Its name. What is no name is returned as it is.

    Returns:
        Any: The class or function, None if there is none of this name.
    """
    if not isinstance(name, str):
        return name
    with MMENGINE_MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(name)
