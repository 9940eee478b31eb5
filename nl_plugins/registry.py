"""The registry of this package, a child of mmengine's, scope ``nl_plugins``.

``type='nl_plugins.NonLocal2d'`` finds a module here from any toolbox.
"""
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='nl_plugins',
    locations=['nl_plugins'])
