"""Non-local attention for MMDetection, MMSegmentation and MMAction2.

Importing the package registers everything in it, so a config needs only::

    custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
"""

from importlib import import_module
from typing import Any

from . import compat, functional
from .blocks import (
    DisentangledNonLocal1d,
    DisentangledNonLocal2d,
    DisentangledNonLocal3d,
    NonLocal1d,
    NonLocal2d,
    NonLocal3d,
)
from .checkpoints.load import report_refusals
from .checkpoints.upgrade import UpgradeNonLocalHook, upgrade
from .engine.config import load_config, resolve_own_configs
from .insertion import WithBlocks, insert, places
from .registry import HOOKS, LAZY, MODELS
from .visualization.hook import AttentionVisualizationHook

__version__ = '0.1.0'

compat.install()
report_refusals()
resolve_own_configs()

__all__ = [
    'AttentionVisualizationHook',
    'DisentangledNonLocal1d',
    'DisentangledNonLocal2d',
    'DisentangledNonLocal3d',
    'HOOKS',
    'MODELS',
    'NonLocal1d',
    'NonLocal2d',
    'NonLocal3d',
    'UpgradeNonLocalHook',
    'WithBlocks',
    'compare',
    'functional',
    'insert',
    'load_config',
    'places',
    'show_attention',
    'upgrade',
]


def __getattr__(name: str) -> Any:
    """Import the names that need a toolbox or matplotlib when they are used."""
    if name in LAZY:
        return getattr(import_module(f'{__name__}.{LAZY[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
