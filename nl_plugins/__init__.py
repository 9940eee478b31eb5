"""Non-local attention for MMDetection, MMSegmentation and MMAction2.

Importing the package registers everything in it, so a config needs only::

    custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
"""
from . import compat, functional
from .blocks import (
                     DisentangledNonLocal1d,
                     DisentangledNonLocal2d,
                     DisentangledNonLocal3d,
                     NonLocal1d,
                     NonLocal2d,
                     NonLocal3d,
)
from .insertion import WithBlocks
from .registry import MODELS

__version__ = '0.1.0'

compat.install()

__all__ = [
    'MODELS', 'DisentangledNonLocal1d', 'DisentangledNonLocal2d',
    'DisentangledNonLocal3d', 'NonLocal1d', 'NonLocal2d', 'NonLocal3d',
    'WithBlocks', 'functional'
]
